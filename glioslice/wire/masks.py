"""What a board sends of slices that went well: one with its mask, or several that hold no tumour.

Both say of each slice how sure the board is of its mask and how long it took.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from glioslice.wire.layout import MAX_SIDE, check, read_varint
from glioslice.wire.varint import varint

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
