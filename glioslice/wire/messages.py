"""The messages of a session. Each is one frozen dataclass with one byte layout.

Once the link is open, the board sends BoardHello and the host replies with HostHello, its choice of
mode and codecs. To serve, the host sends Start and every Slice, and the board replies to each with
a Mask, within an Empty, or with an Error. To play, the board sends Start with the VolumeGeometry
and every mask. Either way the board ends the run with End; when serving, another Start may follow.
During a run a board that has a thermometer sends its Temperature now and then.

Numbers are little-endian and packed without gaps; the first byte is the type. Only numbers about a
volume cross: no message has a field for a text, date, identifier or path of a scan.
"""

import hashlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Protocol, get_args

import numpy as np

from glioslice.labels import SCHEMES, LabelScheme
from glioslice.nifti import Space
from glioslice.preprocessing import Crop
from glioslice.wire.hello import VERSION, WIRE_MODALITIES, BoardHello, HostHello, Mode
from glioslice.wire.layout import (
    MAX_SIDE,
    MessageError,
    VersionError,
    read_varint,
    refusal,
    require,
    unpack_fields,
    varint,
)

__all__ = [
    "UNKNOWN",
    "VERSION",
    "WIRE_MODALITIES",
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
    "Temperature",
    "VersionError",
    "VolumeGeometry",
    "parse",
    "receive",
    "send",
]

MAX_FORM = 5
"""The highest code that NIfTI gives a qform or sform."""

ABSENT_SHIFT = 4
"""The lowest bit of Start's flags that names an absent channel."""

ALL_ABSENT = (1 << len(WIRE_MODALITIES)) - 1
"""The bits of all channels: a run needs one of them."""

MAX_TEXT = 120
"""Bytes of an error's text."""

UNKNOWN = 255
"""The quality of a mask whose confidence the board does not know."""

MAX_TIME, MAX_TIME_BYTES = 0xFFFFFFFF, 5
"""Microseconds, over an hour, and the bytes that they take."""

SliceStats = tuple[int, int, int]
"""A slice's index, the board's microseconds, and the quality of its mask."""


def read_time(data: bytes, start: int, name: str) -> tuple[int, int]:
    """Return the microseconds at `start` and the position after them; raises MessageError."""
    found = read_varint(data, start, MAX_TIME_BYTES)
    if found is None or found[0] > MAX_TIME:
        raise refusal(f"{name} with a time that is cut or over {MAX_TIME} us")
    return found


@dataclass(frozen=True)
class VolumeGeometry:
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
        place = (*self.shape, *self.origin, *self.z, *self.spacing)
        return self.LAYOUT.pack(*place, *self.affine, self.scheme, *self.forms)

    @classmethod
    def from_bytes(cls, data: bytes) -> "VolumeGeometry":
        """Return the volume in `data`; raises MessageError."""
        fields = unpack_fields(cls.LAYOUT, data, "Volume")
        x, y, z, *origin, first, stop = fields[:7]
        spacing, affine = fields[7:10], fields[10:22]
        require(all(1 <= side <= MAX_SIDE for side in (x, y, z)), f"a volume of {x} x {y} x {z}")
        require(first < stop <= z, f"slices {first} to {stop} of a volume with {z}")
        require(all(0 < step < math.inf for step in spacing), f"a spacing of {spacing} mm")
        require(all(math.isfinite(value) for value in affine), "an affine that is not finite")
        require(max(fields[23:]) <= MAX_FORM, f"the form codes {fields[23:]}")
        return cls(
            shape=(x, y, z),
            origin=(origin[0], origin[1]),
            z=(first, stop),
            spacing=(spacing[0], spacing[1], spacing[2]),
            affine=affine,
            scheme=fields[22],
            forms=(fields[23], fields[24]),
        )


def geometry_of(space: Space, scheme: LabelScheme, crop: Crop) -> VolumeGeometry:
    """Return where the masks of a case belong; spacing and affine are those of its files."""
    affine = space.affine
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).tolist()
    return VolumeGeometry(
        shape=crop.shape,
        origin=crop.origin,
        z=crop.z,
        spacing=(x, y, z),
        affine=tuple(affine[:3].ravel().tolist()),
        scheme=1 + SCHEMES.index(scheme),
        forms=space.forms,
    )


