"""The six packets of a link: bytes there and back, and nothing else but PacketError."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glioslice.wire import packets
from glioslice.wire.framing import MAX_BODY
from glioslice.wire.packets import (
    PATTERN,
    Ack,
    Close,
    Data,
    Open,
    Packet,
    PacketError,
    Probe,
    Rate,
    expand,
)
from glioslice.wire.transport import RATES

u16, u24, u32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFF), st.integers(0, 0xFFFFFFFF)
any_packet: st.SearchStrategy[Packet] = st.one_of(
    st.builds(
        Open, st.integers(1, 0xFFFFFFFF), u32, st.integers(64, 1024), st.integers(1024, 65535), u16
    ),
    st.builds(Data, u16, u24, u24, st.binary(min_size=1, max_size=1024)),
    st.builds(Ack, u16, u24, u24, st.lists(st.tuples(u16, u16), max_size=32).map(tuple)),
    st.builds(Close, u16),
    st.builds(Rate, u16, st.integers(1, 2), st.sampled_from(RATES), u16),
    st.builds(Probe, u16, st.integers(0, 255), st.binary(min_size=PATTERN, max_size=PATTERN)),
)


@given(any_packet, st.booleans())
def test_a_packet_comes_back(packet: Packet, active: bool) -> None:
    body = packets.to_bytes(packet, active)
    assert len(body) <= MAX_BODY
    assert packets.from_bytes(body) == (packet, active)


def test_known_packets() -> None:
    hexes: dict[Packet, str] = {
        Open(0x11223344, 0, 512, 32768, 0x1FF): "8102443322110000000000020080ff01",
        Rate(0xBEEF, 1, 921600, 300): "85efbe0100100e002c01",
        Probe(0xBEEF, 7, bytes(PATTERN)): "86efbe07" + "00" * PATTERN,
        Data(0xBEEF, 0x010203, 5, b"abc"): "82efbe030201050000616263",
        Ack(0xBEEF, 7, 0x8007, ((512, 1024),)): "83efbe07000007800000020004",
        Close(0xBEEF): "84efbe",
    }
    for packet, expected in hexes.items():
        assert packets.to_bytes(packet, active=True).hex() == expected


@given(st.binary(max_size=1200))
def test_arbitrary_bytes_raise_packet_error_alone(body: bytes) -> None:
    with contextlib.suppress(PacketError):
        packets.from_bytes(body)


@given(st.sampled_from([1, 2, 3, 4, 5, 6]), st.booleans(), st.binary(max_size=200))
def test_bytes_of_a_known_kind_raise_packet_error_alone(
    kind: int, active: bool, rest: bytes
) -> None:
    with contextlib.suppress(PacketError):
        packet, origin = packets.from_bytes(bytes([kind | active << 7]) + rest)
        assert origin is active
        assert packets.to_bytes(packet, active)[:2] == (bytes([kind | active << 7]) + rest)[:2]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "empty"),
        (b"\x07abc", "unknown kind 7"),
        (b"\x01", "OPEN of 1"),
        (b"\x01\x02short", "OPEN of 7"),
        (b"\x05abc", "RATE of 4"),
        (packets.to_bytes(Rate(0, 3, 115200, 300), True), "RATE of step 3"),
        (packets.to_bytes(Rate(0, 1, 12345, 300), True), "12345 baud"),
        (packets.to_bytes(Probe(0, 0, bytes(31)), True), "PROBE of 35"),
        (packets.to_bytes(Open(0, 0, 512, 4096), True), "session 0"),
        (packets.to_bytes(Open(1, 0, 63, 4096), True), "payload 63"),
        (packets.to_bytes(Open(1, 0, 1025, 4096), True), "payload 1025"),
        (packets.to_bytes(Open(1, 0, 512, 511), True), "window 511"),
        (packets.to_bytes(Data(0, 0, 0, b""), True), "DATA of 9"),
        (packets.to_bytes(Data(0, 0, 0, bytes(1025)), True), "DATA of 1034"),
        (b"\x03" + bytes(9), "ACK of 10"),
        (packets.to_bytes(Ack(0, 0, 0, ((1, 1),) * 33), True), "ACK of 141"),
        (b"\x04\0", "CLOSE of 2"),
    ],
)
def test_what_is_no_packet_is_refused(body: bytes, what: str) -> None:
    with pytest.raises(PacketError, match=what):
        packets.from_bytes(body)


def test_of_another_version_only_the_version_is_read() -> None:
    packet, active = packets.from_bytes(b"\x81\x07whatever a later version adds")
    assert isinstance(packet, Open)
    assert (packet.version, active) == (7, True)


@given(st.integers(0, 1 << 40), st.integers(-(1 << 22), 1 << 22))
def test_an_offset_is_found_again_past_the_wrap(near: int, ahead: int) -> None:
    offset = max(0, near + ahead)
    assert expand(offset % packets.MODULUS, near) == offset


@given(st.integers(0, 0xFFFFFFFE))
def test_a_drawn_session_holds_no_byte_that_links_alter(drawn: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secrets.randbelow", lambda bound: drawn)
        session = packets.random_session()
    assert 0 < session <= 0xFFFFFFFF
    assert not {*session.to_bytes(4, "little")} & {*packets.ALTERED}
    assert (session ^ (drawn + 1)) & 0xFEFEFEFE == 0
