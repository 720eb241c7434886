"""Bytes in and out of real ports, and one error for all that can go wrong."""

import errno
import os
import pty
import socket
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from glioslice.wire import ports
from glioslice.wire.ports import LineLost, Port, PortError, SerialPort, open_port, opening_error
from glioslice.wire.transport import CAPACITY, Reason, pair


def read_all(port: Port, size: int, seconds: float = 60.0) -> bytes:
    data, deadline = b"", time.monotonic() + seconds
    while len(data) < size and time.monotonic() < deadline:
        data += port.read(0.2)
    return data


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: the descriptor of its near end and the path of the far one."""
    near, far = pty.openpty()
    tty.setraw(far)
    yield near, os.ttyname(far)
    for descriptor in (near, far):
        os.close(descriptor)


def test_a_loop_returns_what_was_written() -> None:
    port = open_port("loop://")
    port.write(bytes(range(256)))
    assert read_all(port, 256) == bytes(range(256))
    started = time.monotonic()
    assert port.read(0.1) == b""
    assert 0.05 < time.monotonic() - started < 30.0
    port.close()
    port.close()


def test_a_terminal_is_a_port(terminal: tuple[int, str]) -> None:
    near, path = terminal
    port = open_port(path, 921600)
    assert port.name == path
    os.write(near, bytes(range(256)))
    assert read_all(port, 256) == bytes(range(256))
    port.write(b"\0\x11\x13\x03back")
    assert os.read(near, 100) == b"\0\x11\x13\x03back"
    port.close()


def test_a_read_returns_at_once_with_what_is_there(terminal: tuple[int, str]) -> None:
    near, path = terminal
    port = open_port(path)
    threading.Timer(0.2, os.write, (near, b"abc")).start()
    started = time.monotonic()
    assert port.read(60.0) == b"abc"
    assert time.monotonic() - started < 30.0
    port.close()


def test_a_socket_is_a_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = open_port(f"socket://127.0.0.1:{server.getsockname()[1]}")
        peer, _ = server.accept()
        with peer:
            peer.sendall(bytes(100_000))
            assert read_all(port, 100_000) == bytes(100_000)
            port.write(b"hello")
            assert peer.recv(10) == b"hello"
        with pytest.raises(LineLost):
            read_all(port, 1)
        port.close()


def test_an_unplugged_port_is_a_lost_line() -> None:
    near, far = pty.openpty()
    port = open_port(os.ttyname(far))
    os.close(far)
    os.close(near)
    with pytest.raises(LineLost, match="check the cable") as caught:
        port.read(1.0)
    assert caught.value.reason == "lost"
    with pytest.raises(LineLost):
        port.write(b"x")
    port.close()


def test_a_port_that_nobody_reads_is_an_error_in_time(
    terminal: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "WRITE_TIMEOUT", 0.2)
    port = open_port(terminal[1])
    with pytest.raises(LineLost, match="accepted no bytes") as caught:
        for _ in range(20):
            port.write(bytes(4096))
    assert caught.value.reason == "stuck"
    port.close()


def test_two_programs_cannot_hold_one_port(terminal: tuple[int, str]) -> None:
    first = open_port(terminal[1])
    with pytest.raises(PortError, match="another program") as caught:
        open_port(terminal[1])
    assert caught.value.reason == "busy"
    first.close()
    open_port(terminal[1]).close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/dev/ttyNOSUCH", "missing"),
        ("nonsense://x", "invalid"),
        ("socket://127.0.0.1:1", "invalid"),
        ("socket://nowhere", "invalid"),
        ("/dev/null", "invalid"),
    ],
)
def test_a_port_that_cannot_be_opened_reports_why(url: str, reason: str) -> None:
    with pytest.raises(PortError) as caught:
        open_port(url)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(url + ": ")


def test_a_plain_file_is_no_port(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with pytest.raises(PortError, match="not a serial port") as caught:
        open_port(str(path))
    assert caught.value.reason == "invalid"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (serial.SerialException(errno.EACCES, "x"), "denied"),
        (serial.SerialException(errno.EBUSY, "x"), "busy"),
        (serial.SerialException("could not open port 'COM3': FileNotFoundError(2)"), "missing"),
        (serial.SerialException("could not open port 'COM3': PermissionError(13)"), "busy"),
        (ValueError("Not a valid baudrate: -1"), "invalid"),
    ],
)
def test_causes_are_distinguished_on_every_system(error: Exception, reason: Reason) -> None:
    assert opening_error("COM3", error).reason == reason


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        serial.SerialException("device disconnected"),
        termios.error(5, "Input/output error"),
        TypeError("descriptor is None"),
        ValueError("negative file descriptor"),
    ],
)
def test_every_exception_of_a_line_becomes_one(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = open_port("loop://")
    assert isinstance(port, SerialPort)

    def fail(*_: object) -> None:
        raise error

    for name in ("read", "write", "flush"):
        monkeypatch.setattr(port._serial, name, fail)
    actions = (lambda: port.read(0.1), lambda: port.write(b"x"), lambda: port.set_rate(921600))
    for action in actions:
        with pytest.raises(LineLost, match="loop://: the line was lost") as caught:
            action()
        assert caught.value.__cause__ is error


def test_a_bug_is_not_a_lost_line(monkeypatch: pytest.MonkeyPatch) -> None:
    port = open_port("loop://")
    assert isinstance(port, SerialPort)
    monkeypatch.setattr(port._serial, "read", {}.__getitem__)
    with pytest.raises(KeyError):
        port.read(0.1)


def test_no_pty_or_termios_is_imported_for_an_ordinary_port() -> None:
    # pyserial's POSIX half imports termios itself; on Windows it has another half.
    code = """
import serial, serial.urlhandler.protocol_loop, sys
for name in ("pty", "tty", "termios", "fcntl"):
    sys.modules[name] = None
from glioslice.wire.connection import Connection
from glioslice.wire.ports import PortError, open_port
port = open_port("loop://")
port.write(b"x")
assert port.read(1.0) == b"x"
port.close()
try:
    open_port("/dev/ttyNOSUCH")
except PortError as error:
    assert error.reason == "missing"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_port_without_a_descriptor_lets_pyserial_wait() -> None:
    port = SerialPort("loop://")
    threading.Timer(0.2, port.write, (b"abc",)).start()
    data = port.read(60.0)
    assert (data + read_all(port, 3 - len(data))) == b"abc"
    port.close()


def test_a_pair_carries_bytes_both_ways() -> None:
    near, far = pair()
    near.write(b"up")
    far.write(b"down")
    assert (far.read(60.0), near.read(60.0)) == (b"up", b"down")
    assert near.read(0.01) == b""
    near.write(b"last")
    near.close()
    assert far.read(1.0) == b"last"
    for failing in (lambda: far.read(1.0), lambda: far.write(b"x"), lambda: near.read(1.0)):
        with pytest.raises(LineLost, match="closed"):
            failing()


def test_a_pair_makes_a_writer_wait() -> None:
    near, far = pair()
    near.write(bytes(CAPACITY))
    writer = threading.Thread(target=near.write, args=(b"more",))
    writer.start()
    time.sleep(0.05)
    assert writer.is_alive()
    assert len(far.read(1.0)) == CAPACITY
    writer.join(60.0)
    assert far.read(1.0) == b"more"
