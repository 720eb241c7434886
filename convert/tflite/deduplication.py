"""Record a flatbuffer as a graph in which equal parts are one node.

The classes that flatc generates write themselves through a `flatbuffers.Builder`.
`DeduplicatingBuilder` takes its place and keeps tables and vectors as nodes instead of bytes. Two
of the same content become one node, which a flatbuffer may refer to any number of times.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONSTANT_ALIGNMENT = 16
"""Bytes; the TFLite schema's `force_align` of a buffer's data, which kernels read in place."""


class Ref(int):
    """A node's number, from 1 on; in generated code 0 means "absent"."""


@dataclass(frozen=True)
class Table:
    """Slot number and content of each field that differs from its default, by slot."""

    fields: tuple[tuple[int, bytes | Ref], ...]


@dataclass(frozen=True)
class Vector:
    """`length` elements as bytes (a string: with its final NUL) or as references to other nodes."""

    length: int
    alignment: int
    content: bytes | tuple[Ref, ...]


Node = Table | Vector


def _slot(layout: str) -> Callable[["DeduplicatingBuilder", int, float, float], None]:
    def prepend(self: "DeduplicatingBuilder", slot: int, value: float, default: float) -> None:
        if value != default:
            self._fields.append((slot, struct.pack(layout, value)))

    return prepend


def _element(layout: str) -> Callable[["DeduplicatingBuilder", float], None]:
    def prepend(self: "DeduplicatingBuilder", value: float) -> None:
        self._elements.append(struct.pack(layout, value))

    return prepend


class DeduplicatingBuilder:
    """Stands in for `flatbuffers.Builder`, with the methods that TFLite's generated code calls.

    `nodes[ref - 1]` is the node of a reference; the nodes that it refers to have lower numbers.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._known: dict[Node, Ref] = {}
        self._fields: list[tuple[int, bytes | Ref]] = []
        self._elements: list[bytes | Ref] = []
        self._length = 0
        self._alignment = 1

    def _ref(self, node: Node) -> Ref:
        if node not in self._known:
            self.nodes.append(node)
            self._known[node] = Ref(len(self.nodes))
        return self._known[node]

    def StartObject(self, numfields: int) -> None:
        """Begin a table."""
        self._fields = []

    def PrependUOffsetTRelativeSlot(self, slot: int, ref: int, default: int) -> None:
        """Make the table's field refer to a node."""
        if ref != default:
            self._fields.append((slot, Ref(ref)))

    def EndObject(self) -> Ref:
        """Return the table."""
        return self._ref(Table(tuple(sorted(self._fields, key=lambda field: field[0]))))

    def StartVector(self, size: int, length: int, alignment: int) -> None:
        """Begin a vector; its elements come last first."""
        self._elements, self._length, self._alignment = [], length, alignment

    def PrependUOffsetTRelative(self, ref: int) -> None:
        """Put a reference before the vector's elements so far."""
        self._elements.append(Ref(ref))

    def EndVector(self) -> Ref:
        """Return the vector."""
        elements = self._elements[::-1]
        refs = tuple(e for e in elements if isinstance(e, Ref))
        numbers = b"".join(e for e in elements if isinstance(e, bytes))
        return self._ref(Vector(self._length, self._alignment, refs or numbers))

    def CreateNumpyVector(self, values: NDArray[np.generic]) -> Ref:
        """Return a vector of numbers; bytes are aligned like constants, which does no harm."""
        constant = values.dtype == np.uint8
        content = values.astype(values.dtype.newbyteorder("<")).tobytes()
        alignment = CONSTANT_ALIGNMENT if constant else values.dtype.itemsize
        return self._ref(Vector(values.size, alignment, content))

    def CreateString(self, text: str | bytes) -> Ref:
        """Return a string."""
        raw = text.encode() if isinstance(text, str) else text
        return self._ref(Vector(len(raw), 1, raw + b"\0"))

    PrependBoolSlot = _slot("<?")
    PrependInt8Slot = _slot("<b")
    PrependUint8Slot = _slot("<B")
    PrependInt32Slot = _slot("<i")
    PrependUint32Slot = _slot("<I")
    PrependInt64Slot = _slot("<q")
    PrependUint64Slot = _slot("<Q")
    PrependFloat32Slot = _slot("<f")
    PrependBool = _element("<?")
    PrependUint8 = _element("<B")
    PrependUint16 = _element("<H")
    PrependInt32 = _element("<i")
    PrependUint32 = _element("<I")
    PrependInt64 = _element("<q")
    PrependFloat32 = _element("<f")