@dataclass(frozen=True)
class Mask:
    """One mask, the microseconds that the board spent on it, and its confidence.

    0  u8      type 5
    1  u8      mask codec
    2  u16     index in the run, from 0
    4  u8      quality: 0 to 254 the confidence, 255 not known
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
        """Return the message as bytes."""
        head = self.LAYOUT.pack(self.TYPE, self.codec, self.index, self.quality)
        return head + varint(self.device_us) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> "Mask":
        """Return the message in `data`; raises MessageError."""
        require(len(data) > cls.LAYOUT.size, f"a Mask of {len(data)} bytes")
        _, codec, index, quality = cls.LAYOUT.unpack_from(data)
        time, at = read_time(data, cls.LAYOUT.size, "a Mask")
        return cls(index, codec, time, data[at:], quality)

    def per_slice(self) -> Iterable[SliceStats]:
        """Return the result of its slice."""
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
        """Return the message as bytes."""
        each = zip(self.quality, self.device_us, strict=True)
        results = b"".join(bytes([quality]) + varint(time) for quality, time in each)
        return self.LAYOUT.pack(self.TYPE, self.index) + results

    @classmethod
    def from_bytes(cls, data: bytes) -> "Empty":
        """Return the message in `data`; raises MessageError."""
        require(len(data) > cls.LAYOUT.size, f"an Empty of {len(data)} bytes")
        _, index = cls.LAYOUT.unpack_from(data)
        times, qualities = list[int](), list[int]()
        at = cls.LAYOUT.size
        while at < len(data):
            qualities.append(data[at])
            time, at = read_time(data, at + 1, "an Empty")
            times.append(time)
        require(index + len(times) <= MAX_SIDE, f"empty masks from {index} to beyond {MAX_SIDE}")
        return cls(index, tuple(times), tuple(qualities))

    def per_slice(self) -> Iterable[SliceStats]:
        """Return the result of each slice."""
        return zip(range(self.index, self.stop), self.device_us, self.quality, strict=True)

    @property
    def stop(self) -> int:
        """The index after the last."""
        return self.index + len(self.device_us)

    def joined_with(self, other: "Empty") -> "Empty | None":
        """Return one message for the slices of both; None unless `other` follows on it."""
        if other.index != self.stop:
            return None
        return Empty(self.index, self.device_us + other.device_us, self.quality + other.quality)


class MaskDigest:
    """SHA-256 over all masks of a run, in order of their index, whatever order they were added in.

    Of each: the index as u32 little-endian, then the SHA-256 of its labels, one byte a pixel,
    (X, Y) with Y running fastest.
    """

    def __init__(self) -> None:
        self._masks: dict[int, bytes] = {}

    def add(self, index: int, labels: bytes) -> None:
        """Add the mask of a slice; the same index again replaces it."""
        self._masks[index] = hashlib.sha256(labels).digest()

    def hexdigest(self) -> str:
        """Return the digest of what has been added, as End carries it."""
        total = hashlib.sha256()
        for index in sorted(self._masks):
            total.update(index.to_bytes(4, "little") + self._masks[index])
        return total.hexdigest()


class ErrorCode(IntEnum):
    """What went wrong at the far end."""

    SLICE = 1
    """The slice of this index could not be decoded or has another shape; the stream goes on."""
    ENGINE = 2
    """The network failed on the slice of this index; the stream goes on."""
    REFUSED = 3
    """The request is not offered: the mode, a codec, or a message out of turn."""
    INPUT = 4
    """The volume on the board cannot be read; the run ends."""
    STOPPED = 5
    """The far end is shutting down; the run ends."""


@dataclass(frozen=True)
class Start:
    """Opens a run of `slices` slices; a playing board adds the volume. 14 or 139 bytes.

    The bits of `absent`, from bit 0 on, are the channels of BoardHello whose modality the case
    lacks. The network sees the zero point there, and the images of the run leave them out.

    0  u8   type 3
    1  u8   flags: bit 0 a volume follows, bits 4 to 7 `absent`
    2  u16  slices
    4  u16  first: the host has the masks of those before it already
    6  u64  key, by which the board remembers the run if the host is lost; 0: it does not
    14      VolumeGeometry
    """

    TYPE: ClassVar[int] = 3
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBHHQ")

    slices: int
    volume: VolumeGeometry | None = None
    first: int = 0
    key: int = 0
    absent: int = 0

    def to_bytes(self) -> bytes:
        """Return the message as bytes."""
        flags = (self.volume is not None) | self.absent << ABSENT_SHIFT
        head = self.LAYOUT.pack(self.TYPE, flags, self.slices, self.first, self.key)
        return head + (self.volume.to_bytes() if self.volume else b"")

    @classmethod
    def from_bytes(cls, data: bytes) -> "Start":
        """Return the message in `data`; raises MessageError."""
        size = cls.LAYOUT.size
        _, flags, slices, first, key = unpack_fields(cls.LAYOUT, data[:size], "Start")
        follows, absent = flags & (1 << ABSENT_SHIFT) - 1, flags >> ABSENT_SHIFT
        require(
            follows <= 1 and (follows == 1 or len(data) == size), f"a Start of {len(data)} bytes"
        )
        require(absent < ALL_ABSENT, "a run without any modality")
        require(1 <= slices <= MAX_SIDE, f"a run of {slices} slices")
        require(first < slices, f"a run of {slices} slices from {first}")
        volume = VolumeGeometry.from_bytes(data[size:]) if follows else None
        require(
            volume is None or volume.z[1] - volume.z[0] == slices,
            f"a run of {slices} slices with a volume of another number",
        )
        return cls(slices, volume, first, key, absent)


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
        """Return the message as bytes."""
        return self.LAYOUT.pack(self.TYPE, self.codec, self.index) + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> "Slice":
        """Return the message in `data`; raises MessageError."""
        require(len(data) >= cls.LAYOUT.size, f"a Slice of {len(data)} bytes")
        _, codec, index = cls.LAYOUT.unpack_from(data)
        return cls(index, codec, data[4:])


@dataclass(frozen=True)
class End:
    """Ends a run and sums it up. 45 bytes.

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
        """Return the message as bytes."""
        digest = bytes.fromhex(self.digest)
        return self.LAYOUT.pack(self.TYPE, self.masks, self.failed, self.device_us, digest)

    @classmethod
    def from_bytes(cls, data: bytes) -> "End":
        """Return the message in `data`; raises MessageError."""
        _, masks, failed, device_us, _ = unpack_fields(cls.LAYOUT, data, "End")
        return cls(masks, failed, device_us, data[13:].hex())


