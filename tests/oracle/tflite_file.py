"""Tables and vectors of a flatbuffer, read with bounds: whatever is damaged raises GliosliceError.

The format (https://flatbuffers.dev/internals) is little-endian throughout:

    root     uint32 offset of the first table, then four bytes that mark the kind of file
    table    int32 back to its vtable, then the fields that are set
    vtable   uint16 its own bytes, uint16 the table's, a uint16 per field: where in the table, or 0
    vector   uint32 count, then the elements; of tables, a uint32 offset to each

Offsets count from where they stand.

An int8 TFLite file as frozen dataclasses, read with numpy alone: not every runtime has a schema.

Field numbers, types and defaults are those of TFLite's schema.fbs, version 3.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
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


MARK = b"TFL3"
INT8: np.dtype[Any] = np.dtype("<i1")
INT32: np.dtype[Any] = np.dtype("<i4")
TYPES = {9: INT8, 2: INT32}

MAX_ELEMENTS = 1 << 24
"""Of a tensor; the shipped files have 245,760. Bounds what a damaged shape makes one allocate."""

OPS = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    14: "LOGISTIC",
    17: "MAX_POOL_2D",
    18: "MUL",
    19: "RELU",
    21: "RELU6",
    22: "RESHAPE",
    23: "RESIZE_BILINEAR",
    32: "CUSTOM",
    34: "PAD",
    39: "TRANSPOSE",
    45: "STRIDED_SLICE",
    67: "TRANSPOSE_CONV",
    97: "RESIZE_NEAREST_NEIGHBOR",
    98: "LEAKY_RELU",
    114: "QUANTIZE",
    117: "HARD_SWISH",
}
"""The schema's operators that a network of images is likely to hold."""

_POOL = ("padding", "stride_w", "stride_h", "filter_w", "filter_h", "activation")
_DILATED = ("activation", "dilation_w", "dilation_h")
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "ADD": ("activation",),
    "AVERAGE_POOL_2D": _POOL,
    "CONCATENATION": ("axis", "activation"),
    "CONV_2D": ("padding", "stride_w", "stride_h", *_DILATED),
    "DEPTHWISE_CONV_2D": ("padding", "stride_w", "stride_h", "depth_multiplier", *_DILATED),
    "MAX_POOL_2D": _POOL,
    "RESIZE_BILINEAR": ("new_height", "new_width", "align_corners", "half_pixel_centers"),
    "RESIZE_NEAREST_NEIGHBOR": ("align_corners", "half_pixel_centers"),
}
"""The options of an op in the order of their fields, for those ops that have any."""

ONE_BYTE = frozenset({"padding", "activation", "align_corners", "half_pixel_centers"})
"""Options of one byte; the others are int32. What is left out is 0, a dilation 1."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor; an integer q in it stands for `scales` (q - `zero_points`), where it has any.

    There are as many as channels in a filter, else one. `data` is None unless it is a constant.
    """

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    data: NDArray[Any] | None

    @property
    def scale(self) -> float:
        """The scale, where one holds for the whole tensor."""
        return float(self.scales[0])

    @property
    def zero_point(self) -> int:
        """The zero point, where one holds for the whole tensor."""
        return int(self.zero_points[0])


@dataclass(frozen=True, eq=False)
class Op:
    """An op, the tensors that it reads (optional last ones left out) and the one that it writes."""

    index: int
    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    options: Mapping[str, int]

    def __str__(self) -> str:
        """Return how errors name it."""
        return f"op {self.index}, {self.name}"


@dataclass(frozen=True, eq=False)
class Graph:
    """A network of one input and one output, its ops in an order in which they can run."""

    tensors: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    input: Tensor
    output: Tensor


def read_graph(content: bytes) -> Graph:
    """Return the network in a TFLite file.

    Raises GliosliceError if it is no TFLite file or a damaged one, has more than one graph, input
    or output, a tensor that is neither int8 nor int32, or an op with more than one output.
    """
    if content[4:8] != MARK:
        raise GliosliceError("this is no TFLite file: it does not bear the mark TFL3")
    model = root(content)
    buffers, graphs = model.tables(4), model.tables(2)
    if len(graphs) != 1:
        raise GliosliceError(f"this TFLite file holds {len(graphs)} graphs, one was expected")
    tensors = tuple(_tensor(i, table, buffers) for i, table in enumerate(graphs[0].tables(0)))
    names = [_name(code) for code in model.tables(1)]
    ops = tuple(_op(i, table, names, tensors) for i, table in enumerate(graphs[0].tables(3)))
    given = _only("input", graphs[0].vector(1, "<i4"), tensors)
    wanted = _only("output", graphs[0].vector(2, "<i4"), tensors)
    graph = Graph(tensors, ops, given, wanted)
    _check_order(graph)
    return graph


