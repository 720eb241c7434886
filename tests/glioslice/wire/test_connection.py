"""A link over a port, with real threads and a real clock."""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import glioslice.wire.connection as connection_module
from glioslice.wire.connection import (
    SEND_LIMIT,
    SILENCE,
    WARN_AFTER,
    Connection,
    PeerClosed,
    PeerRestarted,
    PeerSilent,
)
from glioslice.wire.link import KEEP_ALIVE, LinkError
from glioslice.wire.ports import LineLost
from glioslice.wire.transport import MemoryPort, pair
from tests.glioslice.wire.joined import open_both

Both = tuple[Connection, Connection]


@pytest.fixture
def both() -> Iterator[Both]:
    near, far = pair()
    with Connection(near, active=True) as host, Connection(far, active=False) as board:
        host.open(60.0)
        board.open(60.0)
        yield host, board


class Clock:
    """The clock of all connections, which a test moves: a busy machine's own is of no use."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float, *ends: Connection) -> None:
        """Let time pass; the ends look at what is due."""
        self._ahead += seconds
        for end in ends:
            with end._lock:
                end._work.notify()


@contextmanager
def hanging(board: Connection, host: Connection) -> Iterator[None]:
    """The board hangs while the block lasts, and the host has read all that it sent before."""
    with board._lock:
        while host.counts.bytes_received < board._link.counts.bytes_sent:
            time.sleep(0.001)
        yield


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(connection_module, "time", SimpleNamespace(monotonic=made.monotonic))
    return made


def receive_late(end: Connection) -> bytes | None:
    """Receive a message of a peer that was silent; what it sent may not have been read yet."""
    while True:
        try:
            return end.receive(60.0)
        except PeerSilent:
            time.sleep(0.01)


def test_messages_cross_both_ways(both: Both) -> None:
    host, board = both
    sent = [os.urandom(size) for size in (1, 100, 512, 60_000, 120_000)]

    def echo() -> None:
        for _ in sent:
            message = board.receive(60.0)
            assert message is not None
            board.send(message)

    thread = threading.Thread(target=echo)
    thread.start()
    for message in sent:
        host.send(message)
    assert [host.receive(60.0) for _ in sent] == sent
    thread.join()
    assert host.flush(60.0)
    assert host.receive(0.05) is None
    assert board.counts.bytes_sent > sum(map(len, sent))
    while host.counts.bytes_received != board.counts.bytes_sent:  # one may be on its way
        time.sleep(0.01)


def test_a_sender_waits_for_a_reader_who_reads_nothing(both: Both) -> None:
    host, board = both
    messages = [bytes([i]) * 30_000 for i in range(20)]

    def feed() -> None:
        for message in messages:
            host.send(message)

    thread = threading.Thread(target=feed)
    thread.start()
    time.sleep(0.4)
    assert thread.is_alive()
    assert len(host._link.sender.unacknowledged) < SEND_LIMIT + 30_010
    assert [board.receive(60.0) for _ in messages] == messages
    thread.join(60.0)
    assert not thread.is_alive()


def test_a_deferred_message_is_sent_once_all_before_it_is_acknowledged(both: Both) -> None:
    host, board = both
    board.send_deferred(b"the line is idle")
    assert host.receive(60.0) == b"the line is idle"
    assert board.flush(60.0)
    with host._lock:  # the host hangs: nothing is acknowledged
        board.send(b"first")
        board.send_deferred(b"second")
        time.sleep(0.2)
        assert board.withdraw() == b"second"
        board.send_deferred(b"second and third")
    assert [host.receive(60.0) for _ in range(2)] == [b"first", b"second and third"]
    assert board.withdraw() is None


@pytest.mark.parametrize("before", ["send", "receive", "flush", "send_deferred"])
def test_a_deferred_message_is_sent_before(before: str, both: Both) -> None:
    host, board = both
    with host._lock:
        board.send(b"first")
        board.send_deferred(b"second")
        match before:
            case "send":
                board.send(b"third")
            case "receive":
                assert board.receive(0.1) is None
            case "flush":
                assert not board.flush(0.1)
            case "send_deferred":
                board.send_deferred(b"third")
                assert board.withdraw() == b"third"
        assert board.withdraw() is None
    assert [host.receive(60.0) for _ in range(2)] == [b"first", b"second"]


def test_no_reply() -> None:
    near, far = pair()
    with Connection(near, active=True) as host:
        started = time.monotonic()
        with pytest.raises(PeerSilent, match="no reply from the board at memory:host"):
            host.open(0.4)
        assert 0.3 < time.monotonic() - started < 30.0
        board = Connection(far, active=False)  # it comes late; calling again goes on waiting
        host.open(60.0)
        board.close()


@pytest.mark.parametrize(
    ("reply", "what"), [(b"login: ", "no valid frames"), (None, "our own bytes come back")]
)
def test_bytes_that_are_not_a_reply_are_named(reply: bytes | None, what: str) -> None:
    near, far = pair()
    with Connection(near, active=True) as host:
        sent = reply if reply is not None else far.read(60.0)
        far.write(sent)
        while host.counts.bytes_received < len(sent):
            time.sleep(0.01)
        with pytest.raises(PeerSilent, match=what):
            host.open(0.3)
        assert host.skipped == (reply or b"")


def test_a_silent_peer_is_an_error_in_time_and_may_come_back(clock: Clock, both: Both) -> None:
    host, board = both
    for _ in range(round(SILENCE / KEEP_ALIVE) + 10):  # the keep-alive is enough
        before = host.counts.frames_received
        clock.advance(KEEP_ALIVE, host, board)
        while host.counts.frames_received == before:
            time.sleep(0.001)
        assert host.receive(0.0) is None
    with hanging(board, host):
        clock.advance(SILENCE + 1, host)
        with pytest.raises(PeerSilent, match="nothing received"):
            host.receive(600.0)
        with pytest.raises(PeerSilent):
            host.send(b"x")
            host.flush(600.0)
    board.send(b"back again")
    assert receive_late(host) == b"back again"
    assert receive_late(board) == b"x"


def test_what_arrived_before_the_end_is_received_before_the_error(both: Both) -> None:
    host, board = both
    board.send(b"one")
    board.send(b"two")
    assert board.flush(60.0)
    board.close()
    while host._pump.failure is None:  # it has seen that the port is closed, too
        time.sleep(0.01)
    assert host.receive(60.0) == b"one"
    assert host.receive(60.0) == b"two"
    with pytest.raises(PeerClosed, match="closed the session"):
        host.receive(60.0)
    with pytest.raises(LineLost):
        host.open(60.0)


class Shared:
    """A port that outlives the connections that use it, as a board's does between two hosts."""

    def __init__(self, port: MemoryPort) -> None:
        self._port = port
        self.name = port.name
        self.read = port.read
        self.write = port.write

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_hosts_come_and_go() -> None:
    near, far = pair()
    with Connection(far, active=False) as board:
        for run in range(3):
            with Connection(Shared(near), active=True) as host:
                open_both(host, board)
                host.send(b"run %d" % run)
                assert board.receive(60.0) == b"run %d" % run
                assert host.flush(60.0)
            with pytest.raises(PeerClosed, match="closed the session"):
                board.receive(60.0)
            with pytest.raises(PeerClosed):
                board.send(b"x")


