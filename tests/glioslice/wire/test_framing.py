"""Bytes to frames, without anything above or below."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glioslice.wire.framing import MAX_BODY, MAX_ENCODED, SAMPLE, FrameReader, encode_frame

bodies = st.binary(min_size=1, max_size=MAX_BODY)


def cuts(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def test_a_known_frame() -> None:
    # CRC-32 of "123456789" is 0xCBF43926, the check value of every table of CRCs.
    assert encode_frame(b"123456789").hex() == "00" + "0e3132333435363738392639f4cb" + "00"


@given(st.lists(bodies, max_size=5), st.lists(st.integers(0, 700), max_size=10))
def test_frames_come_back_however_the_bytes_are_cut(sent: list[bytes], sizes: list[int]) -> None:
    reader = FrameReader()
    received = []
    for piece in cuts(b"".join(map(encode_frame, sent)), sizes):
        received += reader.feed(piece)
    assert received == sent
    assert reader.counts.frames == len(sent)
    assert reader.counts.skipped == 0


@given(bodies)
def test_a_frame_holds_no_zero_between_its_delimiters(body: bytes) -> None:
    frame = encode_frame(body)
    assert frame[0] == frame[-1] == 0
    assert 0 not in frame[1:-1]
    assert len(frame) <= MAX_ENCODED + 2


@given(st.binary(max_size=3000), bodies, st.binary(max_size=300))
def test_an_intact_frame_is_accepted_whatever_came_before(
    noise: bytes, body: bytes, after: bytes
) -> None:
    reader = FrameReader()
    assert body in reader.feed(noise + encode_frame(body) + after)


@given(st.lists(st.binary(max_size=2000), max_size=5))
def test_garbage_never_raises_and_is_counted(pieces: list[bytes]) -> None:
    reader = FrameReader()
    for piece in pieces:
        reader.feed(piece)
        assert reader.buffered <= MAX_ENCODED
        assert len(reader.sample) <= SAMPLE
    assert reader.counts.bytes == sum(map(len, pieces))
    assert reader.counts.skipped <= reader.counts.bytes


def test_an_unfinished_frame_is_bounded_and_what_follows_is_received() -> None:
    reader = FrameReader()
    for _ in range(1000):
        assert reader.feed(b"x" * 1000) == []
        assert reader.buffered <= MAX_ENCODED < 65536
    assert reader.feed(encode_frame(b"here")) == [b"here"]
    assert reader.counts.too_long == 1
    assert reader.counts.skipped == 1_000_000


@pytest.mark.parametrize("bit", range(8 * len(encode_frame(b"a mask"))))
def test_a_flipped_bit_is_never_accepted_as_a_frame(bit: int) -> None:
    damaged = bytearray(encode_frame(b"a mask"))
    damaged[bit // 8] ^= 1 << bit % 8
    reader = FrameReader()
    assert b"a mask" not in reader.feed(bytes(damaged)) or bit // 8 in (0, len(damaged) - 1)
    assert reader.feed(encode_frame(b"next")) == [b"next"]


def test_kinds_of_damage_are_distinguished() -> None:
    reader = FrameReader()
    good = encode_frame(bytes(range(1, 100)))
    wrong = bytearray(good)
    wrong[50] ^= 1
    reader.feed(bytes(wrong))
    assert (reader.counts.bad_crc, reader.counts.malformed) == (1, 0)
    reader.feed(b"\0\x09short\0")
    assert (reader.counts.bad_crc, reader.counts.malformed) == (1, 1)
    reader.feed(encode_frame(b"x")[:-1][:3] + b"\0")
    assert reader.counts.malformed == 2
    assert reader.counts.frames == 0


def test_console_text_is_kept_for_a_person_to_read() -> None:
    reader = FrameReader()
    reader.feed(b"\r\nraspberrypi login: ")
    assert reader.sample.endswith(b"raspberrypi login: ")
    reader.feed(encode_frame(b"x") + b"later")
    assert reader.sample.endswith(b"login: later")


def test_a_body_of_no_or_too_many_bytes_is_refused() -> None:
    assert FrameReader().feed(encode_frame(bytes(MAX_BODY))) == [bytes(MAX_BODY)]
    for size in (0, MAX_BODY + 1):
        with pytest.raises(ValueError, match="1 to 1088"):
            encode_frame(bytes(size))


def test_a_line_that_flips_bits_gives_no_wrong_frame() -> None:
    chance = random.Random(4)
    reader = FrameReader()
    sent = {chance.randbytes(chance.randint(1, 200)) for _ in range(3000)}
    for body in sent:
        frame = bytearray(encode_frame(body))
        for _ in range(chance.randint(0, 3)):
            frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
        assert set(reader.feed(bytes(frame))) <= sent
    assert 500 < reader.counts.frames < 2500
