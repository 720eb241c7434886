"""What a third party sees of a session, frame by frame."""

import random
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from glioslice.wire import packets
from glioslice.wire.framing import encode_frame
from glioslice.wire.layout import varint
from glioslice.wire.link import Link
from glioslice.wire.packets import Ack, Data, Open
from glioslice.wire.simulator.line import LineQuality, combined, dropping, duplicating, reordering
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.sniffer import SniffedFrame, Sniffer, Splitter, Totals

HOST, BOARD = 0x1001, 0x2002
TAG = HOST ^ BOARD


def frame(packet: packets.Packet, active: bool = True) -> bytes:
    return encode_frame(packets.to_bytes(packet, active))


def opened(host: int = HOST, board: int = BOARD) -> Sniffer:
    sniffer = Sniffer()
    list(sniffer.feed(True, frame(Open(host, 0, 1024, 32768)), 0.0))
    list(sniffer.feed(False, frame(Open(board, host, 1024, 32768), False), 0.1))
    return sniffer


def data(offset: int, payload: bytes) -> bytes:
    return frame(Data(TAG, offset, 0, payload))


def test_frames_and_what_lies_between_them_keep_their_sizes() -> None:
    splitter = Splitter()
    stream = (
        b"login: "
        + encode_frame(b"one")
        + encode_frame(b"two")
        + b"\xff\xfe\0"
        + encode_frame(b"three")
    )
    pieces = list(splitter.feed(stream[:12], 1.0)) + list(splitter.feed(stream[12:], 2.0))
    assert [(p.body, p.text) for p in pieces] == [
        (None, b"login: "), (b"one", b""), (b"two", b""), (None, b"\xff\xfe"), (b"three", b""),
    ]  # fmt: skip
    assert sum(p.size for p in pieces) == len(stream)
    assert [p.began for p in pieces] == [1.0, 1.0, 2.0, 2.0, 2.0]
    list(splitter.feed(b"half", 3.0))
    assert splitter.unfinished == 4


@given(st.lists(st.binary(max_size=60)), st.integers(1, 50))
def test_no_byte_is_counted_twice_or_not_at_all(parts: list[bytes], step: int) -> None:
    stream = b"".join(encode_frame(part) if part else b"\0noise" for part in parts) + b"\0"
    splitter, size = Splitter(), 0
    for place in range(0, len(stream), step):
        size += sum(p.size for p in splitter.feed(stream[place : place + step], 0.0))
    assert size <= len(stream) <= size + 2  # delimiters that end nothing


def test_messages_appear_with_the_frame_that_completes_them() -> None:
    message = bytes(range(1, 101))
    stream = varint(100) + message + varint(3) + b"abc"
    sniffer = opened()
    (first,) = sniffer.feed(True, data(0, stream[:50]), 1.0)
    (second,) = sniffer.feed(True, data(50, stream[50:]), 2.0)
    assert (first.messages, second.messages) == ((), (message, b"abc"))
    assert (first.session, first.up, first.time, first.began) == (1, True, 1.0, 1.0)


def test_repeated_and_late_bytes() -> None:
    sniffer = opened()
    seen: list[SniffedFrame] = []
    pieces = [(0, b"\x05a"), (4, b"de"), (4, b"de"), (2, b"bc"), (0, b"\x05abcd"), (0, b"\x05a")]
    for place, payload in pieces:
        seen += sniffer.feed(True, data(place, payload), 0.0)
    assert [one.repeated for one in seen] == [0, 0, 2, 0, 5, 2]
    assert [one.late for one in seen] == [False, False, False, True, False, False]
    assert [one.messages for one in seen] == [(), (), (), (b"abcde",), (), ()]
    totals = Totals()
    for one in seen:
        totals.add(one)
    assert (totals.frames, totals.payload, totals.repeated, totals.skipped) == (6, 6, 9, 0)


