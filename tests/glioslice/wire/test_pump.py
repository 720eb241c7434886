"""A connection over simulated lines and ports that vanish."""

import contextlib
import logging
import os
import pty
import threading
import time
import tty
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from glioslice.wire import baud_negotiation
from glioslice.wire.connection import Connection, PeerSilent
from glioslice.wire.ports import LineLost, open_port
from glioslice.wire.simulator import port as sim
from tests.glioslice.wire.joined import open_both


@pytest.mark.slow
@pytest.mark.parametrize(
    "url",
    [
        "sim://?baud=3000000",
        "sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms",
        "sim://?baud=921600&errors=1e-4&seed=2",
    ],
)
def test_a_simulated_line_with_a_process(far_end: Callable[[str], list[str]], url: str) -> None:
    messages = [os.urandom(10_000) for _ in range(8)]
    with Connection(open_port(url, command=far_end("reply")), active=True) as host:
        host.open(60.0)
        for message in messages:
            host.send(message)
        assert [host.receive(60.0) for _ in messages] == [m[:100] for m in messages]


def exchange(host: Connection, messages: list[bytes], seconds: float) -> None:
    """Send all messages to the answering process, and check what comes back."""

    def feed() -> None:
        for message in messages:
            host.send(message)

    feeder = threading.Thread(target=feed)
    feeder.start()
    deadline = time.monotonic() + seconds
    replies: list[bytes] = []
    while len(replies) < len(messages) and time.monotonic() < deadline:
        reply = host.receive(1.0)
        replies += [] if reply is None else [reply]
    feeder.join()
    assert replies == [m[:100] for m in messages]


@pytest.mark.slow
def test_the_ends_agree_on_the_fastest_rate(
    far_end: Callable[[str], list[str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trial fails if a busy machine stops one of the ends meanwhile; it is repeated soon."""
    monkeypatch.setattr(baud_negotiation, "FRESH", 5.0)
    monkeypatch.setattr(baud_negotiation, "MAX_FAILURES", 1000)
    caplog.set_level(logging.INFO)
    port = open_port("sim://?baud=460800", command=far_end("reply"))
    with Connection(port, active=True) as host:
        host.open(60.0)
        exchange(host, [os.urandom(3000) for _ in range(5)], 120.0)
        while host.rate != 460800:
            exchange(host, [os.urandom(3000) for _ in range(20)], 120.0)
        deadline = time.monotonic() + 60.0
        while time.monotonic() < deadline and "460800 baud" not in caplog.text:
            host.receive(0.1)
        assert "the serial link runs at 460800 baud" in caplog.text


def test_a_rate_that_is_given_is_fixed(far_end: Callable[[str], list[str]]) -> None:
    port = open_port("sim://?baud=921600", 115200, command=far_end("reply"))
    with Connection(port, active=True) as host:
        host.open(60.0)
        exchange(host, [os.urandom(3000)], 120.0)
        assert host.rate is None


@pytest.mark.slow
def test_a_session_resumes_after_the_cable_was_out(
    far_end: Callable[[str], list[str]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is put back, a minute later by the line's clock, once that is seen."""
    caplog.set_level(logging.INFO)
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + (60.0 if outages(caplog) else 0.0))
    monkeypatch.setattr(sim, "time", clock)
    url = "sim://?baud=115200&unplug=60s&after=500ms"
    port = open_port(url, command=far_end("reply"))
    with Connection(port, active=True) as host:
        host.open(60.0)
        session = host._link.session
        exchange(host, [os.urandom(3000) for _ in range(8)], 120.0)
        assert host._link.session == session
    assert outages(caplog) == [("WARNING", "lost"), ("INFO", "back")]


def outages(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The level of each logged outage and recovery."""
    return [
        (record.levelname, "back" if "is back" in record.message else "lost")
        for record in caplog.records
        if "is back" in record.message or "waiting up to" in record.message
    ]


class Terminal:
    """A pseudo-terminal as a cable: its far end is the port `path`, and can be plugged in again."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, "terminal"
        self.near, self.far = -1, -1

    def plug(self) -> None:
        self.near, self.far = pty.openpty()
        tty.setraw(self.far)
        os.set_blocking(self.near, False)
        self.path.symlink_to(os.ttyname(self.far))

    def pull(self) -> None:
        self.path.unlink()
        near, self.near = self.near, -1
        os.close(self.far)
        os.close(near)

    def read(self, timeout: float) -> bytes:
        time.sleep(0.005)
        with contextlib.suppress(OSError):
            return os.read(self.near, 65536)
        return b""

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self.near, data)

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_a_port_that_vanishes_is_reopened_by_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    terminal = Terminal(tmp_path / "ttyUSB0")
    terminal.plug()
    port = open_port(str(terminal.path))
    with (
        Connection(terminal, active=False) as board,
        Connection(port, active=True) as host,
    ):
        open_both(host, board)
        session = host._link.session
        for number in range(2):
            host.send(b"before %d" % number)
            assert board.receive(60.0) == b"before %d" % number
            terminal.pull()
            host.send(b"while it was out")
            time.sleep(0.7)
            terminal.plug()
            assert board.receive(60.0) == b"while it was out"
            board.send(b"back")
            assert host.receive(60.0) == b"back"
        assert host._link.session == session
    assert outages(caplog) == [("WARNING", "lost"), ("INFO", "back")] * 2


@pytest.mark.slow
def test_a_port_that_stays_away_is_lost_in_time(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "ttyUSB0")
    terminal.plug()
    with (
        Connection(terminal, active=False) as board,
        Connection(open_port(str(terminal.path)), active=True, silence=1.5) as host,
    ):
        open_both(host, board)
        terminal.pull()
        with pytest.raises((LineLost, PeerSilent)):
            host.receive(120.0)
        assert time.monotonic() - host._link.last_received >= 1.5


@pytest.mark.slow
@pytest.mark.serial
def test_the_line_is_filled(far_end: Callable[[str], list[str]]) -> None:
    command = [*far_end("reply"), "921600"]  # both ends fixed: no time goes to finding a rate
    port = open_port("sim://?baud=921600&latency=16ms", 921600, command=command)
    messages = [os.urandom(30_000) for _ in range(12)]
    with Connection(port, active=True) as host:
        host.open(60.0)
        for _ in range(3):  # a busy machine may be late, but not each time
            started = time.monotonic()
            for message in messages:
                host.send(message)
            assert [host.receive(60.0) for _ in messages] == [m[:100] for m in messages]
            share = 360_000 * 10 / 921600 / (time.monotonic() - started)
            if share > 0.9:
                break
    assert share > 0.9
