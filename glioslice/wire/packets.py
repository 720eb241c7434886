"""The six packets that the two ends of a link exchange, each the body of one frame.

The first byte is the kind, plus 0x80 from the active end (the host), so that an end recognises the
echo of its own bytes. Numbers are little-endian; u24 is three bytes. Offsets count the bytes of a
direction's stream from 0 and are sent modulo 2^24.

    OPEN   u8 kind 1 | u8 version | u32 own session | u32 peer's session, 0 = not known
           | u16 largest payload accepted | u16 window, bytes accepted beyond those in order
           | u16 baud rates: bit n is RATES[n], 0 = the rate is fixed
    DATA   u8 kind 2 | u16 tag | u24 offset of the first byte | u24 acknowledged | 1..1024 payload
    ACK    u8 kind 3 | u16 tag | u24 acknowledged | u24 edge, first byte not accepted
           | n x (u16 gap, u16 run), n <= 32
    CLOSE  u8 kind 4 | u16 tag
    RATE   u8 kind 5 | u16 tag | u8 step: 1 propose, 2 accept | u32 baud rate
           | u16 length of a trial in milliseconds
    PROBE  u8 kind 6 | u16 tag | u8 number | 32 bytes of any value

The tag is the exclusive or of the low halves of both sessions: packets of an earlier session, or
for another peer, do not carry it. `acknowledged` is the next byte expected. In ACK each pair names
bytes that are missing (gap) and bytes beyond them that arrived (run): a selective acknowledgement,
whose gaps are to be retransmitted. Fewer than 32 pairs name everything that has arrived; 32 may be
cut short.
"""

import secrets
import struct
from dataclasses import dataclass

from glioslice.errors import GliosliceError
from glioslice.wire.transport import RATES

VERSION = 2
FROM_ACTIVE = 0x80
OPEN, DATA, ACK, CLOSE, RATE, PROBE = 1, 2, 3, 4, 5, 6
NAMES = {OPEN: "OPEN", DATA: "DATA", ACK: "ACK", CLOSE: "CLOSE", RATE: "RATE", PROBE: "PROBE"}
MIN_PAYLOAD, MAX_PAYLOAD = 64, 1024
MODULUS = 1 << 24
MAX_WINDOW = 65535
"""Bytes; far below half of `MODULUS`, so that an offset is never ambiguous."""
MAX_PAIRS = 32
PROPOSE, ACCEPT = 1, 2

ALTERED = (0x11, 0x13, 0xFF, 0x0D, 0x0A, 0x15, 0x17, 0x1A, 0x1C, 0x7F)
"""Values that links eat, double or translate: flow control, telnet, line ends, terminals."""


def random_session() -> int:
    """Return a session number without `ALTERED` values.

    An OPEN therefore crosses a link that alters them, which the doctor can tell from a wrong rate.
    """
    drawn = (secrets.randbelow(0xFFFFFFFF) + 1).to_bytes(4, "little")
    return int.from_bytes((byte ^ 1 if byte in ALTERED else byte for byte in drawn), "little")


PATTERN = 32
"""Bytes that a PROBE carries."""

DATA_HEADER = 9
U24 = 0xFFFFFF
OPEN_LAYOUT = struct.Struct("<BBIIHHH")
RATE_LAYOUT = struct.Struct("<BHBIH")
TAGGED = struct.Struct("<BH")
PAIR = struct.Struct("<HH")
MAX_ACK = 9 + MAX_PAIRS * PAIR.size


class LinkError(GliosliceError):
    """The link cannot go on; the message gives the reason."""


class PacketError(GliosliceError):
    """Bytes that arrived as a good frame but are not a packet of this version."""


@dataclass(frozen=True)
class Open:
    """Requests a session, or replies to such a request. Every version keeps the first two bytes."""

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
    """A step to another baud rate: PROPOSE from the active end, ACCEPT from the passive one."""

    tag: int
    step: int
    rate: int
    trial: int


@dataclass(frozen=True)
class Probe:
    """A piece of the test pattern, or the reply to the one with the same number."""

    tag: int
    number: int
    pattern: bytes


Packet = Open | Data | Ack | Close | Rate | Probe


