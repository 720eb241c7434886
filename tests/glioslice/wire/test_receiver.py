"""Pieces to messages: order, overlap, bounds."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glioslice.wire.layout import varint
from glioslice.wire.receiver import HOLD, MAX_MESSAGE, Receiver, StreamError

WINDOW = 32768


def stream_of(messages: list[bytes]) -> bytes:
    return b"".join(varint(len(m)) + m for m in messages)


def read_all(receiver: Receiver) -> list[bytes]:
    messages = []
    while (message := receiver.next_message()) is not None:
        messages.append(message)
    return messages


@pytest.mark.parametrize(
    ("length", "prefix"),
    [(1, "01"), (127, "7f"), (128, "8001"), (16383, "ff7f"), (16384, "808001"), (262144, "808010")],
)
def test_length_prefixes(length: int, prefix: str) -> None:
    assert varint(length).hex() == prefix


@settings(max_examples=150)
@given(st.lists(st.binary(min_size=1, max_size=900), max_size=12), st.integers(0, 2**32))
def test_overlapping_pieces_in_any_order_give_each_message_once(
    messages: list[bytes], seed: int
) -> None:
    chance = random.Random(seed)
    stream = stream_of(messages)
    pieces = [(at, stream[at : at + 200]) for at in range(0, len(stream), 200)]
    pieces += [(at, stream[at : at + 150]) for at in range(50, len(stream), 170)]
    chance.shuffle(pieces)
    receiver = Receiver(WINDOW)
    received = []
    for offset, payload in pieces:
        receiver.add(offset, payload)
        received += read_all(receiver)
    assert received == messages
    assert receiver.expected == len(stream)
    assert not receiver.runs
    assert receiver.buffered == 0


def test_gaps_are_named_and_filled() -> None:
    stream = stream_of([bytes(998)])
    receiver = Receiver(WINDOW)
    assert receiver.add(0, stream[:100]) is False
    assert receiver.add(200, stream[200:300]) is True
    assert receiver.add(300, stream[300:400]) is False
    assert receiver.add(600, stream[600:700]) is True
    assert receiver.pairs() == ((100, 200), (200, 100))
    assert receiver.add(100, stream[100:200]) is True
    assert receiver.pairs() == ((200, 100),)
    assert receiver.expected == 400
    assert receiver.add(400, stream[400:600]) is True
    assert receiver.pairs() == ()
    assert receiver.expected == 700


def test_known_bytes_are_acknowledged_at_once_and_counted() -> None:
    receiver = Receiver(WINDOW)
    receiver.add(0, stream_of([b"abc"]))
    assert receiver.add(0, stream_of([b"abc"])) is True
    assert receiver.add(10, b"later") is True
    receiver.add(10, b"later")
    assert receiver.duplicates == 2
    assert read_all(receiver) == [b"abc"]


@pytest.mark.parametrize("prefix", ["00", "80808001", "ffffff", "818010", "ffff7f"])
def test_an_impossible_length_is_refused_at_once(prefix: str) -> None:
    receiver = Receiver(WINDOW)
    with pytest.raises(StreamError, match="same version"):
        receiver.add(0, bytes.fromhex(prefix) + bytes(10))


def test_the_edge_stands_still_while_nothing_is_read() -> None:
    stream = stream_of([bytes(999)] * 400)
    receiver = Receiver(WINDOW)
    at = 0
    while at < receiver.edge:
        receiver.add(at, stream[at : min(at + 512, receiver.edge)])
        at = min(at + 512, receiver.edge)
    held = receiver.buffered
    assert HOLD <= held <= HOLD + WINDOW + 1001
    assert receiver.add(at, stream[at : at + 512]) is False
    assert receiver.buffered == held
    edge = receiver.edge
    while receiver.edge == edge:
        assert receiver.next_message() is not None
    assert receiver.edge == receiver.expected + WINDOW


@settings(max_examples=50)
@given(st.integers(0, 2**32))
def test_no_pieces_exceed_the_bound(seed: int) -> None:
    chance = random.Random(seed)
    receiver = Receiver(WINDOW)
    try:
        for _ in range(300):
            offset = receiver.expected + chance.randint(-2000, 2 * WINDOW)
            receiver.add(max(0, offset), chance.randbytes(chance.randint(1, 1024)))
            assert receiver.buffered <= HOLD + MAX_MESSAGE + 2 * WINDOW
            assert len(receiver.pairs()) <= 32
    except StreamError:
        pass


def test_a_piece_that_begins_before_what_is_expected_adds_its_rest() -> None:
    message = random.Random(1).randbytes(998)
    stream = stream_of([message])
    receiver = Receiver(WINDOW)
    receiver.add(0, stream[:300])
    receiver.add(100, stream[100:500])
    assert receiver.expected == 500
    receiver.add(700, stream[700:900])
    receiver.add(400, stream[400:600])
    assert (receiver.expected, receiver.pairs()) == (600, ((100, 200),))
    receiver.add(550, stream[550:1000])
    assert read_all(receiver) == [message]
