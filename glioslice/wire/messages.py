"""Where the masks of a playing board belong.

What a board sends of slices that went well: one with its mask, or several that hold no tumour.

Both say of each slice how sure the board is of its mask and how long it took.

One number over all masks of a run.

What the two ends say to each other. Each message is one frozen dataclass and one byte layout.

A session, once the link is open: the board says BoardHello, the host answers HostHello with its
choice of mode and codecs. To serve, the host sends Start and every Slice, and the board answers
each with a Mask, within an Empty, or with an Error. To play, the board sends Start with the Volume
and every mask. Either way the board ends the run with End; serving, another Start may follow.

Numbers are little-endian and packed without gaps; the first byte is the type. What crosses is
numbers about a volume: no text, date, identifier or path of a scan has a field here.
"""

import hashlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Protocol

import numpy as np

from glioslice.labels import SCHEMES, LabelScheme
from glioslice.nifti import Space
from glioslice.preprocessing import Crop
from glioslice.wire.hello import MODALITIES, VERSION, BoardHello, HostHello, Mode
from glioslice.wire.layout import (
    MAX_SIDE,
    MessageError,
    VersionError,
    check,
    read_varint,
    unpack,
    varint,
)

MAX_FORM = 5
"""The highest code that NIfTI gives a qform or sform."""


