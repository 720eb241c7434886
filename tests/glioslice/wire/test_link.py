"""The end-to-end test of the link over lines of every kind, in virtual time, and its states."""

import contextlib
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glioslice.wire import packets
from glioslice.wire.faults import (
    Maker,
    doubling,
    dropping,
    mixed,
    pausing,
    reordering,
    shouting,
    truncating,
)
from glioslice.wire.frames import MAX_ENCODED, encode
from glioslice.wire.lane import Quality
from glioslice.wire.link import MAX_MESSAGE, Link, LinkError, Settings, State
from glioslice.wire.packets import Ack, Close, Data, Open, Packet
from glioslice.wire.receiver import HOLD
from glioslice.wire.transport import RATES
from glioslice.wire.virtual import VirtualLine

everything = (dropping(0.1), doubling, truncating, shouting)


@dataclass(frozen=True)
class Line:
    quality: Quality = field(default_factory=lambda: Quality(921600))
    faults: tuple[Maker, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    """Of VirtualLine."""


LINES = {
    "perfect": Line(),
    "one byte at a time": Line(options={"bytewise": True}),
    "9600 baud": Line(Quality(9600)),
    "16 ms delay": Line(Quality(921600, latency=0.016)),
    "400 ms delay": Line(Quality(921600, latency=0.4)),
    "20 % of frames lost": Line(faults=(dropping(0.2),)),
    "60 % of frames lost": Line(faults=(dropping(0.6),)),
    "bit errors 1e-5": Line(Quality(921600, errors=1e-5)),
    "bit errors 1e-4": Line(Quality(921600, errors=1e-4)),
    "bit errors 1e-3": Line(Quality(921600, errors=1e-3)),
    "blocks lost": Line(Quality(921600, loss=0.01)),
    "duplication": Line(faults=(doubling,)),
    "truncation": Line(faults=(truncating,)),
    "console text": Line(faults=(shouting,)),
    "reordering of whole writes": Line(faults=(reordering,)),
    "pauses": Line(faults=(pausing,)),
    "doubled and swapped": Line(faults=(doubling, reordering)),
    "everything": Line(Quality(921600, errors=1e-5, loss=0.005, latency=0.016), everything),
}


def join(line: Line, seed: int = 1, link_settings: Settings | None = None) -> VirtualLine:
    host = Link(link_settings, active=True, session=0x1001)
    board = Link(link_settings, active=False, session=0x2002)
    options = dict(line.options)
    if line.faults:
        chance = random.Random(seed)
        for end in ("host_fault", "board_fault"):
            options[end] = mixed(chance, line.faults)
    return VirtualLine(host, board, line.quality, **options)


def exchange(joined: VirtualLine, up: list[bytes], down: list[bytes], limit: float) -> None:
    """Send both lists at once and check that each arrives whole, in order, once."""
    host, board = joined.host, joined.board
    for message in up:
        host.link.send(message)
    for message in down:
        board.link.send(message)
    assert joined.run(
        lambda: (
            len(board.received) >= len(up)
            and len(host.received) >= len(down)
            and not host.link.queued
            and not board.link.queued
        ),
        limit,
    )
    assert board.received == up
    assert host.received == down


@pytest.mark.parametrize(
    ("payload", "rates"), [(64, ()), (1024, ()), (1024, RATES)], ids=["64", "1024", "rates"]
)
@pytest.mark.parametrize("name", LINES)
def test_end_to_end(name: str, payload: int, rates: tuple[int, ...]) -> None:
    chance = random.Random(name)
    size = 1500 if name == "bit errors 1e-3" else 6000
    up = [chance.randbytes(chance.randint(1, size)) for _ in range(8)]
    down = [chance.randbytes(chance.randint(1, 300)) for _ in range(30)]
    joined = join(LINES[name], 1, Settings(payload=payload, rates=rates))
    exchange(joined, up, down, 600.0)
    assert joined.board.peak <= HOLD + MAX_MESSAGE + 2 * 32768


def test_the_largest_message_crosses_and_a_larger_one_is_refused() -> None:
    joined = join(LINES["20 % of frames lost"])
    exchange(joined, [random.Random(3).randbytes(MAX_MESSAGE)], [b"thanks"], 60.0)
    for size in (0, MAX_MESSAGE + 1):
        with pytest.raises(LinkError, match="1 to 262144"):
            joined.host.link.send(bytes(size))


@pytest.mark.parametrize("baud", [115200, 921600, 3_000_000])
@pytest.mark.parametrize("latency", [0.0, 0.016])
def test_a_clean_line_is_filled(baud: int, latency: float) -> None:
    joined = join(Line(Quality(baud, latency=latency)))
    messages = [bytes([i]) * 30_000 for i in range(baud // 23040)]
    exchange(joined, messages, [b"mask"] * 20, 120.0)
    share = 30_000 * len(messages) * 10 / baud / joined.now
    assert share > 0.95
    assert joined.host.link.counts.retransmits == 0


def test_a_slow_reader_makes_the_sender_wait_and_loses_nothing() -> None:
    joined = join(LINES["20 % of frames lost"])
    joined.board.paused = True
    messages = [bytes([i]) * 30_000 for i in range(20)]
    for message in messages:
        joined.host.link.send(message)
    joined.run(lambda: False, 30.0)
    assert HOLD <= joined.board.link.buffered <= HOLD + MAX_MESSAGE + 2 * 32768
    assert joined.host.link.queued > 300_000
    joined.board.paused = False
    assert joined.run(lambda: len(joined.board.received) == 20, 60.0)
    assert joined.board.received == messages


@pytest.mark.parametrize("pause", [0.3, 4.0, 60.0])
def test_an_unplugged_line_goes_on_where_it_was(pause: float) -> None:
    now = [0.0]

    def cable(frame: bytes) -> bytes:
        return b"" if 1.0 < now[0] < 1.0 + pause else frame

    host, board = Link(active=True, session=1), Link(active=False, session=2)
    joined = VirtualLine(host, board, Quality(115200), host_fault=cable, board_fault=cable)
    messages = [bytes([i]) * 5000 for i in range(10)]
    for message in messages:
        host.send(message)

    def done() -> bool:
        now[0] = joined.now
        return len(joined.board.received) == len(messages)

    assert joined.run(done, pause + 20.0)
    assert joined.board.received == messages
    assert joined.now < pause + 9.0
    assert host.state is board.state is State.OPEN


def test_an_idle_link_is_kept_alive_by_a_word_a_second() -> None:
    joined = join(Line())
    joined.run(lambda: False, 100.0)
    for end in (joined.host, joined.board):
        assert joined.now - end.link.heard_at < 1.1
        assert end.link.counts.frames_sent < 205


def test_a_passive_end_says_nothing_before_it_is_called() -> None:
    board = Link(active=False)
    for second in range(100):
        assert board.outgoing(float(second)) == b""
        board.receive_bytes(b"console text\0more", float(second))
    assert board.next_time() == float("inf")


def test_a_restarted_board_is_recognised_and_the_next_session_works() -> None:
    joined = join(Line())
    exchange(joined, [b"before"], [b"old"], 5.0)
    joined.board.link = Link(active=False, session=0x3003)
    joined.host.link.send(b"to the one who is gone")
    assert joined.run(lambda: joined.host.link.state is State.RESTARTED, 3.0)
    joined.host.link = Link(active=True, session=0x1002)
    joined.host.received, joined.board.received = [], []
    exchange(joined, [b"again"], [b"new"], 5.0)


def test_a_restarted_host_is_recognised_and_the_next_session_works() -> None:
    joined = join(LINES["20 % of frames lost"])
    exchange(joined, [bytes(30_000)], [b"old"], 5.0)
    joined.host.link = Link(active=True, session=0x1002)
    assert joined.run(lambda: joined.board.link.state is State.RESTARTED, 3.0)
    joined.board.link = Link(active=False, session=0x2003)
    joined.host.received, joined.board.received = [], []
    exchange(joined, [bytes(30_000)], [b"new"], 5.0)


def test_a_goodbye_is_heard() -> None:
    joined = join(LINES["20 % of frames lost"])
    exchange(joined, [b"x"], [], 5.0)
    joined.host.link.close()
    assert joined.run(lambda: joined.board.link.state is State.CLOSED, 1.0)
    assert joined.board.link.outgoing(joined.now + 10) == b""


@pytest.mark.parametrize("active", [True, False])
def test_the_echo_of_our_own_bytes_is_no_peer(active: bool) -> None:
    link = Link(active=active, session=7)
    for body in (Open(7, 0, 512, 32768), Data(0, 0, 0, b"x"), Ack(0, 0, 0), Close(0)):
        link.receive_bytes(encode(packets.to_bytes(body, active)), 1.0)
    assert link.counts.echoes == 4
    assert link.state is State.OPENING
    assert link.heard_at == float("-inf")


def test_a_session_goes_on_while_every_byte_is_echoed_too() -> None:
    host, board = Link(active=True, session=1), Link(active=False, session=2)
    host.send(b"question")
    board.send(b"answer")
    for step in range(8):
        out = host.outgoing(step * 0.05)
        host.receive_bytes(out, step * 0.05)
        board.receive_bytes(out, step * 0.05)
        back = board.outgoing(step * 0.05)
        board.receive_bytes(back, step * 0.05)
        host.receive_bytes(back, step * 0.05)
    assert (board.take(1.0), host.take(1.0)) == (b"question", b"answer")
    assert (board.take(1.0), host.take(1.0)) == (None, None)


def test_another_version_is_refused_by_name() -> None:
    other = b"\x01\x03" + bytes(12)
    host = Link(active=True)
    host.receive_bytes(encode(other), 0.0)
    assert host.state is State.REFUSED
    assert "version 3 of the link, this side version 2" in host.refusal
    board = Link(active=False)
    board.receive_bytes(encode(bytes([0x81]) + other[1:]), 0.0)
    assert board.state is State.OPENING
    assert board.outgoing(0.0)  # its own OPEN, so that the host can tell


def test_a_stream_that_holds_no_messages_is_refused() -> None:
    joined = join(Line())
    exchange(joined, [b"x"], [], 5.0)
    bad = Data((0x1001 ^ 0x2002) & 0xFFFF, 2, 0, b"\xff\xff\xff\xff")
    joined.board.link.receive_bytes(encode(packets.to_bytes(bad, True)), joined.now)
    assert joined.board.link.state is State.REFUSED
    assert "announces a message" in joined.board.link.refusal


def test_packets_of_another_session_are_left_alone() -> None:
    joined = join(Line())
    exchange(joined, [b"x"], [], 5.0)
    for packet in (Data(1, 2, 0, b"\x01y"), Close(1), Ack(1, 0, 0)):
        joined.board.link.receive_bytes(encode(packets.to_bytes(packet, True)), joined.now)
    assert joined.board.link.state is State.OPEN
    assert joined.board.link.take(joined.now) is None
    assert joined.board.link.counts.strangers == 3


@pytest.mark.parametrize(
    ("payload", "window"), [(63, 4096), (1025, 4096), (512, 511), (512, 65536)]
)
def test_sizes_that_packets_cannot_say_are_refused(payload: int, window: int) -> None:
    with pytest.raises(LinkError, match="not"):
        Settings(payload, window)


@pytest.mark.parametrize("payload", [64, 300])
def test_the_smaller_frame_of_both_ends_is_used(payload: int) -> None:
    longest = [0]

    def watch(frame: bytes) -> bytes:
        longest[0] = max(longest[0], len(frame))
        return frame

    host = Link(active=True, session=1)
    board = Link(Settings(payload=payload, window=2048), active=False, session=2)
    joined = VirtualLine(host, board, Quality(921600), host_fault=watch)
    exchange(joined, [bytes(20_000)], [bytes(5000)], 10.0)
    assert payload < longest[0] <= payload + 9 + 4 + 5


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=1100), max_size=8))
def test_arbitrary_bytes_never_raise(pieces: list[bytes]) -> None:
    for active in (True, False):
        link = Link(active=active, session=9)
        for now, piece in enumerate(pieces):
            link.receive_bytes(piece, float(now))
            if 1 <= len(piece) <= 1088:
                link.receive_bytes(encode(piece), float(now))
            link.outgoing(float(now))
            assert link.buffered <= MAX_ENCODED + HOLD


