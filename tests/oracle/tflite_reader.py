"""An int8 TFLite file as frozen dataclasses, read with numpy alone.

Not every runtime has a schema to read it with. A TFLite file is a flatbuffer
(https://flatbuffers.dev/internals), little-endian throughout:

    root     uint32 offset of the first table, then the four bytes of the file identifier
    table    int32 offset back to its vtable, then the fields that are set
    vtable   uint16 its own size, uint16 the table's, then per field a uint16 offset, or 0
    vector   uint32 count, then the elements; of tables, a uint32 offset to each

Offsets are relative to their own position. Every read is checked against the file's size: a
damaged file raises GliosliceError. Field numbers, types and defaults are those of TFLite's
schema.fbs, version 3.
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
class FlatbufferTable:
    """A table at `place` of a file's `content`; fields have their number in the schema."""

    content: bytes
    place: int

    def value(self, field: int, code: str, default: int = 0) -> int:
        """Return a number; `code` is its type as in `struct`."""
        place = self._find(field)
        return _number(self.content, code, place) if place else default

    def table(self, field: int) -> "FlatbufferTable | None":
        """Return the table of a field, None if the field is not set."""
        place = self._find(field)
        return (
            FlatbufferTable(self.content, place + _number(self.content, "I", place))
            if place
            else None
        )

    def vector(self, field: int, dtype: str) -> NDArray[Any]:
        """Return a vector of numbers, empty if the field is not set."""
        count, start = self._span(field, np.dtype(dtype).itemsize)
        return np.frombuffer(self.content, dtype, count, start)

    def tables(self, field: int) -> list["FlatbufferTable"]:
        """Return a vector of tables, empty if the field is not set."""
        count, start = self._span(field, 4)
        places = range(start, start + 4 * count, 4)
        return [
            FlatbufferTable(self.content, place + _number(self.content, "I", place))
            for place in places
        ]

    def _find(self, field: int) -> int:
        """Return the position of a field, 0 if it is not set."""
        vtable = self.place - _number(self.content, "i", self.place)
        slot = 4 + 2 * field
        if slot + 2 > _number(self.content, "H", vtable):
            return 0  # the file is older than this field of the schema
        offset = _number(self.content, "H", vtable + slot)
        return self.place + offset if offset else 0

    def _span(self, field: int, size: int) -> tuple[int, int]:
        """Return the number of elements of `size` bytes of a vector, and where they start."""
        place = self._find(field)
        if not place:
            return 0, 0
        start = place + _number(self.content, "I", place)
        count = _number(self.content, "I", start)
        check(start + 4 + count * size <= len(self.content), "a vector reaches past the end")
        return count, start + 4


def root(content: bytes) -> FlatbufferTable:
    """Return the first table of a file."""
    return FlatbufferTable(content, _number(content, "I", 0))


def check(condition: bool, problem: str) -> None:
    """Raise GliosliceError with `problem` unless the condition holds."""
    if not condition:
        raise GliosliceError(f"this TFLite file is damaged ({problem}); copy or convert it again")


def _number(content: bytes, code: str, place: int) -> int:
    number = struct.Struct("<" + code)
    check(0 <= place <= len(content) - number.size, "an offset points out of the file")
    return int(number.unpack_from(content, place)[0])


MARK = b"TFL3"
INT8: np.dtype[Any] = np.dtype("<i1")
INT32: np.dtype[Any] = np.dtype("<i4")
TYPES = {9: INT8, 2: INT32}

MAX_ELEMENTS = 1 << 24
"""Elements of a tensor; the shipped files have 245,760. Bounds the memory for a damaged shape."""

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
"""The schema's operators that image networks usually have."""

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
"""The options of each op in the order of their fields."""

ONE_BYTE = frozenset({"padding", "activation", "align_corners", "half_pixel_centers"})
"""Options of one byte; the others are int32. The default is 0, for a dilation 1."""


@dataclass(frozen=True, eq=False)
class OracleTensor:
    """A tensor; its integers q mean `scales` (q - `zero_points`), if it is quantized.

    A filter may have one scale per channel, other tensors have one. `data` is None unless the
    tensor is a constant.
    """

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.int64]
    data: NDArray[Any] | None

    @property
    def scale(self) -> float:
        """The scale of the whole tensor."""
        return float(self.scales[0])

    @property
    def zero_point(self) -> int:
        """The zero point of the whole tensor."""
        return int(self.zero_points[0])