@dataclass(frozen=True)
class Volume:
    """Where a playing board's masks belong: 125 bytes within Start.

    0   u16 x 3   shape X, Y, Z in LPS order (glioslice.preprocessing.Crop.shape)
    6   i16 x 2   origin of the window in X, Y; it may lie outside
    10  u16 x 2   first slice, and the one after the last
    14  f32 x 3   spacing of the source's axes in mm
    26  f64 x 12  the first three rows of the source's affine: voxel to RAS+ mm
    122 u8        label scheme of the source: 0 not known, else 1 + its place in labels.SCHEMES
    123 u8 x 2    NIfTI's codes of the source's qform and sform, 0 to 5
    """

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<3H2h2H3f12d3B")

    shape: tuple[int, int, int]
    origin: tuple[int, int]
    z: tuple[int, int]
    spacing: tuple[float, float, float]
    affine: tuple[float, ...]
    scheme: int
    forms: tuple[int, int]

    def to_bytes(self) -> bytes:
        """Return the volume's part of Start."""
        parts = (
            *self.shape,
            *self.origin,
            *self.z,
            *self.spacing,
            *self.affine,
            self.scheme,
            *self.forms,
        )
        return self.LAYOUT.pack(*parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Volume":
        """Return the volume in `data`; raises MessageError."""
        fields = unpack(cls.LAYOUT, data, "Volume")
        x, y, z, *origin, first, stop = fields[:7]
        spacing, affine = fields[7:10], fields[10:22]
        check(all(1 <= side <= MAX_SIDE for side in (x, y, z)), f"a volume of {x} x {y} x {z}")
        check(first < stop <= z, f"slices {first} to {stop} of a volume with {z}")
        check(all(0 < step < math.inf for step in spacing), f"a spacing of {spacing} mm")
        check(all(math.isfinite(value) for value in affine), "an affine that is not finite")
        check(max(fields[23:]) <= MAX_FORM, f"the form codes {fields[23:]}")
        return cls(
            shape=(x, y, z),
            origin=(origin[0], origin[1]),
            z=(first, stop),
            spacing=(spacing[0], spacing[1], spacing[2]),
            affine=affine,
            scheme=fields[22],
            forms=(fields[23], fields[24]),
        )


def volume_of(space: Space, scheme: LabelScheme, crop: Crop) -> Volume:
    """Return where the masks of a case belong; spacing and affine are those of its files."""
    affine = space.affine
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist()
    return Volume(
        shape=crop.shape,
        origin=crop.origin,
        z=crop.z,
        spacing=(x, y, z),
        affine=tuple(affine[:3].ravel().tolist()),
        scheme=1 + SCHEMES.index(scheme),
        forms=space.forms,
    )


UNKNOWN = 255
"""The quality of a mask of which the board does not know how sure it is."""

MAX_TIME = 0xFFFFFFFF
"""Microseconds, over an hour."""

Told = tuple[int, int, int]
"""A slice's index, microseconds and quality."""


@dataclass(frozen=True)
class Mask:
    """One mask, the microseconds that the board spent on it, and how sure it is.

    0  u8      type 5
    1  u8      mask codec
    2  u16     index in the run, from 0
    4  u8      quality: 0 to 254 how sure, 255 not known
    5  varint  microseconds from the slice's bytes to the mask's
    .          payload, see codecs
    """

    TYPE: ClassVar[int] = 5
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBHB")

    index: int
    codec: int
    device_us: int
    payload: bytes
    quality: int = UNKNOWN

    def to_bytes(self) -> bytes:
        """Return the message as it crosses the line."""
        head = self.LAYOUT.pack(self.TYPE, self.codec, self.index, self.quality)
        return head + varint(self.device_us) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> "Mask":
        """Return the message in `data`; raises MessageError."""
        check(len(data) > cls.LAYOUT.size, f"a Mask of {len(data)} bytes")
        _, codec, index, quality = cls.LAYOUT.unpack_from(data)
        microseconds, end = read_varint(data, cls.LAYOUT.size, MAX_TIME, "a Mask")
        return cls(index, codec, microseconds, data[end:], quality)

    def each(self) -> Iterable[Told]:
        """Return what it says of its slice."""
        return ((self.index, self.device_us, self.quality),)


@dataclass(frozen=True)
class Empty:
    """Masks without a labelled pixel, of slices that follow each other.

    0  u8   type 8
    1  u16  index of the first
    3       for each of them: u8 quality, varint microseconds, as in Mask
    """

    TYPE: ClassVar[int] = 8
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BH")

    index: int
    device_us: tuple[int, ...]
    quality: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """Return the message as it crosses the line."""
        each = zip(self.quality, self.device_us, strict=True)
        said = b"".join(bytes([quality]) + varint(time) for quality, time in each)
        return self.LAYOUT.pack(self.TYPE, self.index) + said

    @classmethod
    def from_bytes(cls, data: bytes) -> "Empty":
        """Return the message in `data`; raises MessageError."""
        check(len(data) > cls.LAYOUT.size, f"an Empty of {len(data)} bytes")
        _, index = cls.LAYOUT.unpack_from(data)
        times: list[int] = []
        qualities: list[int] = []
        at = cls.LAYOUT.size
        while at < len(data):
            qualities.append(data[at])
            time, at = read_varint(data, at + 1, MAX_TIME, "an Empty")
            times.append(time)
            check(index + len(times) <= MAX_SIDE, f"empty masks from {index} to beyond {MAX_SIDE}")
        return cls(index, tuple(times), tuple(qualities))

    def each(self) -> Iterable[Told]:
        """Return what it says of each slice."""
        return zip(range(self.index, self.stop), self.device_us, self.quality, strict=True)

    @property
    def stop(self) -> int:
        """The index after the last."""
        return self.index + len(self.device_us)

    def plus(self, other: "Empty") -> "Empty | None":
        """Return one message for the slices of both; None unless `other` follows on this."""
        if other.index != self.stop:
            return None
        return Empty(self.index, self.device_us + other.device_us, self.quality + other.quality)


class MaskDigest:
    """SHA-256 over all masks of a run, in order of their index, whatever order they came in.

    Of each: the index as u32 little-endian, then the SHA-256 of its labels, one byte a pixel,
    (X, Y) with Y running fastest.
    """

    def __init__(self) -> None:
        self._masks: dict[int, bytes] = {}

    def add(self, index: int, labels: bytes) -> None:
        """Take in the mask of a slice; the same index again replaces it."""
        self._masks[index] = hashlib.sha256(labels).digest()

    def hexdigest(self) -> str:
        """Return the digest of what has been added, as End carries it."""
        total = hashlib.sha256()
        for index in sorted(self._masks):
            total.update(index.to_bytes(4, "little") + self._masks[index])
        return total.hexdigest()


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
