"""Lay out the nodes of a flatbuffer in as few bytes as their alignments allow.

    0  u32 offset of the root table     4  file identifier, 4 bytes     8  the nodes

    table   i32 distance back to its vtable, then its fields, widest first
    vtable  u16 its own size, u16 the table's size, u16 offset of each field by slot (0: absent)
    vector  u32 number of elements, then the elements, aligned

A reference is an unsigned distance, so its target lies further back. Constants lie at multiples of
16 bytes; small vectors fill the gaps before them, which would otherwise be padding.
"""

import struct
from dataclasses import dataclass

from convert.tflite.deduplication import Node, Ref, Table, Vector

HEADER = 8


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
