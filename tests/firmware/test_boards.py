"""The firmware's boards in QEMU, behind the simulated line, with a stand-in for the network."""

import argparse
import hashlib
import json
import random
import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from device.confidence import mask_confidence
from firmware_host import doctor, stream
from glioslice.labels import to_labels
from glioslice.wire.codecs import encode_image
from glioslice.wire.messages import (
    End,
    Error,
    ErrorCode,
    HostHello,
    Mask,
    Mode,
    Slice,
    Start,
    send,
)
from tests.conftest import Write
from tests.firmware.boards import (
    BAUD,
    CHANGE,
    LOSSY,
    RAW,
    RUNS,
    build,
    check_run,
    connect,
    next_message,
    open_session,
)
from tests.firmware.library import TESTS
from tools.firmware_demo import qemu_command

pytestmark = pytest.mark.slow

ZERO_POINT, SCALE = 20, 0.1  # of the stand-in


MAIN = "mps2-an500"


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("build"), MAIN)


DAMAGED = "sim://?errors=1e-4&loss=0.01&latency=5ms"


@pytest.mark.parametrize(
    ("board", "line"), [*((board, "sim://") for board in BAUD), (MAIN, DAMAGED)]
)
def test_echo_returns_messages_of_every_length(board: str, line: str, tmp_path: Path) -> None:
    chance = random.Random(1)
    messages = [chance.randbytes(size) for size in (1, 127, 128, 3000, 17)]
    with connect(board, build(tmp_path, board, "echo"), line) as connection:
        connection.open(120.0)
        for message in messages:
            connection.send(message)
        for message in messages:
            assert connection.receive(120.0) == message


def slices(count: int) -> NDArray[np.int8]:
    """Return smooth slices (count, 160, 192, 4), some of which the stand-in finds empty."""
    chance = np.random.default_rng(5)
    coarse = chance.integers(-128, 100, (count, 10, 12, 4))
    made = np.repeat(np.repeat(coarse, 16, 1), 16, 2)
    made[::3, ..., :3] = -50
    made += chance.integers(0, 20, made.shape)
    return made.astype(np.int8)


def stand_in(image: NDArray[np.int8]) -> tuple[NDArray[np.uint8], int]:
    """Return labels and confidence of the stand-in for the network."""
    logits = np.ascontiguousarray(image[..., :3])
    labels = to_labels(np.moveaxis(logits > ZERO_POINT, -1, 0))
    return labels, mask_confidence(logits, SCALE, ZERO_POINT)


@pytest.mark.parametrize(
    ("images", "masks", "absent", "line"),
    [
        (LOSSY, CHANGE, 0, "sim://?errors=1e-5&loss=0.002&latency=5ms"),
        (LOSSY, RUNS, 0b0101, "sim://"),
        (RAW, CHANGE, 0, "sim://"),
        (RAW, RUNS, 0b1001, "sim://"),
    ],
)
def test_a_run(elf: Path, images: int, masks: int, absent: int, line: str) -> None:
    sent = slices(5) if images == LOSSY else slices(2)[1:]  # a raw one takes seconds
    with connect(MAIN, elf, line) as connection:
        check_run(connection, sent, stand_in, images, masks, absent)


def test_a_run_on_the_board_that_the_network_does_not_fit(tmp_path: Path) -> None:
    """The others run the whole firmware, in test_whole_firmware.py."""
    board = "netduinoplus2"
    with connect(board, build(tmp_path, board)) as connection:
        check_run(connection, slices(5), stand_in, LOSSY, CHANGE)