kinds = st.sampled_from(["data", "ack", "close", "open"])


@settings(max_examples=100)
@given(st.lists(st.tuples(kinds, st.integers(0, 2**32)), max_size=60))
def test_a_hostile_peer_of_an_open_session_raises_nothing_and_fills_no_memory(
    actions: list[tuple[str, int]],
) -> None:
    link = Link(active=False, session=0x2002)
    tag = 0x1001 ^ 0x2002
    link.receive_bytes(encode(packets.to_bytes(Open(0x1001, 0x2002, 512, 4096), True)), 0.0)
    link.send(bytes(3000))
    for now, (kind, seed) in enumerate(actions):
        chance = random.Random(seed)
        number = chance.choice([chance.getrandbits(24), chance.getrandbits(12)])
        pairs = tuple((chance.getrandbits(12), chance.getrandbits(12)) for _ in range(seed % 33))
        choices: dict[str, Packet] = {
            "data": Data(tag, number, chance.getrandbits(12), chance.randbytes(1 + seed % 1024)),
            "ack": Ack(tag, chance.getrandbits(12), number, pairs),
            "close": Close(tag if seed % 20 == 0 else 0),
            "open": Open(0x1001, chance.choice([0, 0x2002]), 64 + seed % 961, 4096),
        }
        packet = choices[kind]
        with contextlib.suppress(LinkError):
            link.receive_bytes(encode(packets.to_bytes(packet, True)), now * 0.1)
            link.outgoing(now * 0.1)
        assert link.buffered <= HOLD + MAX_MESSAGE + 2 * 32768


