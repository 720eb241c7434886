"""What the two ends of a link exchange: six packets, each the body of one frame.

The first byte is the kind, plus 0x80 from the active end (the host), so that an end knows the echo
of its own bytes. Numbers are little-endian; u24 is three bytes. Offsets count the bytes of a
direction's stream from 0 and are sent modulo 2^24.

    OPEN   u8 kind 1 | u8 version | u32 own session | u32 peer's session, 0 = not known
           | u16 largest payload it takes | u16 window, bytes it takes beyond those in order
           | u16 baud rates: bit n is RATES[n], 0 = it keeps the one it has
    DATA   u8 kind 2 | u16 tag | u24 offset of the first byte | u24 acknowledged | 1..1024 payload
    ACK    u8 kind 3 | u16 tag | u24 acknowledged | u24 edge, first byte it does not take
           | n x (u16 gap, u16 run), n <= 32
    CLOSE  u8 kind 4 | u16 tag
    RATE   u8 kind 5 | u16 tag | u8 step: 1 propose, 2 accept | u32 baud rate
           | u16 milliseconds that a trial lasts
    PROBE  u8 kind 6 | u16 tag | u8 number | 32 bytes of any value

The tag is the exclusive or of the low halves of both sessions: packets of an earlier session, or
for another peer, do not carry it. `acknowledged` is the next byte expected. In ACK each pair names
bytes that are missing (gap) and bytes beyond them that arrived (run): the gaps are what is asked
for again. Fewer than 32 pairs name everything that has arrived; 32 may be cut short.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from glioslice.errors import GliosliceError
from glioslice.wire.transport import RATES

VERSION = 2
FROM_ACTIVE = 0x80
OPEN, DATA, ACK, CLOSE, RATE, PROBE = 1, 2, 3, 4, 5, 6
MIN_PAYLOAD, MAX_PAYLOAD = 64, 1024
MODULUS = 1 << 24
MAX_WINDOW = 65535
"""Bytes; far below half of `MODULUS`, so that an offset is never ambiguous."""
MAX_PAIRS = 32
PROPOSE, ACCEPT = 1, 2
PATTERN = 32
"""Bytes that a PROBE carries."""

DATA_HEADER = 9
OPEN_LAYOUT = struct.Struct("<BBIIHHH")
RATE_LAYOUT = struct.Struct("<BHBIH")
PAIR = struct.Struct("<HH")


class LinkError(GliosliceError):
    """The link cannot go on; the message says why."""


class PacketError(GliosliceError):
    """Bytes that arrived as a good frame but are no packet of this version."""


@dataclass(frozen=True)
class Open:
    """Asks for a session, or answers such a packet. Another version keeps the first two bytes."""

    session: int
    peer: int
    payload: int
    window: int
    rates: int = 0
    version: int = VERSION


@dataclass(frozen=True)
class Data:
    """A piece of the stream."""

    tag: int
    offset: int
    acknowledged: int
    payload: bytes


@dataclass(frozen=True)
class Ack:
    """What has arrived, what is missing, and how far the peer may send; also the keep-alive."""

    tag: int
    acknowledged: int
    edge: int
    pairs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Close:
    """The session ends here."""

    tag: int


@dataclass(frozen=True)
class Rate:
    """A step on the way to another baud rate: PROPOSE from the active end, ACCEPT as its answer."""

    tag: int
    step: int
    rate: int
    trial: int


@dataclass(frozen=True)
class Probe:
    """A piece of the test pattern, or the answer to the one of the same number."""

    tag: int
    number: int
    pattern: bytes


Packet = Open | Data | Ack | Close | Rate | Probe


def u24(value: int) -> bytes:
    """Return `value` modulo 2^24 as three bytes."""
    return (value % MODULUS).to_bytes(3, "little")


def expand(wire: int, near: int) -> int:
    """Return the offset whose low 24 bits are `wire` and which lies nearest to `near`."""
    ahead = (wire - near) % MODULUS
    return near + (ahead if ahead < MODULUS // 2 else ahead - MODULUS)


def to_bytes(packet: Packet, active: bool) -> bytes:
    """Return `packet` as the body of a frame, sent by the active or by the passive end."""
    origin = FROM_ACTIVE if active else 0
    match packet:
        case Open(session, peer, payload, window, rates, version):
            return OPEN_LAYOUT.pack(OPEN | origin, version, session, peer, payload, window, rates)
        case Data(tag, offset, acknowledged, payload):
            head = bytes([DATA | origin]) + tag.to_bytes(2, "little")
            return head + u24(offset) + u24(acknowledged) + payload
        case Ack(tag, acknowledged, edge, pairs):
            head = bytes([ACK | origin]) + tag.to_bytes(2, "little")
            listed = b"".join(PAIR.pack(*pair) for pair in pairs)
            return head + u24(acknowledged) + u24(edge) + listed
        case Close(tag):
            return bytes([CLOSE | origin]) + tag.to_bytes(2, "little")
        case Rate(tag, step, rate, trial):
            return RATE_LAYOUT.pack(RATE | origin, tag, step, rate, trial)
        case Probe(tag, number, pattern):
            return bytes([PROBE | origin]) + tag.to_bytes(2, "little") + bytes([number]) + pattern


def from_bytes(body: bytes) -> tuple[Packet, bool]:
    """Return the packet in `body` and whether the active end sent it; raises PacketError."""
    if not body:
        raise PacketError("an empty packet")
    kind, active = body[0] & ~FROM_ACTIVE, bool(body[0] & FROM_ACTIVE)
    if kind not in PARSERS:
        raise PacketError(f"a packet of the unknown kind {kind}")
    return PARSERS[kind](body), active


def number(body: bytes, start: int, size: int) -> int:
    """Return the unsigned number of `size` bytes at `start`."""
    return int.from_bytes(body[start : start + size], "little")


def open_from(body: bytes) -> Open:
    """Return the OPEN in `body`. Of another version only the version is read."""
    if len(body) < 2:
        raise PacketError(f"OPEN of {len(body)} bytes")
    if body[1] != VERSION:
        return Open(0, 0, 0, 0, version=body[1])
    if len(body) != OPEN_LAYOUT.size:
        raise PacketError(f"OPEN of {len(body)} bytes")
    _, version, session, peer, payload, window, rates = OPEN_LAYOUT.unpack(body)
    if not MIN_PAYLOAD <= payload <= MAX_PAYLOAD or window < payload or not session:
        raise PacketError(f"OPEN of session {session}, payload {payload}, window {window}")
    return Open(session, peer, payload, window, rates, version)


def data_from(body: bytes) -> Data:
    """Return the DATA in `body`."""
    if not DATA_HEADER < len(body) <= DATA_HEADER + MAX_PAYLOAD:
        raise PacketError(f"DATA of {len(body)} bytes")
    return Data(number(body, 1, 2), number(body, 3, 3), number(body, 6, 3), body[DATA_HEADER:])


def ack_from(body: bytes) -> Ack:
    """Return the ACK in `body`."""
    count, rest = divmod(len(body) - 9, PAIR.size)
    if rest or not 0 <= count <= MAX_PAIRS:
        raise PacketError(f"ACK of {len(body)} bytes")
    pairs = tuple(PAIR.iter_unpack(body[9:]))
    return Ack(number(body, 1, 2), number(body, 3, 3), number(body, 6, 3), pairs)


def close_from(body: bytes) -> Close:
    """Return the CLOSE in `body`."""
    if len(body) != 3:
        raise PacketError(f"CLOSE of {len(body)} bytes")
    return Close(number(body, 1, 2))


def rate_from(body: bytes) -> Rate:
    """Return the RATE in `body`."""
    if len(body) != RATE_LAYOUT.size:
        raise PacketError(f"RATE of {len(body)} bytes")
    _, tag, step, rate, trial = RATE_LAYOUT.unpack(body)
    if step not in (PROPOSE, ACCEPT) or rate not in RATES:
        raise PacketError(f"RATE of step {step}, {rate} baud")
    return Rate(tag, step, rate, trial)


def probe_from(body: bytes) -> Probe:
    """Return the PROBE in `body`."""
    if len(body) != 4 + PATTERN:
        raise PacketError(f"PROBE of {len(body)} bytes")
    return Probe(number(body, 1, 2), body[3], body[4:])


PARSERS: dict[int, Callable[[bytes], Packet]] = {
    OPEN: open_from,
    DATA: data_from,
    ACK: ack_from,
    CLOSE: close_from,
    RATE: rate_from,
    PROBE: probe_from,
}
