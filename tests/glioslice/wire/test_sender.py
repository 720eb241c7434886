"""A stream to segments: what is sent, and what is retransmitted."""

import math

import pytest

from glioslice.wire.layout import varint
from glioslice.wire.packets import MIN_PAYLOAD
from glioslice.wire.sender import FIRST_TIMEOUT, MAX_BACKOFF, MIN_TIMEOUT, RoundTrip, Sender


def sender_with(size: int, edge: int = 100_000) -> Sender:
    sender = Sender(512)
    sender.edge = edge
    sender.send(bytes(size - next(n for n in (1, 2, 3) if len(varint(size - n)) == n)))
    return sender


def drain(sender: Sender, now: float) -> list[tuple[int, int]]:
    sent = []
    while (segment := sender.next_segment(now)) is not None:
        sent.append((segment[0], segment[0] + len(segment[1])))
    return sent


def check_time_out(sender: Sender, now: float) -> None:
    if now >= sender.next_time():
        sender.time_out()


def test_small_messages_share_a_segment() -> None:
    sender = Sender(512)
    sender.edge = 1000
    for text in (b"one", b"two"):
        sender.send(text)
    assert sender.next_segment(0.0) == (0, b"\x03one\x03two")
    assert len(sender.unacknowledged) == 8


def test_nothing_passes_the_edge_and_no_sliver_is_sent() -> None:
    sender = sender_with(2000, edge=1100)
    assert drain(sender, 0.0) == [(0, 512), (512, 1024)]
    assert not sender.sendable()
    sender.acknowledge(1024, [], True, 0.1)
    assert drain(sender, 0.1) == [(1024, 1100)]
    sender.edge = 5000
    assert drain(sender, 0.1) == [(1100, 1612), (1612, 2000)]


def test_a_segment_is_lost_when_a_later_one_arrived() -> None:
    sender = sender_with(2048)
    assert len(drain(sender, 0.0)) == 4
    sender.acknowledge(512, [(1024, 1536)], True, 0.05)
    assert drain(sender, 0.05) == [(512, 1024)]
    # Lost again: the last segment left before this second try and proves nothing about it.
    sender.acknowledge(512, [(1024, 2048)], True, 0.06)
    assert drain(sender, 0.06) == []
    sender.send(bytes(98))
    assert drain(sender, 0.07) == [(2048, 2147)]
    sender.acknowledge(512, [(1024, 2147)], True, 0.2)
    assert drain(sender, 0.2) == [(512, 1024)]
    assert (sender.retransmits, sender.repeated_bytes) == (2, 1024)
    sender.acknowledge(2147, [], True, 0.3)
    assert len(sender.unacknowledged) == 0
    assert sender.next_time() == math.inf


def test_nothing_is_known_beyond_an_acknowledgement_cut_short() -> None:
    for complete, lost in ((False, [(1024, 1536)]), (True, [(1024, 1536), (2048, 2560)])):
        sender = sender_with(2560)
        drain(sender, 0.0)
        sender.acknowledge(0, [(512, 1024)], True, 0.05)
        assert drain(sender, 0.05) == [(0, 512)]  # leaves after all others
        sender.acknowledge(1024, [(1536, 2048)], complete, 0.2)
        assert drain(sender, 0.2) == lost


def test_an_acknowledgement_that_comes_too_soon_is_for_an_earlier_try() -> None:
    for age, repeated in ((0.01, []), (0.06, [(1024, 1536)])):
        sender = sender_with(1536)
        drain(sender, 0.0)
        sender.acknowledge(512, [], True, 0.05)
        assert sender.round_trip.shortest == 0.05
        check_time_out(sender, 1.0)
        assert drain(sender, 1.0) == [(512, 1024)]
        sender.acknowledge(1024, [], True, 1.0 + age)
        assert drain(sender, 1.0 + age) == repeated
        assert sender.round_trip.shortest == sender.round_trip.smoothed == 0.05


def test_a_cumulative_acknowledgement_alone_retransmits_nothing() -> None:
    sender = sender_with(4096)
    drain(sender, 0.0)
    sender.acknowledge(2048, [], False, 0.05)
    assert drain(sender, 0.05) == []