@dataclass(frozen=True, eq=False)
class OracleOp:
    """An op with its input tensors (without omitted optional ones) and its output tensor."""

    index: int
    name: str
    inputs: tuple[OracleTensor, ...]
    output: OracleTensor
    options: Mapping[str, int]

    def __str__(self) -> str:
        """Return the name of the op in error messages."""
        return f"op {self.index}, {self.name}"


@dataclass(frozen=True, eq=False)
class OracleGraph:
    """A network with one input and one output, its ops in execution order."""

    tensors: tuple[OracleTensor, ...]
    ops: tuple[OracleOp, ...]
    input: OracleTensor
    output: OracleTensor


def read_graph(content: bytes) -> OracleGraph:
    """Return the network in a TFLite file.

    Raises GliosliceError if it is not a TFLite file or is damaged, has more than one graph, input
    or output, a tensor that is neither int8 nor int32, or an op with more than one output.
    """
    if content[4:8] != MARK:
        raise GliosliceError("this is not a TFLite file: it lacks the identifier TFL3")
    model = root(content)
    buffers, graphs = model.tables(4), model.tables(2)
    if len(graphs) != 1:
        raise GliosliceError(f"this TFLite file holds {len(graphs)} graphs, one was expected")
    tensors = tuple(_tensor(i, table, buffers) for i, table in enumerate(graphs[0].tables(0)))
    names = [_name(code) for code in model.tables(1)]
    ops = tuple(_op(i, table, names, tensors) for i, table in enumerate(graphs[0].tables(3)))
    given = _only("input", graphs[0].vector(1, "<i4"), tensors)
    wanted = _only("output", graphs[0].vector(2, "<i4"), tensors)
    graph = OracleGraph(tensors, ops, given, wanted)
    _check_order(graph)
    return graph


def _name(code: FlatbufferTable) -> str:
    """Return an op's name; the first field is the older one, of a byte, 127 for what is above."""
    number = max(code.value(0, "b"), code.value(3, "i"))
    return OPS.get(number, f"number {number} of the schema")


def _tensor(index: int, table: FlatbufferTable, buffers: list[FlatbufferTable]) -> OracleTensor:
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
    quantization = table.table(4)
    if quantization is not None:
        scales, zero_points = quantization.vector(2, "<f4"), quantization.vector(3, "<i8")
    sane = np.isfinite(scales).all() and (scales > 0).all()
    sane = sane and ((zero_points >= -128) & (zero_points < 128)).all()
    check(bool(sane) and scales.size == zero_points.size, f"tensor {index} has no sane scale")
    return OracleTensor(index, shape, dtype, scales, zero_points, data)


def _op(
    index: int, table: FlatbufferTable, names: list[str], tensors: tuple[OracleTensor, ...]
) -> OracleOp:
    code, given = table.value(0, "I"), table.table(4)
    check(code < len(names), f"op {index} has the code {code}")
    read: list[int] = table.vector(1, "<i4").tolist()
    written: list[int] = table.vector(2, "<i4").tolist()
    while read and read[-1] == -1:
        read.pop()
    if len(written) != 1 or -1 in read:
        raise GliosliceError(
            f"op {index}, {names[code]}, leaves out an input or has {len(written)} outputs; "
            "networks of glioslice have neither"
        )
    valid = all(0 <= number < len(tensors) for number in (*read, *written))
    check(valid, f"op {index} reads or writes what is no tensor")
    options = {}
    for field, option in enumerate(OPTIONS.get(names[code], ())):
        default = 1 if option.startswith("dilation") else 0
        kind = "b" if option in ONE_BYTE else "i"
        options[option] = default if given is None else given.value(field, kind, default)
    inputs = tuple(tensors[number] for number in read)
    return OracleOp(index, names[code], inputs, tensors[written[0]], MappingProxyType(options))


def _only(name: str, numbers: NDArray[np.int32], tensors: tuple[OracleTensor, ...]) -> OracleTensor:
    if len(numbers) != 1:
        raise GliosliceError(f"this TFLite file has {len(numbers)} {name}s, one was expected")
    check(0 <= numbers[0] < len(tensors), f"the {name} is no tensor")
    return tensors[int(numbers[0])]


def _check_order(graph: OracleGraph) -> None:
    """Check that ops read only tensors written before, and that each is written once."""
    known = {tensor.index for tensor in graph.tensors if tensor.data is not None}
    check(graph.input.index not in known, "the input is a constant")
    known.add(graph.input.index)
    for op in graph.ops:
        check({t.index for t in op.inputs} <= known, f"{op}, reads what nothing has written")
        check(op.output.index not in known, f"{op}, writes what is there already")
        known.add(op.output.index)
    check(graph.output.index in known and graph.output.data is None, "nothing writes the output")