def expand(wire: int, near: int) -> int:
    """Return the offset whose low 24 bits are `wire` and which is nearest to `near`."""
    ahead = (wire - near) % MODULUS
    return near + (ahead if ahead < MODULUS // 2 else ahead - MODULUS)


def to_bytes(packet: Packet, active: bool) -> bytes:
    """Return `packet` as the body of a frame, sent by the active or by the passive end."""
    origin = FROM_ACTIVE if active else 0
    match packet:
        case Open(session, peer, payload, window, rates, version):
            return OPEN_LAYOUT.pack(OPEN | origin, version, session, peer, payload, window, rates)
        case Data(tag, offset, acknowledged, payload):
            offsets = offset % MODULUS | (acknowledged % MODULUS) << 24
            return TAGGED.pack(DATA | origin, tag) + offsets.to_bytes(6, "little") + payload
        case Ack(tag, acknowledged, edge, pairs):
            offsets = acknowledged % MODULUS | (edge % MODULUS) << 24
            listed = b"".join(PAIR.pack(*pair) for pair in pairs)
            return TAGGED.pack(ACK | origin, tag) + offsets.to_bytes(6, "little") + listed
        case Close(tag):
            return TAGGED.pack(CLOSE | origin, tag)
        case Rate(tag, step, rate, trial):
            return RATE_LAYOUT.pack(RATE | origin, tag, step, rate, trial)
        case Probe(tag, number, pattern):
            return TAGGED.pack(PROBE | origin, tag) + bytes([number]) + pattern


def from_bytes(body: bytes) -> tuple[Packet, bool]:
    """Return the packet in `body` and whether the active end sent it; raises PacketError."""
    if not body:
        raise PacketError("an empty packet")
    kind, active, size = body[0] & ~FROM_ACTIVE, bool(body[0] & FROM_ACTIVE), len(body)
    if kind == OPEN:
        return open_from_bytes(body), active
    if kind not in NAMES:
        raise PacketError(f"a packet of the unknown kind {kind}")
    tag = int.from_bytes(body[1:3], "little")
    offsets = int.from_bytes(body[3:9], "little")  # two u24
    if kind == DATA and DATA_HEADER < size <= DATA_HEADER + MAX_PAYLOAD:
        return Data(tag, offsets & U24, offsets >> 24, body[DATA_HEADER:]), active
    if kind == ACK and size >= 9 and (size - 9) % PAIR.size == 0 and size <= MAX_ACK:
        pairs = tuple(PAIR.iter_unpack(body[9:]))
        return Ack(tag, offsets & U24, offsets >> 24, pairs), active
    if kind == CLOSE and size == TAGGED.size:
        return Close(tag), active
    if kind == RATE and size == RATE_LAYOUT.size:
        _, _, step, rate, trial = RATE_LAYOUT.unpack(body)
        if step not in (PROPOSE, ACCEPT) or rate not in RATES:
            raise PacketError(f"RATE of step {step}, {rate} baud")
        return Rate(tag, step, rate, trial), active
    if kind == PROBE and size == 4 + PATTERN:
        return Probe(tag, body[3], body[4:]), active
    raise PacketError(f"{NAMES[kind]} of {size} bytes")


def open_from_bytes(body: bytes) -> Open:
    """Return the OPEN in `body`. Of another version only the version is read."""
    if len(body) >= 2 and body[1] != VERSION:
        return Open(0, 0, 0, 0, version=body[1])
    if len(body) != OPEN_LAYOUT.size:
        raise PacketError(f"OPEN of {len(body)} bytes")
    _, version, session, peer, payload, window, rates = OPEN_LAYOUT.unpack(body)
    if not MIN_PAYLOAD <= payload <= MAX_PAYLOAD or window < payload or not session:
        raise PacketError(f"OPEN of session {session}, payload {payload}, window {window}")
    return Open(session, peer, payload, window, rates, version)


def describe_packet(packet: Packet) -> str:
    """Return a packet's kind and fields for logs and dumps."""
    match packet:
        case Open(session, peer, payload, window, rates, version):
            known = f" to {peer:08x}" if peer else ""
            return (
                f"OPEN {session:08x}{known}, version {version}, payload {payload}, window "
                f"{window}, {rates.bit_count()} rates"
            )
        case Data(_, offset, acknowledged, payload):
            return f"DATA offset {offset}, {len(payload)} bytes, acknowledges {acknowledged}"
        case Ack(_, acknowledged, edge, pairs):
            missing = sum(gap for gap, _ in pairs)
            gaps = f", {missing} bytes missing in {len(pairs)} gaps" if pairs else ""
            return f"ACK acknowledges {acknowledged}, edge {edge}{gaps}"
        case Close():
            return "CLOSE"
        case Rate(_, step, rate, _):
            return f"RATE {'propose' if step == PROPOSE else 'accept'} {rate} baud"
        case Probe(_, number, _):
            return f"PROBE {number}"
