"""A link over a port, with real threads and a real clock."""

import contextlib
import os
import pty
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from glioslice.wire.connection import (
    SEND_LIMIT,
    Connection,
    PeerClosed,
    PeerRestarted,
    PeerSilent,
)
from glioslice.wire.link import LinkError
from glioslice.wire.pair import MemoryPort, pair
from glioslice.wire.ports import LineLost, open_port

Both = tuple[Connection, Connection]


@pytest.fixture
def both() -> Iterator[Both]:
    near, far = pair()
    with Connection(near, active=True) as host, Connection(far, active=False) as board:
        host.open(5.0)
        board.open(5.0)
        yield host, board


def test_messages_cross_both_ways(both: Both) -> None:
    host, board = both
    sent = [os.urandom(size) for size in (1, 100, 512, 60_000, 120_000)]

    def echo() -> None:
        for _ in sent:
            message = board.receive(5.0)
            assert message is not None
            board.send(message)

    thread = threading.Thread(target=echo)
    thread.start()
    for message in sent:
        host.send(message)
    assert [host.receive(5.0) for _ in sent] == sent
    thread.join()
    assert host.flush(5.0)
    assert host.receive(0.05) is None
    assert host.counts.bytes_received == board.counts.bytes_sent > sum(map(len, sent))


def test_a_sender_waits_for_a_reader_who_takes_nothing(both: Both) -> None:
    host, board = both
    messages = [bytes([i]) * 30_000 for i in range(20)]

    def feed() -> None:
        for message in messages:
            host.send(message)

    thread = threading.Thread(target=feed)
    thread.start()
    time.sleep(0.4)
    assert thread.is_alive()
    assert host._link.queued < SEND_LIMIT + 30_010
    assert [board.receive(5.0) for _ in messages] == messages
    thread.join(5.0)
    assert not thread.is_alive()


def test_nobody_answers() -> None:
    near, far = pair()
    with Connection(near, active=True) as host:
        started = time.monotonic()
        with pytest.raises(PeerSilent, match="memory:host: nobody answers"):
            host.open(0.4)
        assert 0.3 < time.monotonic() - started < 2.0
        board = Connection(far, active=False)  # it comes late; calling again goes on waiting
        host.open(5.0)
        board.close()


@pytest.mark.parametrize(
    ("said", "what"), [(b"login: ", "none of them make sense"), (None, "our own bytes come back")]
)
def test_who_answers_in_another_language_is_named(said: bytes | None, what: str) -> None:
    near, far = pair()
    with Connection(near, active=True) as host:
        far.write(said if said is not None else far.read(1.0))
        with pytest.raises(PeerSilent, match=what):
            host.open(0.3)
        assert host.skipped == (said or b"")


def test_a_silent_peer_is_an_error_in_time_and_may_come_back() -> None:
    near, far = pair()
    host = Connection(near, active=True, silence=1.5)
    board = Connection(far, active=False)
    host.open(5.0)
    board.open(5.0)
    assert host.receive(2.0) is None  # the keep-alive is enough
    with board._lock:  # the board hangs
        with pytest.raises(PeerSilent, match="nothing heard"):
            host.receive(10.0)
        with pytest.raises(PeerSilent):
            host.send(b"x")
            host.flush(10.0)
    board.send(b"back again")
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            assert host.receive(1.0) == b"back again"
            break
        except PeerSilent:
            time.sleep(0.05)
    assert board.receive(5.0) == b"x"
    host.close()
    board.close()


def test_what_arrived_before_the_end_is_received_before_the_error(both: Both) -> None:
    host, board = both
    board.send(b"one")
    board.send(b"two")
    assert board.flush(5.0)
    board.close()
    time.sleep(0.1)
    assert host.receive(1.0) == b"one"
    assert host.receive(1.0) == b"two"
    with pytest.raises((PeerClosed, LineLost)):
        host.receive(1.0)


def meet(host: Connection, board: Connection) -> None:
    """Open a session from both ends at once, as two programs do."""
    waiting = threading.Thread(target=board.open, args=(5.0,))
    waiting.start()
    host.open(5.0)
    waiting.join()


class Shared:
    """A port that outlives the connections that use it, as a board's does between two hosts."""

    def __init__(self, port: MemoryPort) -> None:
        self._port = port
        self.name = port.name
        self.read = port.read
        self.write = port.write

    def close(self) -> None:
        pass


def test_hosts_come_and_go() -> None:
    near, far = pair()
    with Connection(far, active=False) as board:
        for run in range(3):
            with Connection(Shared(near), active=True) as host:
                meet(host, board)
                host.send(b"run %d" % run)
                assert board.receive(5.0) == b"run %d" % run
                assert host.flush(5.0)
            with pytest.raises(PeerClosed, match="ended the session"):
                board.receive(5.0)
            with pytest.raises(PeerClosed):
                board.send(b"x")


def test_a_peer_that_restarted_is_recognised() -> None:
    near, far = pair()
    with Connection(far, active=False) as board:
        first = Connection(Shared(near), active=True)
        first.open(5.0)
        board.open(5.0)
        first._ending = True  # it dies without a goodbye
        for thread in first._threads:
            thread.join(0.1)
        with first._lock:
            first._work.notify()
        with Connection(Shared(near), active=True) as second:
            with pytest.raises(PeerRestarted, match="has restarted"):
                board.receive(5.0)
            meet(second, board)
            second.send(b"hello")
            assert board.receive(5.0) == b"hello"


def test_counts_are_kept_over_sessions() -> None:
    near, far = pair()
    with Connection(far, active=False) as board:
        totals = []
        for _ in range(2):
            with Connection(Shared(near), active=True) as host:
                meet(host, board)
                host.send(bytes(1000))
                board.receive(5.0)
                assert host.flush(5.0)
            totals.append(board.counts.bytes_received)
        assert totals[1] > totals[0] + 1000


