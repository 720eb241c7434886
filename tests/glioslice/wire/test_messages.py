"""Messages survive a round trip, and anything else raises nothing but MessageError."""

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glioslice.wire import messages
from glioslice.wire.messages import (
    VERSION,
    BoardHello,
    Empty,
    End,
    Error,
    ErrorCode,
    HostHello,
    Mask,
    MaskDigest,
    Message,
    MessageError,
    Mode,
    Slice,
    Start,
    Temperature,
    VersionError,
    VolumeGeometry,
    parse,
)
from tools.wire_vectors import HELLO, VOLUME

u8, u16, u32 = st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, 2**64 - 1)
sides, floats = st.integers(1, 1024), st.floats(width=32, min_value=2**-20, max_value=2**20)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=16)
texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=120)
volumes = st.builds(
    VolumeGeometry,
    st.tuples(sides, sides, st.integers(512, 1024)),
    st.tuples(st.integers(-500, 500), st.integers(-500, 500)),
    st.tuples(st.integers(0, 200), st.integers(201, 512)),
    st.tuples(floats, floats, floats),
    st.tuples(*[finite] * 12),
    u8,
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
empties = st.integers(0, 1000).flatmap(
    lambda index: st.lists(st.tuples(u32, u8), min_size=1, max_size=24).map(
        lambda results: Empty(index, *zip(*results, strict=True))
    )
)
any_message: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        BoardHello,
        modes=st.frozensets(st.sampled_from(Mode), min_size=1),
        window=st.tuples(sides, sides),
        scale=floats,
        zero_point=st.integers(-128, 127),
        clip=floats,
        image_codecs=st.integers(1, 0xFFFF),
        mask_codecs=st.integers(1, 0xFFFF),
        sha256=digests,
        model=names,
        modalities=st.permutations(messages.WIRE_MODALITIES).flatmap(
            lambda order: st.integers(1, 4).map(lambda n: tuple(order[:n]))
        ),
        slices_at_once=st.integers(1, 255),
        boot=u64,
        kept=u64,
        answered=u16,
        mirroring=st.booleans(),
    ),
    st.builds(HostHello, st.sampled_from(Mode), st.integers(0, 15), st.integers(0, 15)),
    st.builds(
        Start, st.integers(513, 1024), st.none(), st.integers(0, 512), u64, st.integers(0, 14)
    ),
    volumes.map(lambda volume: Start(volume.z[1] - volume.z[0], volume, absent=5)),
    st.builds(Slice, u16, u8, st.binary(max_size=500)),
    st.builds(Mask, u16, u8, u32, st.binary(max_size=500), u8),
    empties,
    st.builds(End, u16, u16, st.integers(0, 2**64 - 1), digests),
    st.builds(Temperature, st.integers(-1000, 2000)),
    st.builds(Error, st.sampled_from(ErrorCode), st.integers(-1, 1023), texts),
)


@given(any_message)
def test_a_message_comes_back(message: Message) -> None:
    assert parse(message.to_bytes()) == message


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_message_error_alone(data: bytes) -> None:
    try:
        message = parse(data)
    except MessageError:
        return
    assert parse(message.to_bytes()) == message


@given(any_message, st.data())
def test_damaged_messages_raise_message_error_alone(message: Message, data: st.DataObject) -> None:
    damaged = bytearray(message.to_bytes())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(u8)
    del damaged[data.draw(st.integers(1, len(damaged))) :]
    try:
        again = parse(bytes(damaged))
    except MessageError:
        return
    assert parse(again.to_bytes()) == again


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (HELLO, 98),
        (HostHello(Mode.SERVE, 2, 2), 5),
        (Start(140), 14),
        (Start(140, VOLUME), 139),
        (Slice(1, 2, b"xyz"), 7),
        (Mask(1, 2, 900, b"xyz"), 10),
        (Empty(1, (127, 128, 16384), (0, 1, 255)), 12),
        (End(140, 0, 10**6, "00" * 32), 45),
        (Error(ErrorCode.SLICE, 3, "damaged"), 13),
        (Temperature(485), 3),
    ],
)
def test_lengths_are_those_of_the_docstrings(message: Message, size: int) -> None:
    data = message.to_bytes()
    assert len(data) == size
    assert data[0] == message.TYPE
    assert parse(data) == message