def test_refusals_and_failures_leave_the_session_usable(elf: Path) -> None:
    image = slices(2)[1]
    noise = np.random.default_rng(1).integers(-128, 128, image.shape).astype(np.int8)
    large = encode_image(LOSSY, noise)
    with connect(MAIN, elf) as connection:
        hello = open_session(connection, 1, CHANGE)  # zlib is not offered
        assert 0 < hello.largest_payload < len(large)

        def refused(index: int = -1) -> bool:
            message = next_message(connection)
            assert isinstance(message, Error)
            return (message.code, message.index) == (ErrorCode.REFUSED, index)

        assert refused()
        send(connection, Start(2))
        assert refused()
        send(connection, Slice(0, RAW, b""))
        assert refused(0)
        send(connection, HostHello(Mode.PLAY, LOSSY, CHANGE))
        assert refused()
        for unreadable in (b"\x09", b"\x02\x03\x01\x03\x03", b"\x03\x00", b"\x04"):
            connection.send(unreadable)
            assert refused()
        send(connection, HostHello(Mode.SERVE, LOSSY, RUNS))
        send(connection, Start(4))
        send(connection, HostHello(Mode.SERVE, LOSSY, RUNS))
        assert refused()
        send(connection, Slice(3, RAW, b""))
        assert refused(3)
        for index, payload in enumerate((b"damaged", large)):
            send(connection, Slice(index, LOSSY, payload))
            message = next_message(connection)
            assert isinstance(message, Error)
            assert (message.code, message.index) == (ErrorCode.SLICE, index)
        send(connection, Slice(2, RAW, image.tobytes()))  # another codec than that of HostHello
        message = next_message(connection)
        assert isinstance(message, Mask) and message.index == 2
        send(connection, Slice(3, 1, b"zlib"))
        message = next_message(connection)
        assert isinstance(message, Error) and message.index == 3
        end = next_message(connection)
        assert isinstance(end, End) and (end.masks, end.failed) == (1, 3)
        hashed = hashlib.sha256(stand_in(image)[0].tobytes()).digest()
        assert end.digest == hashlib.sha256(struct.pack("<I", 2) + hashed).hexdigest()


def test_a_second_host_finds_the_board_ready(elf: Path) -> None:
    """The first one vanishes in the middle of a run, without a CLOSE."""
    image = slices(2)[1]
    with connect(MAIN, elf) as connection:
        for _ in range(3):
            hello = open_session(connection, LOSSY, CHANGE)  # abandons the session before
            assert (hello.kept, hello.answered) == (0, 0)
            send(connection, Start(2))
            send(connection, Slice(0, LOSSY, encode_image(LOSSY, image)))
            assert isinstance(next_message(connection), Mask)


def test_a_case_from_the_host_tool(elf: Path, write_case: Write, tmp_path: Path) -> None:
    """The unmodified stream.py, over a line that flips bits, loses bytes and is unplugged."""
    line = "sim://?errors=1e-5&loss=0.001&latency=2ms&unplug=1.5s&after=3s"
    report = tmp_path / "report.json"
    arguments = ["--port", line, "--baud", str(BAUD[MAIN]), "--input", str(write_case())]
    arguments += ["--output", str(tmp_path / "mask.nii.gz"), "--report", str(report)]
    arguments += ["--allow-model", bytes([1, 2, 3]).ljust(32, b"\0").hex()]
    stream.main(arguments, lambda *_: qemu_command(MAIN, elf))
    content = json.loads(report.read_text())
    assert content["complete"] and content["model"]["kernels"] == "reference"


def test_the_doctor_knows_a_microcontroller(elf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = argparse.Namespace(port="sim://", baud=BAUD[MAIN], model=None)
    with pytest.raises(SystemExit) as end:
        doctor.examine(given, lambda _: qemu_command(MAIN, elf))
    printed = capsys.readouterr().out
    assert end.value.code == 0, printed
    assert "healthy" in printed and "firmware of a microcontroller" in printed
    assert f"--baud {BAUD[MAIN]}" in printed and "systemctl" not in printed


def test_a_fault_is_printed_with_its_place_and_the_board_starts_again(tmp_path: Path) -> None:
    program = build(tmp_path, MAIN, str(TESTS / "faulty.c"))
    symbols = subprocess.run(
        ["arm-none-eabi-nm", str(program)], capture_output=True, text=True, check=True
    ).stdout
    (place,) = re.findall(r"([0-9a-f]{8}) t undefined_instruction", symbols)
    with subprocess.Popen(
        qemu_command(MAIN, program, "stdio"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        try:
            assert process.stdout.readline() == b"ready\r\n"
            process.stdin.write(b"x")
            process.stdin.flush()
            process.stdout.readline()
            fault = process.stdout.readline().decode()
            assert f"fault at 0x{place}" in fault
            assert process.stdout.readline() == b"ready\r\n"
        finally:
            process.kill()
