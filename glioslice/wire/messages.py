"""What the two ends say to each other. Each message is one frozen dataclass and one byte layout.

A session, once the link is open: the board says BoardHello, the host answers HostHello with its
choice of mode and codecs. To serve, the host sends Start and every Slice, and the board answers
each with a Mask, within an Empty, or with an Error. To play, the board sends Start with the Volume
and every mask. Either way the board ends the run with End; serving, another Start may follow.

Numbers are little-endian and packed without gaps; the first byte is the type. What crosses is
numbers about a volume: no text, date, identifier or path of a scan has a field here.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Protocol

from glioslice.wire.digest import MaskDigest
from glioslice.wire.hello import MODALITIES, VERSION, BoardHello, HostHello, Mode
from glioslice.wire.layout import MAX_SIDE, MessageError, VersionError, check, unpack
from glioslice.wire.masks import UNKNOWN, Empty, Mask
from glioslice.wire.volume import Volume

__all__ = [
    "MODALITIES",
    "UNKNOWN",
    "VERSION",
    "BoardHello",
    "Empty",
    "End",
    "Error",
    "ErrorCode",
    "HostHello",
    "Mask",
    "MaskDigest",
    "Message",
    "MessageError",
    "Mode",
    "Slice",
    "Start",
    "VersionError",
    "Volume",
    "parse",
    "receive",
    "send",
]

MAX_TEXT = 120


class ErrorCode(IntEnum):
    """What went wrong at the far end."""

    SLICE = 1
    """The slice of this index could not be decoded or has another shape; the stream goes on."""
    ENGINE = 2
    """The network failed on the slice of this index; the stream goes on."""
    REFUSED = 3
    """What was asked for is not offered: the mode, a codec, a message out of turn."""
    INPUT = 4
    """The volume on the board cannot be read; the run ends."""
    STOPPED = 5
    """The far end was told to stop; the run ends."""


@dataclass(frozen=True)
class Start:
    """Opens a run of `slices` slices; a playing board adds the volume. 14 or 139 bytes.

    0  u8   type 3
    1  u8   1 if a volume follows, else 0
    2  u16  slices
    4  u16  first: those before it are not wanted, their masks are here already
    6  u64  key, by which the board remembers the run if the host is lost; 0: it need not
    14      Volume
    """

    TYPE: ClassVar[int] = 3
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBHHQ")

    slices: int
    volume: Volume | None = None
    first: int = 0
    key: int = 0

    def to_bytes(self) -> bytes:
        """Return the message as it crosses the line."""
        follows = self.volume is not None
        head = self.LAYOUT.pack(self.TYPE, follows, self.slices, self.first, self.key)
        return head + (self.volume.to_bytes() if self.volume else b"")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Start":
        """Return the message in `data`; raises MessageError."""
        size = cls.LAYOUT.size
        _, follows, slices, first, key = unpack(cls.LAYOUT, data[:size], "Start")
        check(follows <= 1 and (follows == 1 or len(data) == size), f"a Start of {len(data)} bytes")
        check(1 <= slices <= MAX_SIDE, f"a run of {slices} slices")
        check(first < slices, f"a run of {slices} slices from {first}")
        volume = Volume.from_bytes(data[size:]) if follows else None
        check(
            volume is None or volume.z[1] - volume.z[0] == slices,
            f"a run of {slices} slices with a volume of another number",
        )
        return cls(slices, volume, first, key)


@dataclass(frozen=True)
class Slice:
    """One slice as the network sees it.

    0  u8   type 4
    1  u8   image codec
    2  u16  index in the run, from 0
    4       payload, see codecs
    """

    TYPE: ClassVar[int] = 4
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBH")

    index: int
    codec: int
    payload: bytes

    def to_bytes(self) -> bytes:
        """Return the message as it crosses the line."""
        return self.LAYOUT.pack(self.TYPE, self.codec, self.index) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> "Slice":
        """Return the message in `data`; raises MessageError."""
        _, codec, index = unpack(cls.LAYOUT, data[:4], "Slice")
        return cls(index, codec, data[4:])


@dataclass(frozen=True)
class End:
    """Closes a run, with what it held. 45 bytes.

    0   u8       type 6
    1   u16      masks sent
    3   u16      slices that failed
    5   u64      microseconds of the board, all masks together
    13  u8 x 32  digest of all masks (MaskDigest)
    """

    TYPE: ClassVar[int] = 6
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BHHQ32s")

    masks: int
    failed: int
    device_us: int
    digest: str

    def to_bytes(self) -> bytes:
        """Return the message as it crosses the line."""
        digest = bytes.fromhex(self.digest)
        return self.LAYOUT.pack(self.TYPE, self.masks, self.failed, self.device_us, digest)

    @classmethod
    def from_bytes(cls, data: bytes) -> "End":
        """Return the message in `data`; raises MessageError."""
        _, masks, failed, device_us, _ = unpack(cls.LAYOUT, data, "End")
        return cls(masks, failed, device_us, data[13:].hex())


@dataclass(frozen=True)
class Error:
    """Something went wrong at the far end, with one slice or (index -1) with the run.

    0  u8   type 7
    1  u8   code, see ErrorCode
    2  i32  index of the slice, or -1
    6       text, printable ASCII of 0 to 120 bytes, written by us: never an exception's own text,
            which may hold a path
    """

    TYPE: ClassVar[int] = 7
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBi")

    code: ErrorCode
    index: int
    text: str

    def to_bytes(self) -> bytes:
        """Return the message as it crosses the line; the text is cut to its bound."""
        text = self.text.encode("ascii", "replace")[:MAX_TEXT]
        return self.LAYOUT.pack(self.TYPE, self.code, self.index) + text

    @classmethod
    def from_bytes(cls, data: bytes) -> "Error":
        """Return the message in `data`; raises MessageError."""
        _, code, index = unpack(cls.LAYOUT, data[:6], "Error")
        text = data[6:]
        check(code in list(ErrorCode), f"the unknown error {code}")
        check(-1 <= index < MAX_SIDE, f"an error of slice {index}")
        check(len(text) <= MAX_TEXT, f"an error text of {len(text)} bytes")
        check(all(0x20 <= byte < 0x7F for byte in text), "an error text that cannot be printed")
        return cls(ErrorCode(code), index, text.decode("ascii"))


Message = BoardHello | HostHello | Start | Slice | Mask | Empty | End | Error
TYPES: dict[int, type[Message]] = {
    kind.TYPE: kind for kind in (BoardHello, HostHello, Start, Slice, Mask, Empty, End, Error)
}


def parse(data: bytes) -> Message:
    """Return the message in `data`; raises MessageError, and nothing else, for what is none."""
    check(bool(data), "an empty message")
    kind = TYPES.get(data[0])
    if kind is None:
        raise MessageError(
            f"the far end sent a message of the unknown type {data[0]}; it may be of a newer "
            "version: install the same glioslice on both ends"
        )
    return kind.from_bytes(data)


class Stream(Protocol):
    """What the functions below need of a connection."""

    def send(self, message: bytes) -> None:
        """Queue a message."""

    def receive(self, timeout: float | None = None) -> bytes | None:
        """Return the next message, None if none came in time."""


def send(stream: Stream, message: Message) -> None:
    """Send a message over a connection; raises what its `send` raises."""
    stream.send(message.to_bytes())


def receive(stream: Stream, timeout: float | None = None) -> Message | None:
    """Return the next message, None if none came within `timeout` seconds.

    Raises what the connection's `receive` raises, and MessageError.
    """
    data = stream.receive(timeout)
    return None if data is None else parse(data)