def test_a_time_out_retransmits_the_oldest_then_all() -> None:
    sender = sender_with(1024)
    drain(sender, 0.0)
    assert sender.next_time() == pytest.approx(FIRST_TIMEOUT)
    check_time_out(sender, FIRST_TIMEOUT - 0.01)
    assert drain(sender, 0.4) == []
    check_time_out(sender, FIRST_TIMEOUT)
    assert drain(sender, FIRST_TIMEOUT) == [(0, 512)]
    due = sender.next_time()
    assert due == pytest.approx(FIRST_TIMEOUT + MAX_BACKOFF)
    check_time_out(sender, due)
    assert drain(sender, due) == [(0, 512), (512, 1024)]
    for _ in range(10):
        due = sender.next_time()
        check_time_out(sender, due)
        drain(sender, due)
        assert sender.next_time() - due <= MAX_BACKOFF + 1e-9


def test_a_late_acknowledgement_cancels_the_retransmission() -> None:
    sender = sender_with(1024)
    drain(sender, 0.0)
    check_time_out(sender, FIRST_TIMEOUT)
    sender.acknowledge(1024, [], True, FIRST_TIMEOUT)
    assert drain(sender, FIRST_TIMEOUT) == []
    assert sender.retransmits == 0


@pytest.mark.parametrize("upto", [-1, 5000, 1 << 23])
def test_impossible_acknowledgements_are_ignored(upto: int) -> None:
    sender = sender_with(1024)
    drain(sender, 0.0)
    sender.acknowledge(upto, [(0, 1 << 24)], True, 0.1)
    assert len(sender.unacknowledged) == 1024
    assert sender.next_time() < math.inf


def test_frames_shrink_on_a_bad_line_and_grow_on_a_good_one() -> None:
    sender = sender_with(60_000)
    for _ in range(6):
        drain(sender, 0.0)
        check_time_out(sender, sender.next_time())
    assert sender.payload == MIN_PAYLOAD
    assert all(stop - start <= MIN_PAYLOAD for start, stop in drain(sender, 9.0))
    for upto in range(640, 60_001, 640):
        sender.acknowledge(upto, [], True, 10.0)
        drain(sender, 10.0)
    sender.send(bytes(200_000))
    sender.edge = 300_000
    drain(sender, 11.0)
    sender.acknowledge(sender.base + len(sender.unacknowledged), [], True, 12.0)
    assert len(sender.unacknowledged) == 0
    assert sender.payload == 512


def test_the_time_out_follows_the_round_trip() -> None:
    trip = RoundTrip()
    assert trip.timeout == FIRST_TIMEOUT
    for _ in range(60):
        trip.add(0.01)
    assert trip.timeout == MIN_TIMEOUT
    for _ in range(60):
        trip.add(2.0)
    assert 2.0 < trip.timeout < 4.0
    assert trip.shortest == 0.01


def test_a_deferred_message_is_sent_when_all_before_it_is_acknowledged() -> None:
    sender = Sender(512)
    sender.edge = 1000
    sender.send_deferred(b"at once")  # nothing is on its way
    assert drain(sender, 0.0) == [(0, 8)]
    sender.send_deferred(b"later")
    assert (drain(sender, 0.0), sender.withdraw(), sender.withdraw()) == ([], b"later", None)
    sender.send_deferred(b"later")
    sender.acknowledge(7, [], True, 0.1)
    assert drain(sender, 0.1) == []
    sender.acknowledge(8, [], True, 0.2)
    assert len(sender.unacknowledged) == 6
    assert sender.next_segment(0.2) == (8, b"\x05later")
    assert sender.withdraw() is None


def test_a_deferred_message_is_sent_before_the_next() -> None:
    sender = Sender(512)
    sender.edge = 1000
    sender.send(b"one")
    sender.send_deferred(b"two")
    sender.send_deferred(b"three")
    sender.send(b"four")
    assert sender.next_segment(0.0) == (0, b"\x03one\x03two\x05three\x04four")
    assert not sender.release_deferred()
    sender.send_deferred(b"five")
    assert sender.release_deferred()
    assert sender.next_segment(0.0) == (19, b"\x04five")
