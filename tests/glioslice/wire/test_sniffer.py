"""What a third party sees of a session, frame by frame."""

import random
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from glioslice.wire import packets
from glioslice.wire.framing import encode
from glioslice.wire.layout import varint
from glioslice.wire.link import Link
from glioslice.wire.packets import Ack, Data, Open
from glioslice.wire.simulator.faults import doubling, dropping, mixed, reordering
from glioslice.wire.simulator.line import Quality
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.sniffer import Seen, Splitter, Tap, Totals

HOST, BOARD = 0x1001, 0x2002
TAG = HOST ^ BOARD


def frame(packet: packets.Packet, active: bool = True) -> bytes:
    return encode(packets.to_bytes(packet, active))


def opened(host: int = HOST, board: int = BOARD) -> Tap:
    tap = Tap()
    list(tap.feed(True, frame(Open(host, 0, 1024, 32768)), 0.0))
    list(tap.feed(False, frame(Open(board, host, 1024, 32768), False), 0.1))
    return tap


def data(offset: int, payload: bytes) -> bytes:
    return frame(Data(TAG, offset, 0, payload))


def test_frames_and_what_lies_between_them_keep_their_sizes() -> None:
    splitter = Splitter()
    stream = b"login: " + encode(b"one") + encode(b"two") + b"\xff\xfe\0" + encode(b"three")
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
    stream = b"".join(encode(part) if part else b"\0noise" for part in parts) + b"\0"
    splitter, size = Splitter(), 0
    for place in range(0, len(stream), step):
        size += sum(p.size for p in splitter.feed(stream[place : place + step], 0.0))
    assert size <= len(stream) <= size + 2  # delimiters that end nothing


def test_messages_appear_with_the_frame_that_completes_them() -> None:
    message = bytes(range(1, 101))
    stream = varint(100) + message + varint(3) + b"abc"
    tap = opened()
    (first,) = tap.feed(True, data(0, stream[:50]), 1.0)
    (second,) = tap.feed(True, data(50, stream[50:]), 2.0)
    assert (first.messages, second.messages) == ((), (message, b"abc"))
    assert (first.session, first.up, first.time, first.began) == (1, True, 1.0, 1.0)


def test_what_crosses_again_and_what_comes_late() -> None:
    tap = opened()
    seen: list[Seen] = []
    pieces = [(0, b"\x05a"), (4, b"de"), (4, b"de"), (2, b"bc"), (0, b"\x05abcd"), (0, b"\x05a")]
    for place, payload in pieces:
        seen += tap.feed(True, data(place, payload), 0.0)
    assert [one.again for one in seen] == [0, 0, 2, 0, 5, 2]
    assert [one.late for one in seen] == [False, False, False, True, False, False]
    assert [one.messages for one in seen] == [(), (), (), (b"abcde",), (), ()]
    totals = Totals()
    for one in seen:
        totals.add(one)
    assert (totals.frames, totals.payload, totals.again, totals.skipped) == (6, 6, 9, 0)


def test_an_echo_and_garbage_are_no_part_of_the_session() -> None:
    tap, totals = opened(), Totals()
    (echo,) = tap.feed(False, data(0, b"\x01a"), 0.0)
    assert (echo.echo, echo.messages) == (True, ())
    (garbage,) = tap.feed(False, b"boot\0", 0.0)
    assert (garbage.packet, garbage.text, garbage.up) == (None, b"boot", False)
    (strange,) = tap.feed(False, encode(b"\x77"), 0.0)
    assert (strange.packet, strange.text) == (None, b"\x77")
    for one in (echo, garbage, strange):
        totals.add(one)
    assert (totals.frames, totals.skipped) == (0, totals.bytes)
    (good,) = tap.feed(True, data(0, b"\x01a"), 0.0)
    assert good.messages == (b"a",)


def test_one_receiver_hears_both_directions() -> None:
    tap = Tap()
    line = frame(Open(HOST, 0, 1024, 32768)) + frame(Open(BOARD, HOST, 1024, 32768), False)
    line += data(0, b"\x01a") + frame(Data(TAG, 0, 0, b"\x01b"), False)
    seen = list(tap.feed(None, line, 0.0))
    assert [one.up for one in seen] == [True, False, True, False]
    assert [one.messages for one in seen] == [(), (), (b"a",), (b"b",)]


def test_a_listener_who_comes_late_sees_frames_without_messages() -> None:
    seen = list(Tap().feed(None, data(700, b"in the middle") + frame(Ack(TAG, 0, 9)), 0.0))
    assert [type(one.packet) for one in seen] == [Data, Ack]
    assert [one.messages for one in seen] == [(), ()]


def test_a_stream_without_messages_is_followed_no_further() -> None:
    tap = opened()
    seen = [*tap.feed(True, data(0, b"\xff\xff\xff\xff"), 0.0), *tap.feed(True, data(4, b"x"), 0.0)]
    assert [one.messages for one in seen] == [(), ()]


def test_a_new_session_begins_at_zero() -> None:
    tap = opened()
    list(tap.feed(True, data(0, b"\x01a\x02half"), 0.0))
    list(tap.feed(False, frame(Open(0x3003, 0, 1024, 32768), False), 0.0))
    list(tap.feed(True, frame(Open(0x4004, 0, 1024, 32768)), 0.0))
    (seen,) = tap.feed(True, frame(Data(0x3003 ^ 0x4004, 0, 0, b"\x01b")), 0.0)
    assert (seen.session, seen.messages) == (2, (b"b",))
    (stranger,) = tap.feed(True, data(6, b"rest"), 0.0)
    assert stranger.messages == ()


def test_what_crosses_a_bad_line_is_told_as_the_ends_understood_it() -> None:
    """Written by one end, heard by the other, with losses, doubles and swaps."""
    chance = random.Random(4)
    fault = mixed(chance, (dropping(0.1), doubling, reordering))
    tap, heard = Tap(), {True: list[bytes](), False: list[bytes]()}

    def listen(piece: bytes, up: bool) -> bytes:
        for seen in tap.feed(up, piece, line.now):
            heard[up] += seen.messages
        return fault(piece)

    line = VirtualLine(
        Link(active=True, session=HOST), Link(active=False, session=BOARD), Quality(921600),
        host_fault=partial(listen, up=True), board_fault=partial(listen, up=False),
    )  # fmt: skip
    sent = [chance.randbytes(chance.randint(1, 5000)) for _ in range(20)]
    for message in sent:
        line.host.link.sender.send(message)
        line.board.link.sender.send(message[:100])
    done = lambda: len(line.board.received) == len(line.host.received) == 20  # noqa: E731
    assert line.run(done, 100.0)
    assert heard == {True: sent, False: [m[:100] for m in sent]}
