"""Tables and vectors of a flatbuffer, read with bounds: whatever is damaged raises GliosliceError.

The format (https://flatbuffers.dev/internals) is little-endian throughout:

    root     uint32 offset of the first table, then four bytes that mark the kind of file
    table    int32 back to its vtable, then the fields that are set
    vtable   uint16 its own bytes, uint16 the table's, a uint16 per field: where in the table, or 0
    vector   uint32 count, then the elements; of tables, a uint32 offset to each

Offsets count from where they stand.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError


@dataclass(frozen=True)
class Table:
    """A table of a file's `content`, at `place`; fields go by their number in the schema."""

    content: bytes
    place: int

    def value(self, field: int, code: str, default: int = 0) -> int:
        """Return a number of the type that struct's `code` says."""
        place = self._find(field)
        return _number(self.content, code, place) if place else default

    def table(self, field: int) -> "Table | None":
        """Return the table that a field points at, None if the field is left out."""
        place = self._find(field)
        return Table(self.content, place + _number(self.content, "I", place)) if place else None

    def vector(self, field: int, dtype: str) -> NDArray[Any]:
        """Return a vector of numbers, empty if the field is left out."""
        count, start = self._span(field, np.dtype(dtype).itemsize)
        return np.frombuffer(self.content, dtype, count, start)

    def tables(self, field: int) -> list["Table"]:
        """Return a vector of tables, empty if the field is left out."""
        count, start = self._span(field, 4)
        places = range(start, start + 4 * count, 4)
        return [Table(self.content, place + _number(self.content, "I", place)) for place in places]

    def _find(self, field: int) -> int:
        """Return where a field lies, 0 if it is left out."""
        vtable = self.place - _number(self.content, "i", self.place)
        slot = 4 + 2 * field
        if slot + 2 > _number(self.content, "H", vtable):
            return 0  # written before the schema had this field
        offset = _number(self.content, "H", vtable + slot)
        return self.place + offset if offset else 0

    def _span(self, field: int, size: int) -> tuple[int, int]:
        """Return how many elements of `size` bytes a vector has, and where they begin."""
        place = self._find(field)
        if not place:
            return 0, 0
        start = place + _number(self.content, "I", place)
        count = _number(self.content, "I", start)
        check(start + 4 + count * size <= len(self.content), "a vector reaches past the end")
        return count, start + 4


def root(content: bytes) -> Table:
    """Return the first table of a file."""
    return Table(content, _number(content, "I", 0))


def check(holds: bool, what: str) -> None:
    """Raise GliosliceError with `what` unless it holds."""
    if not holds:
        raise GliosliceError(f"this TFLite file is damaged ({what}); copy or convert it again")


def _number(content: bytes, code: str, place: int) -> int:
    number = struct.Struct("<" + code)
    check(0 <= place <= len(content) - number.size, "an offset points out of the file")
    return int(number.unpack_from(content, place)[0])