def test_an_echo_and_garbage_are_not_part_of_the_session() -> None:
    sniffer, totals = opened(), Totals()
    (echo,) = sniffer.feed(False, data(0, b"\x01a"), 0.0)
    assert (echo.echo, echo.messages) == (True, ())
    (garbage,) = sniffer.feed(False, b"boot\0", 0.0)
    assert (garbage.packet, garbage.text, garbage.up) == (None, b"boot", False)
    (strange,) = sniffer.feed(False, encode_frame(b"\x77"), 0.0)
    assert (strange.packet, strange.text) == (None, b"\x77")
    for one in (echo, garbage, strange):
        totals.add(one)
    assert (totals.frames, totals.skipped) == (0, totals.bytes)
    (good,) = sniffer.feed(True, data(0, b"\x01a"), 0.0)
    assert good.messages == (b"a",)


def test_one_receiver_gets_both_directions() -> None:
    sniffer = Sniffer()
    line = frame(Open(HOST, 0, 1024, 32768)) + frame(Open(BOARD, HOST, 1024, 32768), False)
    line += data(0, b"\x01a") + frame(Data(TAG, 0, 0, b"\x01b"), False)
    seen = list(sniffer.feed(None, line, 0.0))
    assert [one.up for one in seen] == [True, False, True, False]
    assert [one.messages for one in seen] == [(), (), (b"a",), (b"b",)]


def test_a_listener_who_comes_late_sees_frames_without_messages() -> None:
    seen = list(Sniffer().feed(None, data(700, b"in the middle") + frame(Ack(TAG, 0, 9)), 0.0))
    assert [type(one.packet) for one in seen] == [Data, Ack]
    assert [one.messages for one in seen] == [(), ()]


def test_a_stream_without_messages_is_followed_no_further() -> None:
    sniffer = opened()
    seen = [
        *sniffer.feed(True, data(0, b"\xff\xff\xff\xff"), 0.0),
        *sniffer.feed(True, data(4, b"x"), 0.0),
    ]
    assert [one.messages for one in seen] == [(), ()]


def test_a_new_session_begins_at_zero() -> None:
    sniffer = opened()
    list(sniffer.feed(True, data(0, b"\x01a\x02half"), 0.0))
    list(sniffer.feed(False, frame(Open(0x3003, 0, 1024, 32768), False), 0.0))
    list(sniffer.feed(True, frame(Open(0x4004, 0, 1024, 32768)), 0.0))
    (seen,) = sniffer.feed(True, frame(Data(0x3003 ^ 0x4004, 0, 0, b"\x01b")), 0.0)
    assert (seen.session, seen.messages) == (2, (b"b",))
    (stranger,) = sniffer.feed(True, data(6, b"rest"), 0.0)
    assert stranger.messages == ()


def test_messages_over_a_bad_line_are_those_that_the_ends_received() -> None:
    """Written by one end, received by the other, with losses, duplicates and swaps."""
    chance = random.Random(4)
    fault = combined(chance, (dropping(0.1), duplicating, reordering))
    sniffer, received = Sniffer(), {True: list[bytes](), False: list[bytes]()}

    def listen(piece: bytes, up: bool) -> bytes:
        for seen in sniffer.feed(up, piece, line.now):
            received[up] += seen.messages
        return fault(piece)

    line = VirtualLine(
        Link(active=True, session=HOST), Link(active=False, session=BOARD), LineQuality(921600),
        host_fault=partial(listen, up=True), board_fault=partial(listen, up=False),
    )  # fmt: skip
    sent = [chance.randbytes(chance.randint(1, 5000)) for _ in range(20)]
    for message in sent:
        line.host.link.sender.send(message)
        line.board.link.sender.send(message[:100])
    done = lambda: len(line.board.received) == len(line.host.received) == 20  # noqa: E731
    assert line.run(done, 100.0)
    assert received == {True: sent, False: [m[:100] for m in sent]}