def test_a_peer_that_restarted_is_recognised() -> None:
    near, far = pair()
    with Connection(far, active=False) as board:
        first = Connection(Shared(near), active=True)
        first.open(60.0)
        board.open(60.0)
        first._pump.ending = True  # it dies without a CLOSE
        for thread in first._pump.threads:
            thread.join(0.1)
        with first._lock:
            first._work.notify()
        with Connection(Shared(near), active=True) as second:
            with pytest.raises(PeerRestarted, match="has restarted"):
                board.receive(60.0)
            open_both(second, board)
            second.send(b"hello")
            assert board.receive(60.0) == b"hello"


def test_counts_are_kept_over_sessions() -> None:
    near, far = pair()
    with Connection(far, active=False) as board:
        totals = []
        for _ in range(2):
            with Connection(Shared(near), active=True) as host:
                open_both(host, board)
                host.send(bytes(1000))
                board.receive(60.0)
                assert host.flush(60.0)
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
    from glioslice.wire.framing import encode_frame

    near, far = pair()
    with Connection(near, active=True) as host:
        far.write(encode_frame(b"\x01\x09" + bytes(12)))
        with pytest.raises(LinkError, match="memory:host: the board uses version 9"):
            host.open(60.0)


def test_a_lost_line_ends_every_call(both: Both) -> None:
    host, board = both
    board.port.close()
    with pytest.raises(LineLost):
        host.receive(60.0)
    with pytest.raises(LineLost):
        host.send(b"x")
    with pytest.raises(LineLost):
        host.open(60.0)


def test_no_thread_is_left_and_closing_twice_is_harmless() -> None:
    before = set(threading.enumerate())
    near, far = pair()
    host, board = Connection(near, active=True), Connection(far, active=False)
    host.open(60.0)
    for connection in (host, board, host):
        connection.close()
    assert set(threading.enumerate()) <= before


def test_sessions_and_silence_are_logged(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    near, far = pair()
    with Connection(near, active=True) as host, Connection(far, active=False) as board:
        open_both(host, board)
        with hanging(board, host):
            for _ in range(3):
                clock.advance(WARN_AFTER, host)
                assert host.receive(0.0) is None
    logged = [(record.levelname, record.message) for record in caplog.records]
    assert logged.count(("INFO", f"memory:host: session {host._link.session:08x} opened")) == 1
    [warning] = warnings(caplog)
    assert "nothing received" in warning


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.slow
def test_waiting_costs_no_time(both: Both) -> None:
    host, board = both
    clocks = [time.CLOCK_THREAD_CPUTIME_ID]
    for thread in (*host._pump.threads, *board._pump.threads):
        assert thread.ident
        clocks.append(time.pthread_getcpuclockid(thread.ident))
    time.sleep(0.3)
    started = sum(map(time.clock_gettime, clocks))
    assert host.receive(2.0) is None
    assert sum(map(time.clock_gettime, clocks)) - started < 0.05