@dataclass(frozen=True)
class Error:
    """A failure at the far end, of one slice or (index -1) of the run.

    0  u8   type 7
    1  u8   code, see ErrorCode
    2  i32  index of the slice, or -1
    6       text, printable ASCII of 0 to 120 bytes, a constant of the program: never an
            exception's own text, which may hold a path
    """

    TYPE: ClassVar[int] = 7
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<BBi")

    code: ErrorCode
    index: int
    text: str

    def to_bytes(self) -> bytes:
        """Return the message as bytes; the text is cut to its maximum."""
        text = self.text.encode("ascii", "replace")[:MAX_TEXT]
        return self.LAYOUT.pack(self.TYPE, self.code, self.index) + text

    @classmethod
    def from_bytes(cls, data: bytes) -> "Error":
        """Return the message in `data`; raises MessageError."""
        _, code, index = unpack_fields(cls.LAYOUT, data[:6], "Error")
        text = data[6:]
        require(code in list(ErrorCode), f"the unknown error {code}")
        require(-1 <= index < MAX_SIDE, f"an error of slice {index}")
        require(len(text) <= MAX_TEXT, f"an error text of {len(text)} bytes")
        require(all(0x20 <= byte < 0x7F for byte in text), "an error text that cannot be printed")
        return cls(ErrorCode(code), index, text.decode("ascii"))


@dataclass(frozen=True)
class Temperature:
    """How warm the board's processor is.

    0  u8   type 9
    1  i16  tenths of a degree Celsius, -1000 to 2000
    """

    TYPE: ClassVar[int] = 9
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<Bh")

    tenths: int

    @property
    def celsius(self) -> float:
        """The temperature in degrees."""
        return self.tenths / 10

    def to_bytes(self) -> bytes:
        """Return the message as bytes."""
        return self.LAYOUT.pack(self.TYPE, self.tenths)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Temperature":
        """Return the message in `data`; raises MessageError."""
        _, tenths = unpack_fields(cls.LAYOUT, data, "Temperature")
        require(-1000 <= tenths <= 2000, f"a temperature of {tenths / 10:.0f} degrees")
        return cls(tenths)


Message = BoardHello | HostHello | Start | Slice | Mask | Empty | End | Error | Temperature
TYPES: dict[int, type[Message]] = {kind.TYPE: kind for kind in get_args(Message)}


def parse(data: bytes) -> Message:
    """Return the message in `data`; raises MessageError, and nothing else, for other bytes."""
    if not data:
        raise refusal("an empty message")
    kind = TYPES.get(data[0])
    if kind is None:
        raise MessageError(
            f"the far end sent a message of the unknown type {data[0]}; it may be of a newer "
            "version: install the same glioslice on both ends"
        )
    return kind.from_bytes(data)


class Stream(Protocol):
    """The part of a connection that the functions below need."""

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
