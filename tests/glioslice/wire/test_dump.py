"""A session in lines of text, from a file and from a serial link."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import tty
from pathlib import Path

import pytest

from glioslice.wire import packets
from glioslice.wire.capture import Kind, Recording, records
from glioslice.wire.dump import Formatter, describe_message, format_recording
from glioslice.wire.framing import encode_frame
from glioslice.wire.layout import varint
from glioslice.wire.messages import (
    BoardHello,
    Empty,
    End,
    Error,
    ErrorCode,
    HostHello,
    Mask,
    Message,
    Mode,
    Slice,
    Start,
    Temperature,
)
from glioslice.wire.packets import (
    ACCEPT,
    PROPOSE,
    Ack,
    Close,
    Data,
    Open,
    Probe,
    Rate,
    describe_packet,
)

DUMP = [sys.executable, "-m", "glioslice.wire.dump"]
HELLO = BoardHello(
    modes=frozenset({Mode.SERVE, Mode.PLAY}), window=(160, 192), scale=0.0390625, zero_point=0,
    clip=1.0, image_codecs=7, mask_codecs=7, sha256="ab" * 32, model="compact",
)  # fmt: skip
MESSAGES: dict[str, Message] = {
    "BoardHello of compact, 160 x 192, can play and serve (98 bytes)": HELLO,
    "HostHello serve, image codec 2, mask codec 1 (5 bytes)": HostHello(Mode.SERVE, 2, 1),
    "Start of 140 slices from 12 (14 bytes)": Start(140, first=12),
    "Start of 140 slices from 0, absent channels 0101 (14 bytes)": Start(140, absent=5),
    "Slice 7, codec 2 (104 bytes)": Slice(7, 2, bytes(100)),
    "Mask 7, codec 1, 2.5 ms (47 bytes)": Mask(7, 1, 2500, bytes(40)),
    "Empty 3 to 5 (12 bytes)": Empty(3, (500, 500, 500), (255, 255, 255)),
    "End after 139 masks and 1 failures (45 bytes)": End(139, 1, 5, "00" * 32),
    "Temperature of 48.5 C (3 bytes)": Temperature(485),
    "Error engine, slice 3: it failed (15 bytes)": Error(ErrorCode.ENGINE, 3, "it failed"),
}
PACKETS: dict[str, packets.Packet] = {
    "OPEN 00001001, version 2, payload 1024, window 9, 2 rates": Open(0x1001, 0, 1024, 9, 3),
    "OPEN 00002002 to 00001001, version 2, payload 64, window 9, 0 rates": Open(
        0x2002, 0x1001, 64, 9
    ),
    "DATA offset 100, 5 bytes, acknowledges 7": Data(1, 100, 7, b"12345"),
    "ACK acknowledges 100, edge 900": Ack(1, 100, 900),
    "ACK acknowledges 100, edge 900, 60 bytes missing in 2 gaps": Ack(
        1, 100, 900, ((50, 1), (10, 1))
    ),
    "CLOSE": Close(1),
    "RATE propose 921600 baud": Rate(1, PROPOSE, 921600, 300),
    "RATE accept 921600 baud": Rate(1, ACCEPT, 921600, 300),
    "PROBE 3": Probe(1, 3, bytes(32)),
}


@pytest.mark.parametrize("text", MESSAGES)
def test_every_message_is_described(text: str) -> None:
    assert describe_message(MESSAGES[text].to_bytes()) == text


def test_an_unreadable_message_is_described_too() -> None:
    assert re.match(r"an unreadable message of 2 bytes: .*type 99", describe_message(b"cx"))


@pytest.mark.parametrize("text", PACKETS)
def test_every_packet_is_described(text: str) -> None:
    assert describe_packet(PACKETS[text]) == text


def frame(packet: packets.Packet, up: bool) -> bytes:
    return encode_frame(packets.to_bytes(packet, up))


def write_session(path: Path) -> Path:
    """A short session with noise, an echo, a repeated frame, and one that is late."""
    ticks = iter(n / 1000 for n in range(1000))
    keep = Recording(path, lambda: next(ticks))
    keep.add(Kind.DOWN, b"\r\nlogin: \x1b[0m\0")
    keep.add(Kind.UP, frame(Open(1, 0, 1024, 2048), True))
    keep.add(Kind.DOWN, frame(Open(1, 0, 1024, 2048), True) + frame(Open(2, 1, 1024, 2048), False))
    keep.add(Kind.RATE, (921600).to_bytes(4, "little"))
    hello = HELLO.to_bytes()
    stream = varint(len(hello)) + hello
    for start, stop in ((0, 10), (50, len(stream)), (10, 50), (0, 10)):
        keep.add(Kind.DOWN, frame(Data(3, start, 0, stream[start:stop]), False))
    keep.add(Kind.LINE, b"\0")
    keep.add(Kind.LINE, b"\1")
    keep.add(Kind.VOLUME, b"numbers")
    keep.add(Kind.DOWN, b"\0half")
    keep.close()
    return path


LINES = [
    "   seconds   bytes  from    what",
    "  0.001000      14  board  skipped: ..login: .[0m",
    "  0.002000      23  host   OPEN 00000001, version 2, payload 1024, window 2048, 0 rates",
    "  0.003000      23  board  skipped: an echo of OPEN 00000001, version 2, payload 1024, ",
    "  0.003000      23  board  OPEN 00000002 to 00000001, version 2, payload 1024, window 20",
    "  0.004000                 the host's port is set to 921600 baud",
    "  0.005000      26  board  DATA offset 0, 10 bytes, acknowledges 0",
    "  0.006000      65  board  DATA offset 50, 49 bytes, acknowledges 0",
    "  0.007000      56  board  DATA offset 10, 40 bytes, acknowledges 0, late; BoardHello of ",
    "  0.008000      26  board  DATA offset 0, 10 bytes, acknowledges 0, 10 bytes repeated",
    "  0.009000                 the line is lost",
    "  0.010000                 the line is back",
    "  0.011000                 where the masks belong, recorded by the host",
    "0.012 s, 1 sessions",
    "host to board: 23 bytes in 1 frames, 0 of messages, 0 repeated, 0 skipped; no message",
    "board to host: 233 bytes in 5 frames, 99 of messages, 10 repeated, 37 skipped; 1 BoardHello",
    "4 bytes at the end belong to no frame",
]


def test_a_line_a_frame_and_a_summary(tmp_path: Path) -> None:
    path = write_session(tmp_path / "a.rec")
    lines = list(format_recording(records(path)))
    assert [shown[: len(text)] for shown, text in zip(lines, LINES, strict=True)] == LINES


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DUMP, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def test_the_command_prints_a_file(tmp_path: Path) -> None:
    done = run(write_session(tmp_path / "a.rec"))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(LINES)


def test_what_is_good_of_a_damaged_file_is_printed_before_the_error(tmp_path: Path) -> None:
    path = write_session(tmp_path / "a.rec")
    path.write_bytes(path.read_bytes()[:-100])
    done = run(path)
    assert done.returncode == 2
    assert "an echo of OPEN" in done.stdout
    assert "1 frames" in done.stdout.splitlines()[-2]
    assert re.fullmatch(r"error: \S+a\.rec: this recording is cut short at .*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["none.rec"], "none.rec: there is no such recording and no such port"),
        (["sim://"], "sim://: a simulated line needs a command to start at its end"),
        (["pyproject.toml"], "pyproject.toml: this is not a recording"),
        (["."], r"\.: "),
        (["nothing://x"], r"nothing://x: this is not a serial port"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], why: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(f"error: {why}", done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_listening_prints_both_directions_and_writes_nothing() -> None:
    near, far = pty.openpty()
    tty.setraw(far)
    os.set_blocking(near, False)
    process = subprocess.Popen(
        [*DUMP, os.ttyname(far)], stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or []))
    assert process.stdout.readline() == LINES[0] + "\n"
    reader.start()
    for packet, up in ((Open(1, 0, 1024, 2048), True), (Open(2, 1, 1024, 2048), False)):
        os.write(near, frame(packet, up))
    os.write(near, frame(Data(3, 0, 0, b"\x02\x07\x07"), True))
    end = time.monotonic() + 60
    while len(lines) < 3 and time.monotonic() < end:
        time.sleep(0.05)
    with pytest.raises(BlockingIOError):
        os.read(near, 100)  # nothing was written
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    reader.join()
    os.close(near)
    os.close(far)
    assert [line[20:30] for line in lines[:3]] == ["host   OPE", "board  OPE", "host   DAT"]
    assert "host to board: " in lines[-2]
    assert "board to host: " in lines[-1]


def test_a_line_that_is_lost_ends_the_listening() -> None:
    near, far = pty.openpty()
    tty.setraw(far)
    with subprocess.Popen(
        [*DUMP, os.ttyname(far)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        os.close(far)
        os.close(near)
        assert process.wait(60) == 2
        assert "the line was lost" in process.stderr.read()
        assert "host to board: 0 bytes" in process.stdout.read()


def test_a_session_whose_start_was_missed_is_printed_frame_by_frame() -> None:
    (line,) = Formatter().bytes(None, frame(Data(3, 700, 0, b"x"), False), 1.0)
    assert line == "  1.000000      17  board  DATA offset 700, 1 bytes, acknowledges 0"