def test_no_session_no_messages() -> None:
    near, _ = pair()
    with Connection(near, active=True) as host:
        with pytest.raises(LinkError, match="call open first"):
            host.send(b"x")
        with pytest.raises(LinkError, match="call open first"):
            host.receive(0.1)
    with pytest.raises(PeerClosed, match="this connection is closed"):
        host.send(b"x")


def test_another_version_is_refused() -> None:
    from glioslice.wire.frames import encode

    near, far = pair()
    with Connection(near, active=True) as host:
        far.write(encode(b"\x01\x09" + bytes(12)))
        with pytest.raises(LinkError, match="memory:host: the board speaks version 9"):
            host.open(5.0)


def test_a_lost_line_ends_every_call(both: Both) -> None:
    host, board = both
    board._port.close()
    with pytest.raises(LineLost):
        host.receive(5.0)
    with pytest.raises(LineLost):
        host.send(b"x")
    with pytest.raises(LineLost):
        host.open(5.0)


def test_no_thread_is_left_and_closing_twice_does_no_harm() -> None:
    before = threading.active_count()
    near, far = pair()
    host, board = Connection(near, active=True), Connection(far, active=False)
    host.open(5.0)
    for connection in (host, board, host):
        connection.close()
    assert threading.active_count() == before


def test_waiting_costs_no_time(both: Both) -> None:
    host, _ = both
    time.sleep(0.3)
    started = time.process_time()
    assert host.receive(2.0) is None
    assert time.process_time() - started < 0.05


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
    with Connection(open_port(url, command=far_end("answer")), active=True) as host:
        host.open(30.0)
        for message in messages:
            host.send(message)
        assert [host.receive(30.0) for _ in messages] == [m[:100] for m in messages]


def exchanged(host: Connection, messages: list[bytes], seconds: float) -> None:
    """Send all messages to the answering process, and check what comes back."""

    def feed() -> None:
        for message in messages:
            host.send(message)

    feeder = threading.Thread(target=feed)
    feeder.start()
    deadline = time.monotonic() + seconds
    answers: list[bytes] = []
    while len(answers) < len(messages) and time.monotonic() < deadline:
        answer = host.receive(1.0)
        answers += [] if answer is None else [answer]
    feeder.join()
    assert answers == [m[:100] for m in messages]


def test_the_ends_agree_on_the_fastest_rate(far_end: Callable[[str], list[str]]) -> None:
    port = open_port("sim://?baud=460800", command=far_end("answer"))
    with Connection(port, active=True) as host:
        host.open(30.0)
        exchanged(host, [os.urandom(3000) for _ in range(5)], 30.0)
        assert host.rate == 460800


def test_a_rate_that_is_given_stays(far_end: Callable[[str], list[str]]) -> None:
    port = open_port("sim://?baud=921600", 115200, command=far_end("answer"))
    with Connection(port, active=True) as host:
        host.open(30.0)
        exchanged(host, [os.urandom(3000)], 30.0)
        assert host.rate is None


def test_a_session_goes_on_after_the_cable_was_out(far_end: Callable[[str], list[str]]) -> None:
    said: list[str] = []
    url = "sim://?baud=115200&unplug=1500ms&after=500ms"
    port = open_port(url, command=far_end("answer"))
    with Connection(port, active=True, say=said.append) as host:
        host.open(30.0)
        session = host._link.session
        exchanged(host, [os.urandom(3000) for _ in range(8)], 60.0)
        assert host._link.session == session
    assert ["waiting up to 60 s" in said[0], "the line is back" in said[1]] == [True, True], said


class Terminal:
    """A pseudo-terminal as a cable: its far end is the port `path`, and can be put in anew."""

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


def test_a_port_that_vanishes_is_opened_again_by_its_name(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "ttyUSB0")
    terminal.plug()
    said: list[str] = []
    port = open_port(str(terminal.path))
    with (
        Connection(terminal, active=False) as board,
        Connection(port, active=True, say=said.append) as host,
    ):
        meet(host, board)
        session = host._link.session
        for number in range(2):
            host.send(b"before %d" % number)
            assert board.receive(5.0) == b"before %d" % number
            terminal.pull()
            host.send(b"while it was out")
            time.sleep(0.7)
            terminal.plug()
            assert board.receive(10.0) == b"while it was out"
            board.send(b"back")
            assert host.receive(10.0) == b"back"
        assert host._link.session == session
    assert [("no such" in line or "lost" in line, "is back" in line) for line in said] == [
        (True, False),
        (False, True),
    ] * 2, said


def test_a_port_that_stays_away_is_lost_in_time(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "ttyUSB0")
    terminal.plug()
    with (
        Connection(terminal, active=False) as board,
        Connection(open_port(str(terminal.path)), active=True, silence=1.5) as host,
    ):
        meet(host, board)
        terminal.pull()
        began = time.monotonic()
        with pytest.raises((LineLost, PeerSilent)):
            host.receive(20.0)
        assert 1.0 < time.monotonic() - began < 10.0


@pytest.mark.slow
def test_the_line_is_filled(far_end: Callable[[str], list[str]]) -> None:
    command = [*far_end("answer"), "921600"]  # both ends fixed: no time goes to finding a rate
    port = open_port("sim://?baud=921600&latency=16ms", 921600, command=command)
    messages = [os.urandom(30_000) for _ in range(12)]
    with Connection(port, active=True) as host:
        host.open(30.0)
        started = time.monotonic()
        for message in messages:
            host.send(message)
        assert [host.receive(30.0) for _ in messages] == [m[:100] for m in messages]
        share = 360_000 * 10 / 921600 / (time.monotonic() - started)
    assert share > 0.9