@settings(max_examples=25)
@given(
    st.integers(0, 2**32),
    st.sampled_from([name for name in LINES if name not in ("9600 baud", "bit errors 1e-3")]),
    st.lists(st.integers(1, 5000), max_size=8),
    st.lists(st.integers(1, 5000), max_size=8),
)
def test_any_messages_over_any_line(seed: int, name: str, up: list[int], down: list[int]) -> None:
    chance = random.Random(seed)
    exchange(
        join(LINES[name], seed),
        [chance.randbytes(size) for size in up],
        [chance.randbytes(size) for size in down],
        600.0,
    )


@pytest.mark.parametrize("wraps", [1])
def test_offsets_wrap_without_a_trace(wraps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "MODULUS", 1 << 18)
    joined = join(LINES["20 % of frames lost"])
    chance = random.Random(1)
    messages = [chance.randbytes(30_000) for _ in range(10 + 9 * wraps)]
    exchange(joined, messages, [b"ok"] * 10, 60.0)


@pytest.mark.parametrize(("loss", "least"), [(0.0, 0.93), (0.05, 0.85)])
def test_both_directions_are_filled_at_once(loss: float, least: float) -> None:
    joined = join(Line(faults=(dropping(loss),)))
    messages = [bytes([i]) * 30_000 for i in range(20)]
    exchange(joined, messages, messages, 60.0)
    assert 30_000 * len(messages) * 10 / 921600 / joined.now > least


def test_room_that_a_reader_makes_is_told_at_once() -> None:
    joined = join(Line())
    joined.board.paused = True
    for number in range(20):
        joined.host.link.send(bytes([number]) * 30_000)
    joined.run(lambda: False, 10.0)
    before = joined.board.link.counts.frames_sent
    while joined.board.link.take(joined.now) is not None:
        pass
    assert joined.board.link.next_time() <= joined.now
    assert joined.board.link.outgoing(joined.now)
    assert joined.board.link.counts.frames_sent == before + 1


def test_three_goodbyes_leave() -> None:
    joined = join(Line())
    exchange(joined, [b"x"], [], 5.0)
    joined.host.link.close()
    farewell = [joined.host.link.outgoing(joined.now) for _ in range(5)]
    assert [bool(frame) for frame in farewell] == [True, True, True, False, False]