def test_the_affine_crosses_exactly() -> None:
    again = parse(Start(140, VOLUME).to_bytes())
    assert isinstance(again, Start)
    assert again.volume == VOLUME


def test_empty_masks_join_where_they_follow_each_other() -> None:
    first, second = Empty(7, (1850,), (3,)), Empty(8, (1900, 20), (4, 255))
    joined = first.joined_with(second)
    assert joined == Empty(7, (1850, 1900, 20), (3, 4, 255))
    assert list(joined.per_slice()) == [(7, 1850, 3), (8, 1900, 4), (9, 20, 255)]
    assert list(Mask(5, 1, 60, b"x", 9).per_slice()) == [(5, 60, 9)]
    assert (
        first.joined_with(first) is second.joined_with(first) is joined.joined_with(second) is None
    )


def changed(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


HELLO_BYTES = HELLO.to_bytes()
START_BYTES = Start(140, VOLUME).to_bytes()
ERROR_BYTES = Error(ErrorCode.ENGINE, -1, "text").to_bytes()
f32 = struct.Struct("<f").pack
f64 = struct.Struct("<d").pack


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "an empty message"),
        (b"\x0aabc", "unknown type 10"),
        (b"\x00", "unknown type 0"),
        (HELLO_BYTES[:-1], "BoardHello of 97 bytes, not 98"),
        (changed(HELLO_BYTES, 2, b"\0"), "can do 0"),
        (changed(HELLO_BYTES, 2, b"\4"), "can do 4"),
        (changed(HELLO_BYTES, 3, b"\2"), "labels 2"),
        (changed(HELLO_BYTES, 4, b"\xff\xff"), "window of 65535 x 192"),
        (changed(HELLO_BYTES, 6, b"\0\0"), "window of 160 x 0"),
        (changed(HELLO_BYTES, 8, b"\0"), "modalities"),
        (changed(HELLO_BYTES, 9, b"\0\0\0\0"), "modalities"),
        (changed(HELLO_BYTES, 9, b"\1\0\2\3"), "modalities"),
        (changed(HELLO_BYTES, 9, b"\1\1\2\3"), "modalities"),
        (changed(HELLO_BYTES, 9, b"\1\2\3\5"), "modalities"),
        (changed(HELLO_BYTES, 14, f32(0.0)), "input scale"),
        (changed(HELLO_BYTES, 14, f32(math.nan)), "input scale"),
        (changed(HELLO_BYTES, 18, f32(math.inf)), "clip"),
        (changed(HELLO_BYTES, 22, b"\0\0"), "without codecs"),
        (changed(HELLO_BYTES, 24, b"\0\0"), "without codecs"),
        (changed(HELLO_BYTES, 58, bytes(16)), "without a name"),
        (changed(HELLO_BYTES, 58, b"a\x1b[2J"), "without a name"),
        (changed(HELLO_BYTES, 92, b"\2"), "unknown flags 2"),
        (bytes([2, VERSION, 3, 0, 0]), "unknown mode 3"),
        (bytes([2, VERSION, 1, 16, 0]), "unknown codecs"),
        (b"\x03\x00\x01\x00", "Start of 4 bytes, not 14"),
        (b"\x03\x00\x00\x00" + bytes(10), "0 slices"),
        (b"\x03\x00\x01\x04" + bytes(10), "1025 slices"),
        (b"\x03\x00\x05\x00\x05" + bytes(9), "5 slices from 5"),
        (b"\x03\x00\x01\x00" + bytes(11), "Start of 15 bytes"),
        (b"\x03\x02\x01\x00" + bytes(10), "Start of 14 bytes"),
        (b"\x03\x08\x01\x00" + bytes(10), "Start of 14 bytes"),
        (b"\x03\xf0\x01\x00" + bytes(10), "without any modality"),
        (changed(START_BYTES, 2, b"\x8b"), "volume of another number"),
        (changed(START_BYTES, 14, b"\0\0"), "a volume of 0 x 240"),
        (changed(START_BYTES, 18, b"\xff\xff"), "240 x 65535"),
        (changed(START_BYTES, 24, b"\x97\0"), "slices 151 to 150"),
        (changed(START_BYTES, 26, b"\xff\xff"), "slices 10 to 65535"),
        (changed(START_BYTES, 28, f32(-1.0)), "spacing"),
        (changed(START_BYTES, 40, f64(math.nan)), "affine"),
        (changed(START_BYTES, 138, b"\x06"), "the form codes"),
        (START_BYTES[:-1], "Volume of 124 bytes"),
        (b"\x04\x00\x01", "Slice of 3"),
        (b"\x05\x00\x01\x00\x00", "Mask of 5"),
        (b"\x05\x00\x01\x00\x00\x80", "Mask with a time that is cut"),
        (b"\x05\x00\x01\x00\x00" + b"\xff" * 6, "Mask with a time that is cut"),
        (b"\x05\x00\x01\x00\x00" + b"\x80" * 4 + b"\x10", "over 4294967295 us"),
        (b"\x08\x00\x00", "Empty of 3"),
        (b"\x08\x00\x00\xff", "Empty with a time that is cut"),
        (b"\x08\xff\x03" + bytes(4), "empty masks from 1023 to beyond"),
        (bytes([6]) + bytes(45), "End of 46"),
        (b"\x09\xd1\x07", "a temperature of 200 degrees"),
        (b"\x09\x00", "Temperature of 2"),
        (changed(ERROR_BYTES, 1, b"\x09"), "unknown error 9"),
        (changed(ERROR_BYTES, 2, b"\xfe\xff\xff\xff"), "slice -2"),
        (ERROR_BYTES + bytes([0x1B]), "cannot be printed"),
        (ERROR_BYTES + b"x" * 117, "text of 121 bytes"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(MessageError, match=what):
        parse(data)


@pytest.mark.parametrize("kind", [1, 2])
def test_another_version_is_refused_by_name(kind: int) -> None:
    newer = rf"version {VERSION + 1} .* version {VERSION}; .* at the near end"
    with pytest.raises(VersionError, match=newer):
        parse(bytes([kind, VERSION + 1]) + b"whatever a later version adds")
    with pytest.raises(VersionError, match=r"version 0 .* at the far end"):
        parse(bytes([kind, 0]) + bytes(72))


def test_a_long_or_foreign_text_is_cut_to_what_may_cross() -> None:
    message = parse(Error(ErrorCode.INPUT, -1, "ü" * 500).to_bytes())
    assert isinstance(message, Error)
    assert message.text == "?" * 120


class Tape:
    """A stream that returns what was sent."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    def send(self, message: bytes) -> None:
        self.messages.append(message)

    def receive(self, timeout: float | None = None) -> bytes | None:
        return self.messages.pop(0) if self.messages else None


def test_messages_travel_over_any_stream() -> None:
    tape = Tape()
    messages.send(tape, HELLO)
    assert messages.receive(tape, 1.0) == HELLO
    assert messages.receive(tape, 1.0) is None


def test_the_digest_depends_on_masks_and_indices_and_not_on_their_order() -> None:
    def digest(masks: dict[int, bytes]) -> str:
        total = MaskDigest()
        for index, labels in masks.items():
            total.add(index, labels)
        return total.hexdigest()

    reference = digest({0: b"\0\1", 1: b"\2\3"})
    assert reference == digest({1: b"\2\3", 0: b"\0\1"})
    assert len({reference, digest({0: b"\2\3", 1: b"\0\1"}), digest({0: b"\0\1"})}) == 3
    assert digest({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    twice = MaskDigest()
    for labels in (b"\3\3", b"\0\1"):
        twice.add(0, labels)
    twice.add(1, b"\2\3")
    assert twice.hexdigest() == reference


def test_no_field_of_a_scan_holds_text() -> None:
    kinds = (Slice(0, 0, b""), Mask(0, 0, 0, b""), Empty(0, (0,), (0,)), End(0, 0, 0, ""))
    for message in (Start(140, VOLUME), *kinds):
        assert not any(
            kind in ("str", str)
            for name, kind in type(message).__annotations__.items()
            if name != "digest"
        )
    assert "str" not in map(str, VolumeGeometry.__annotations__.values())
