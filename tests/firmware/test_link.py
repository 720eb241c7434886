"""The link in C against the one in Python, in both roles, and against itself, over every line."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings

from glioslice.wire import packets
from glioslice.wire.framing import FrameReader, encode_frame
from glioslice.wire.link import Link, Settings, State
from glioslice.wire.packets import Ack, Data, Open
from glioslice.wire.simulator.line import LineQuality, combined
from glioslice.wire.simulator.virtual_link import VirtualLine
from tests.firmware.library import CLink, library
from tests.glioslice.wire.joined import LINES, exchange
from tests.glioslice.wire.test_state_machine import LinkMachine

ROLES = {"C host": (CLink, Link), "C board": (Link, CLink), "both": (CLink, CLink)}
SMALL = Settings(64, 256)
USUAL = Settings(512, 4096)


def joined(roles: str, line: str, offered: Settings) -> VirtualLine:
    host, board = ROLES[roles]
    made = LINES[line]
    options = dict(made.options)
    chance = random.Random(1)
    for end in ("host_fault", "board_fault") if made.faults else ():
        options[end] = combined(chance, made.faults)
    active: Any = host(offered, active=True, session=0x1001)
    passive: Any = board(offered, active=False, session=0x2002)
    return VirtualLine(active, passive, made.quality, **options)


@pytest.mark.slow
@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("roles", ROLES)
def test_every_message_arrives_once_over_every_line(roles: str, line: str) -> None:
    chance = random.Random(2)
    up = [chance.randbytes(chance.randrange(1, 900)) for _ in range(6)]
    down = [chance.randbytes(chance.randrange(1, 3000)) for _ in range(4)]
    exchange(joined(roles, line, USUAL), up, down, 900.0)


@pytest.mark.parametrize("roles", ROLES)
def test_the_smallest_window_carries_a_message_that_is_far_larger(roles: str) -> None:
    message = random.Random(3).randbytes(20_000)
    exchange(joined(roles, "bit errors 1e-4", SMALL), [message], [message[:5000]], 900.0)


@pytest.mark.slow
def test_streams_continue_beyond_the_modulus_of_offsets() -> None:
    """17 MB: positions wrap on the wire, times in the library (see `milliseconds`)."""
    both = joined("C board", "perfect", Settings(1024, 32768))
    message = bytes(250_000)
    exchange(both, [message] * 68, [b"x"], 3600.0)


class MachineWithCBoard(LinkMachine):
    """The board is C."""

    def link(self, active: bool) -> Any:
        self.sessions += 1
        offered = replace(self.settings, rates=())
        made = Link if active else CLink
        return made(offered, active=active, session=self.sessions)


class MachineWithCHost(LinkMachine):
    """The host is C."""

    def link(self, active: bool) -> Any:
        self.sessions += 1
        offered = replace(self.settings, rates=())
        made = CLink if active else Link
        return made(offered, active=active, session=self.sessions)


TestCBoard = pytest.mark.slow(MachineWithCBoard.TestCase)
TestCHost = pytest.mark.slow(MachineWithCHost.TestCase)
TestCBoard.settings = TestCHost.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None
)


def packets_of(frames: bytes) -> list[Any]:
    return [packets.from_bytes(body)[0] for body in FrameReader().feed(frames)]


def opened() -> CLink:
    """A board in C whose session is open."""
    board = CLink(SMALL, active=False, session=0x2002)
    board.receive_bytes(encode_frame(packets.to_bytes(Open(0x1001, 0, 64, 256), True)), 0.0)
    (reply,) = packets_of(board.outgoing(0.0))
    assert reply == Open(0x2002, 0x1001, 64, 256)
    board.receive_bytes(encode_frame(packets.to_bytes(Ack(0x3003, 0, 256), True)), 0.0)
    assert board.state is State.OPEN
    return board


def test_a_second_open_of_the_session_changes_nothing() -> None:
    board = opened()
    board.send(bytes(200))
    again = Open(0x1001, 0x2002, 1024, 1024)
    board.receive_bytes(encode_frame(packets.to_bytes(again, True)), 0.1)
    (first,) = packets_of(board.outgoing(0.1))
    assert isinstance(first, Data) and len(first.payload) == 64


def test_the_edge_stands_still_until_the_program_reads() -> None:
    board = opened()
    frame = encode_frame(packets.to_bytes(Data(0x3003, 0, 0, b"\x3f" + bytes(63)), True))
    board.receive_bytes(frame, 0.0)
    (ack,) = packets_of(board.outgoing(1.0))
    assert ack == Ack(0x3003, 64, 256)
    assert board.next_message() == bytes(63)
    (ack,) = packets_of(board.outgoing(1.0))
    assert ack == Ack(0x3003, 64, 320)


@pytest.mark.parametrize("length", [b"\0", b"\x80\x80\x80", b"\xff\xff\x7f"])
def test_a_length_that_no_message_has_ends_the_session(length: bytes) -> None:
    board = opened()
    board.receive_bytes(encode_frame(packets.to_bytes(Data(0x3003, 0, 0, length), True)), 0.0)
    assert board.next_message() is None
    assert board.state is State.REFUSED


def test_a_host_of_another_version_is_answered_once_and_a_board_refused() -> None:
    board = CLink(SMALL, active=False, session=1)
    other = encode_frame(packets.to_bytes(Open(5, 0, 64, 64, version=9), True))
    board.receive_bytes(other, 0.0)
    assert isinstance(packets_of(board.outgoing(0.0))[0], Open)
    assert board.outgoing(1.0) == b""
    host = CLink(SMALL, active=True, session=1)
    host.receive_bytes(encode_frame(packets.to_bytes(Open(5, 0, 64, 64, version=9), False)), 0.0)
    assert host.state is State.REFUSED


@pytest.mark.parametrize("roles", [*ROLES, "neither"])
def test_a_peer_that_becomes_slow_costs_few_retransmissions(roles: str) -> None:
    """Its acknowledgements come later than every time-out so far: it computes, say."""
    host, board = {**ROLES, "neither": (Link, Link)}[roles]
    active: Any = host(USUAL, active=True, session=0x1001)
    passive: Any = board(USUAL, active=False, session=0x2002)
    line = VirtualLine(active, passive, LineQuality(921600, latency=0.002))
    exchange(line, [bytes(20_000)], [bytes(1)], 60.0)
    for end in (line.host, line.board):
        end.received.clear()
        end.lane._latency = 0.3
    exchange(line, [bytes(100_000)], [bytes(1)], 600.0)
    assert 0 < active.sender.retransmits < 120  # of 205 segments


def test_a_session_number_is_cleared_of_bytes_that_links_alter_as_in_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chance = random.Random(4)
    for _ in range(500):
        drawn = bytes(chance.choices((*packets.ALTERED, 1, 0, 0xAB), k=4))
        number = int.from_bytes(drawn, "little") or 1
        monkeypatch.setattr("secrets.randbelow", lambda _bound, least=number - 1: least)
        cleared = library().wire_session(number) & 0xFFFFFFFF
        assert cleared == packets.random_session()


def test_a_session_that_was_idle_for_weeks_retransmits() -> None:
    """Half of the clock's range lies between two messages."""
    board = opened()
    weeks = 2.0**31 / 1000 + 60
    for now in (0.1, weeks):
        board.send(bytes(20))
        start = 0 if now < 1 else 21
        (first,) = packets_of(board.outgoing(now))
        assert isinstance(first, Data) and first.offset == start
        if now < 1:
            ack = encode_frame(packets.to_bytes(Ack(0x3003, 21, 256), True))
            board.receive_bytes(ack, now)
    (again,) = packets_of(board.outgoing(weeks + 0.6))
    assert isinstance(again, Data) and again.offset == 21


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return what draws session numbers, the same in each run."""
    monkeypatch.setattr("secrets.randbelow", random.Random(5).randrange)
    return packets.random_session


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize(
    "offered",
    [Settings(64, 64), Settings(64, 128), Settings(128, 256), USUAL, Settings(1024, 32768)],
    ids=str,
)
def test_an_open_is_the_one_that_python_sends(
    offered: Settings, active: bool, sessions: Callable[[], int]
) -> None:
    windows = set()
    for _ in range(300):
        session, request = sessions(), Open(sessions(), 0, 64, 64)
        ends: list[Any] = [made(offered, active=active, session=session) for made in (CLink, Link)]
        for end in ends if not active else ():
            end.receive_bytes(encode_frame(packets.to_bytes(request, True)), 0.0)
        frame, expected = (end.outgoing(0.0) for end in ends)
        assert frame == expected
        windows.add(packets_of(frame)[0].window)
    assert (len(windows) > 1) == (offered.window > offered.payload)


@pytest.mark.parametrize("offered", [Settings(128, 256), USUAL], ids=str)
@pytest.mark.parametrize("roles", [*ROLES, "neither"])
@pytest.mark.parametrize("eaten", [b"\x11\x13", b"\x15\x17\x1a\x1c\x7f", b"\x0d", b"\xff"])
def test_every_session_opens_over_a_link_that_eats_bytes(
    eaten: bytes, roles: str, offered: Settings, sessions: Callable[[], int]
) -> None:
    """Otherwise the host takes it for a link that carries nothing, or for a board that is stuck."""
    host, board = {**ROLES, "neither": (Link, Link)}[roles]

    def fault(frame: bytes) -> bytes:
        return frame.translate(None, eaten)

    for _ in range(100):
        active: Any = host(offered, active=True, session=sessions())
        passive: Any = board(offered, active=False, session=sessions())
        quality = LineQuality(921600)
        line = VirtualLine(active, passive, quality, host_fault=fault, board_fault=fault)

        def opened(ends: tuple[Any, Any] = (active, passive)) -> bool:
            return all(end.state is State.OPEN for end in ends)

        assert line.run(opened, 5.0), f"{active.session:08x} and {passive.session:08x}"
