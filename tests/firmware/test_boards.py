"""The firmware's boards in QEMU, behind the simulated line, with a stand-in for the network."""

import hashlib
import random
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from device.confidence import mask_confidence
from glioslice.labels import to_labels
from glioslice.wire.codecs import decode_image, decode_mask, encode_image
from glioslice.wire.connection import Connection
from glioslice.wire.messages import (
    BoardHello,
    Empty,
    End,
    Error,
    ErrorCode,
    HostHello,
    Mask,
    MaskDigest,
    Message,
    Mode,
    Slice,
    Start,
    receive,
    send,
)
from glioslice.wire.ports import open_port
from tests.firmware.boards import BAUD, build, qemu

pytestmark = pytest.mark.slow

LOSSY, RAW, RUNS, CHANGE = 3, 0, 1, 3
ZERO_POINT, SCALE = 20, 0.1  # of the stand-in


MAIN = "mps2-an500"


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("build"), MAIN)


def connect(board: str, elf: Path, line: str = "sim://") -> Connection:
    port = open_port(line, BAUD[board], command=qemu(board, elf))
    return Connection(port, active=True)


@pytest.mark.parametrize("line", ["sim://", "sim://?errors=1e-4&loss=0.01&latency=5ms"])
@pytest.mark.parametrize("board", sorted(BAUD))
def test_echo_returns_messages_of_every_length(board: str, line: str, tmp_path: Path) -> None:
    chance = random.Random(1)
    messages = [chance.randbytes(size) for size in (1, 127, 128, 3000, 17)]
    with connect(board, build(tmp_path, board, "echo"), line) as connection:
        connection.open(20.0)
        for message in messages:
            connection.send(message)
        for message in messages:
            assert connection.receive(60.0) == message


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


def next_message(connection: Connection) -> Message:
    message = receive(connection, 60.0)
    assert message is not None
    return message


def open_session(connection: Connection, images: int, masks: int) -> BoardHello:
    connection.open(20.0)
    hello = next_message(connection)
    assert isinstance(hello, BoardHello)
    send(connection, HostHello(Mode.SERVE, images, masks))
    return hello


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
    check_run(MAIN, elf, images, masks, absent, line)


@pytest.mark.parametrize("board", sorted({*BAUD} - {MAIN}))
def test_a_run_on_the_other_boards(board: str, tmp_path: Path) -> None:
    check_run(board, build(tmp_path, board), LOSSY, CHANGE, 0, "sim://")


def check_run(board: str, elf: Path, images: int, masks: int, absent: int, line: str) -> None:
    sent = slices(5) if images == LOSSY else slices(2)[1:]  # a raw one takes seconds
    present = [channel for channel in range(4) if not absent >> channel & 1]
    with connect(board, elf, line) as connection:
        hello = open_session(connection, images, masks)
        assert (hello.window, hello.kernels, hello.model) == ((160, 192), "reference", "stand-in")
        send(connection, Start(len(sent) + 3, first=3, absent=absent))
        digest, previous, micros = MaskDigest(), None, 0
        for index, image in enumerate(sent, 3):
            payload = encode_image(images, image[..., present])
            send(connection, Slice(index, images, payload))
            whole = np.full((160, 192, 4), hello.zero_point, np.int8)
            whole[..., present] = decode_image(images, payload, (160, 192, len(present)))
            labels, confidence = stand_in(whole)
            digest.add(index, labels.tobytes())
            message = next_message(connection)
            if isinstance(message, Empty):
                assert not labels.any()
                assert (message.index, message.quality) == (index, (confidence,))
                micros += message.device_us[0]
            else:
                assert isinstance(message, Mask)
                assert (message.index, message.quality) == (index, confidence)
                decoded = decode_mask(message.codec, message.payload, (160, 192), previous)
                np.testing.assert_array_equal(decoded, labels)
                micros += message.device_us
            previous = labels
        assert next_message(connection) == End(len(sent), 0, micros, digest.hexdigest())


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
