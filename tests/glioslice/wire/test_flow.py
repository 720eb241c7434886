"""What crosses an open session: every message once, in order, and as fast as the line allows."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glioslice.wire import packets
from glioslice.wire.link import MAX_MESSAGE, Link, LinkError, Settings
from glioslice.wire.receiver import HOLD
from glioslice.wire.simulator.line import LineQuality, dropping
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.transport import RATES
from tests.glioslice.wire.joined import LINES, Line, exchange, join


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
            joined.host.link.sender.send(bytes(size))


@pytest.mark.parametrize("baud", [115200, 921600, 3_000_000])
@pytest.mark.parametrize("latency", [0.0, 0.016])
def test_a_clean_line_is_filled(baud: int, latency: float) -> None:
    joined = join(Line(LineQuality(baud, latency=latency)))
    messages = [bytes([i]) * 30_000 for i in range(baud // 23040)]
    exchange(joined, messages, [b"mask"] * 20, 120.0)
    share = 30_000 * len(messages) * 10 / baud / joined.now
    assert share > 0.95
    assert joined.host.link.counts.retransmits == 0


@pytest.mark.parametrize(("loss", "least"), [(0.0, 0.93), (0.05, 0.85)])
def test_both_directions_are_filled_at_once(loss: float, least: float) -> None:
    joined = join(Line(faults=(dropping(loss),)))
    messages = [bytes([i]) * 30_000 for i in range(20)]
    exchange(joined, messages, messages, 60.0)
    assert 30_000 * len(messages) * 10 / 921600 / joined.now > least


def test_a_slow_reader_makes_the_sender_wait_and_loses_nothing() -> None:
    joined = join(LINES["20 % of frames lost"])
    joined.board.paused = True
    messages = [bytes([i]) * 30_000 for i in range(20)]
    for message in messages:
        joined.host.link.sender.send(message)
    joined.run(lambda: False, 30.0)
    assert HOLD <= joined.board.link.buffered <= HOLD + MAX_MESSAGE + 2 * 32768
    assert len(joined.host.link.sender.unacknowledged) > 300_000
    joined.board.paused = False
    assert joined.run(lambda: len(joined.board.received) == 20, 60.0)
    assert joined.board.received == messages


def test_a_moved_edge_is_acknowledged_at_once() -> None:
    joined = join(Line())
    joined.board.paused = True
    for number in range(20):
        joined.host.link.sender.send(bytes([number]) * 30_000)
    joined.run(lambda: False, 10.0)
    before = joined.board.link.counts.frames_sent
    while joined.board.link.receiver.next_message() is not None:
        pass
    assert joined.board.link.next_time() <= joined.now
    assert joined.board.link.outgoing(joined.now)
    assert joined.board.link.counts.frames_sent == before + 1


@pytest.mark.parametrize("payload", [64, 300])
def test_the_smaller_frame_of_both_ends_is_used(payload: int) -> None:
    longest = [0]

    def watch(frame: bytes) -> bytes:
        longest[0] = max(longest[0], len(frame))
        return frame

    host = Link(active=True, session=1)
    board = Link(Settings(payload=payload, window=2048), active=False, session=2)
    joined = VirtualLine(host, board, LineQuality(921600), host_fault=watch)
    exchange(joined, [bytes(20_000)], [bytes(5000)], 10.0)
    assert payload < longest[0] <= payload + 9 + 4 + 5


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