def _name(code: Table) -> str:
    """Return an op's name; the first field is the older one, of a byte, 127 for what is above."""
    number = max(code.value(0, "b"), code.value(3, "i"))
    return OPS.get(number, f"number {number} of the schema")


def _tensor(index: int, table: Table, buffers: list[Table]) -> Tensor:
    shape: tuple[int, ...] = tuple(table.vector(0, "<i4").tolist())
    check(all(n > 0 for n in shape) and prod(shape) <= MAX_ELEMENTS, f"a tensor is of {shape}")
    number, buffer = table.value(1, "b"), table.value(2, "I")
    if number not in TYPES:
        raise GliosliceError(
            f"tensor {index} is of the schema's type {number}, neither int8 nor int32; only int8 "
            "files are computed in integers"
        )
    dtype, data = TYPES[number], None
    check(buffer < len(buffers), f"tensor {index} has the buffer {buffer}")
    check(buffers[buffer].value(1, "Q") <= 1, "constants lie behind the flatbuffer")
    constant = buffers[buffer].vector(0, "<u1")
    if constant.size:
        check(constant.size == prod(shape) * dtype.itemsize, f"tensor {index} is not of its size")
        data = constant.view(dtype).reshape(shape)
    scales, zero_points = np.zeros(0, np.float32), np.zeros(0, np.int64)
    quantisation = table.table(4)
    if quantisation is not None:
        scales, zero_points = quantisation.vector(2, "<f4"), quantisation.vector(3, "<i8")
    sane = np.isfinite(scales).all() and (scales > 0).all()
    sane = sane and ((zero_points >= -128) & (zero_points < 128)).all()
    check(bool(sane) and scales.size == zero_points.size, f"tensor {index} has no sane scale")
    return Tensor(index, shape, dtype, scales, zero_points, data)


def _op(index: int, table: Table, names: list[str], tensors: tuple[Tensor, ...]) -> Op:
    code, given = table.value(0, "I"), table.table(4)
    check(code < len(names), f"op {index} has the code {code}")
    read: list[int] = table.vector(1, "<i4").tolist()
    written: list[int] = table.vector(2, "<i4").tolist()
    while read and read[-1] == -1:
        read.pop()
    if len(written) != 1 or -1 in read:
        raise GliosliceError(
            f"op {index}, {names[code]}, leaves out an input or has {len(written)} outputs; "
            "none that this kit emits does"
        )
    valid = all(0 <= number < len(tensors) for number in (*read, *written))
    check(valid, f"op {index} reads or writes what is no tensor")
    options = {}
    for field, option in enumerate(OPTIONS.get(names[code], ())):
        default = 1 if option.startswith("dilation") else 0
        kind = "b" if option in ONE_BYTE else "i"
        options[option] = default if given is None else given.value(field, kind, default)
    inputs = tuple(tensors[number] for number in read)
    return Op(index, names[code], inputs, tensors[written[0]], MappingProxyType(options))


def _only(name: str, numbers: NDArray[np.int32], tensors: tuple[Tensor, ...]) -> Tensor:
    if len(numbers) != 1:
        raise GliosliceError(f"this TFLite file has {len(numbers)} {name}s, one was expected")
    check(0 <= numbers[0] < len(tensors), f"the {name} is no tensor")
    return tensors[int(numbers[0])]


def _check_order(graph: Graph) -> None:
    """Check that ops read what is there by then, and that each tensor is written once."""
    known = {tensor.index for tensor in graph.tensors if tensor.data is not None}
    check(graph.input.index not in known, "the input is a constant")
    known.add(graph.input.index)
    for op in graph.ops:
        check({t.index for t in op.inputs} <= known, f"{op}, reads what nothing has written")
        check(op.output.index not in known, f"{op}, writes what is there already")
        known.add(op.output.index)
    check(graph.output.index in known and graph.output.data is None, "nothing writes the output")
