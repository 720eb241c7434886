"""Write a TFLite file in as few bytes as its alignments allow.

The classes that flatc generates write themselves through a `flatbuffers.Builder`.
`DeduplicatingBuilder` takes its place and keeps tables and vectors as nodes instead of bytes. Two
of the same content become one node, which a flatbuffer may refer to any number of times.
`build_flatbuffer` lays the nodes out:

    0  u32 offset of the root table     4  file identifier, 4 bytes     8  the nodes

    table   i32 distance back to its vtable, then its fields, widest first
    vtable  u16 its own size, u16 the table's size, u16 offset of each field by slot (0: absent)
    vector  u32 number of elements, then the elements, aligned

A reference is an unsigned distance, so its target lies further back. Constants lie at multiples of
16 bytes; small vectors fill the gaps before them, which would otherwise be padding.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.tflite.reader import IDENTIFIER

CONSTANT_ALIGNMENT = 16
"""Bytes; the TFLite schema's `force_align` of a buffer's data, which kernels read in place."""

HEADER = 8


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


@dataclass(frozen=True)
class _Piece:
    """A part to place: `start + lead` must be a multiple of `alignment`."""

    key: Node | bytes
    size: int
    alignment: int
    lead: int

    def padding(self, position: int) -> int:
        return -(position + self.lead) % self.alignment


def _width(content: bytes | Ref) -> int:
    return 4 if isinstance(content, Ref) else len(content)


def _offsets(table: Table) -> dict[int, int]:
    """Return where each slot's field lies in the table, after the 4 bytes of its vtable."""
    offsets, end = {}, 4
    for slot, content in sorted(table.fields, key=lambda f: (-_width(f[1]), f[0])):
        offsets[slot] = end
        end += _width(content)
    return offsets


def _table_size(table: Table) -> int:
    return 4 + sum(_width(content) for _, content in table.fields)


def _vtable(table: Table) -> bytes:
    offsets = _offsets(table)
    slots = range(max(offsets, default=-1) + 1)
    entries = [offsets.get(slot, 0) for slot in slots]
    return struct.pack(f"<{2 + len(entries)}H", 4 + 2 * len(entries), _table_size(table), *entries)


def _piece(node: Node) -> _Piece:
    if isinstance(node, Table):
        widest = max((_width(content) for _, content in node.fields), default=4)
        return _Piece(node, _table_size(node), max(widest, 4), 4)
    size = len(node.content) if isinstance(node.content, bytes) else 4 * len(node.content)
    return _Piece(node, 4 + size, max(node.alignment, 4), 4)


def _refers(node: Node) -> bool:
    if isinstance(node, Table):
        return any(isinstance(content, Ref) for _, content in node.fields)
    return not isinstance(node.content, bytes)


def _assign_positions(nodes: list[Node]) -> tuple[dict[Node | bytes, int], int]:
    """Return the position of every node and vtable, and the end of the last."""
    positions: dict[Node | bytes, int] = {}
    position = HEADER

    def put(piece: _Piece) -> None:
        nonlocal position
        position += piece.padding(position)
        positions[piece.key] = position
        position += piece.size

    for node in reversed(
        nodes
    ):  # the target of a reference has the lower number, so it comes later
        if _refers(node):
            put(_piece(node))
    vtables = dict.fromkeys(_vtable(node) for node in nodes if isinstance(node, Table))
    waiting = [_piece(node) for node in nodes if not _refers(node)]
    waiting += [_Piece(vtable, len(vtable), 2, 0) for vtable in vtables]
    waiting.sort(key=lambda piece: (-piece.alignment, -piece.size))
    while waiting:
        # The least padding; among equals the hardest to place, since `waiting` is sorted by that.
        best = min(range(len(waiting)), key=lambda i: waiting[i].padding(position))
        put(waiting.pop(best))
    return positions, position


def build_flatbuffer(nodes: list[Node], root: Ref, identifier: bytes) -> bytes:
    """Return the flatbuffer whose root is `nodes[root - 1]`; nodes refer only to lower numbers."""
    positions, end = _assign_positions(nodes)
    out = bytearray(end)

    def refer(position: int, ref: Ref) -> None:
        struct.pack_into("<I", out, position, positions[nodes[ref - 1]] - position)

    refer(0, root)
    out[4:HEADER] = identifier
    for vtable in (key for key in positions if isinstance(key, bytes)):
        out[positions[vtable] : positions[vtable] + len(vtable)] = vtable
    for node in nodes:
        start = positions[node]
        if isinstance(node, Table):
            struct.pack_into("<i", out, start, start - positions[_vtable(node)])
            offsets = _offsets(node)
            fields = [(start + offsets[slot], content) for slot, content in node.fields]
        else:
            struct.pack_into("<I", out, start, node.length)
            fields = _elements(node, start + 4)
        for position, content in fields:
            if isinstance(content, Ref):
                refer(position, content)
            else:
                out[position : position + len(content)] = content
    return bytes(out)


def _elements(vector: Vector, start: int) -> list[tuple[int, bytes | Ref]]:
    if isinstance(vector.content, bytes):
        return [(start, vector.content)]
    return [(start + 4 * index, ref) for index, ref in enumerate(vector.content)]


def serialize(model: Any) -> bytes:
    """Return a `ModelT` as a TFLite file."""
    builder = DeduplicatingBuilder()
    return build_flatbuffer(builder.nodes, model.Pack(builder), IDENTIFIER)
