"""Read a TFLite file with its ops and tensors, and reject what could not be written without a loss.

The classes that flatc generates skip what they do not know: a field, a kind of options, constants
after the flatbuffer. All that would silently be lost when the file is written again.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from glioslice.errors import GliosliceError

IDENTIFIER = b"TFL3"

PORTABLE_CUSTOM = b"Flex"
"""Custom ops whose names begin like this hold a TensorFlow node, which may move within the file.
Others may not: those that a compiler makes for an accelerator refer to offsets and names."""

NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items()}
"""Names of the ops by their numbers."""

TYPE_NAMES = {number: name for name, number in vars(schema.TensorType).items()}
"""Names of the tensors' types by their numbers."""

UNIONS = {
    "BuiltinOptions": schema.BuiltinOptions,
    "BuiltinOptions2": schema.BuiltinOptions2,
    "Details": schema.QuantizationDetails,
    "ArraySegments": schema.SparseIndexVector,
    "ArrayIndices": schema.SparseIndexVector,
}
"""Fields that hold one of several kinds of table, and the enumeration of the kinds."""

DTYPES: dict[int, np.dtype[Any]] = {
    schema.TensorType.FLOAT32: np.dtype("<f4"),
    schema.TensorType.INT8: np.dtype("<i1"),
    schema.TensorType.INT32: np.dtype("<i4"),
}

SAME_SCALE = frozenset(
    {
        *("MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"),
        *("CONCATENATION", "PAD", "MIRROR_PAD", "RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE"),
        *("SPLIT", "SQUEEZE", "SPACE_TO_DEPTH", "DEPTH_TO_SPACE"),
    }
)
"""Ops whose int8 kernels need the same scale for inputs and outputs."""

QUANTIZE_OPS = frozenset({"QUANTIZE", "DEQUANTIZE"})
"""Ops that only change the representation of a value."""

NUMPY = {name: np.dtype(name.lower()) for name in ("INT8", "UINT8", "INT32", "INT64")}
WEIGHTED_OPS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"})


class _Strict(bytes):
    """Bytes that raise for a slice beyond their end, where `bytes` would return less."""

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice) and key.stop is not None and key.stop > len(self):
            raise IndexError(f"a string ends {key.stop - len(self)} bytes after the file")
        return super().__getitem__(key)


def read_model(content: bytes) -> Any:
    """Return the `ModelT` of a TFLite file.

    Raises GliosliceError if it is not a TFLite file, is damaged, keeps constants outside the
    flatbuffer, was written for a newer schema, or holds a custom op that may depend on its offset.
    """
    if content[4:8] != IDENTIFIER:
        raise GliosliceError("not a TFLite file: the identifier TFL3 is missing")
    try:
        strict = _Strict(content)
        for table in _tables(schema.Model.GetRootAs(strict, 0)):
            _check_known(table)
        model = schema.ModelT.InitFromPackedBuf(strict, 0)
        _check(model)
    except GliosliceError:
        raise
    except Exception as error:  # generated code may raise anything on damaged data
        raise GliosliceError(f"this TFLite file is damaged ({error}); convert it again") from None
    return model


def list_of(vector: Any) -> list[Any]:
    """Return a vector of the object API as a list; an absent one is empty."""
    return [] if vector is None else list(vector)


def _tables(table: Any) -> Iterator[Any]:
    """Yield a table and all tables that it refers to, as objects of the generated classes."""
    yield table
    for name in _fields(type(table).__name__):
        read = getattr(table, name)
        if hasattr(table, f"{name}Length"):
            count = getattr(table, f"{name}Length")()
            found = [read(0)] if count else []
            if found and hasattr(found[0], "_tab"):
                found += [read(index) for index in range(1, count)]
        elif name in UNIONS:
            found = [_of_union(table, name)]
        else:
            found = [read()]
        for part in found:
            if hasattr(part, "_tab"):
                yield from _tables(part)


@cache
def _fields(kind: str) -> tuple[str, ...]:
    """Return the names of the methods of a generated class that read a field."""
    others = re.compile("Init$|GetRootAs|.*(BufferHasIdentifier|Length|IsNone|AsNumpy)$")
    return tuple(
        name for name in vars(getattr(schema, kind)) if name[0].isupper() and not others.match(name)
    )


def _of_union(table: Any, field: str) -> Any:
    """Return the table in a field that may hold one of several kinds, or None."""
    raw, number = getattr(table, field)(), getattr(table, f"{field}Type")()
    if raw is None or number == 0:
        return None
    kinds = {value: name for name, value in vars(UNIONS[field]).items()}
    if number not in kinds:
        raise GliosliceError(_newer(f"{field} of kind {number}"))
    found = getattr(schema, kinds[number])()
    found.Init(raw.Bytes, raw.Pos)
    return found


def _check_known(table: Any) -> None:
    """Check that the table has no field beyond those of our schema."""
    tab, kind = table._tab, type(table).__name__
    vtable = tab.Pos - tab.Get(schema.flatbuffers.number_types.SOffsetTFlags, tab.Pos)
    get = schema.flatbuffers.number_types.VOffsetTFlags
    for slot in range(_known_slots(kind), (tab.Get(get, vtable) - 4) // 2):
        if tab.Get(get, vtable + 4 + 2 * slot):
            raise GliosliceError(_newer(f"field {slot} of a {kind}"))


@cache
def _known_slots(kind: str) -> int:
    class Counter:
        slots = 0

        def StartObject(self, count: int) -> None:
            self.slots = count

    counter = Counter()
    getattr(schema, f"{kind}Start")(counter)
    return counter.slots


def _newer(what: str) -> str:
    return (
        f"this TFLite file holds {what}, which is newer than the installed schema; "
        "pip install --upgrade ai-edge-litert"
    )


def _check(model: Any) -> None:
    """Check that ops and types are known, indices valid, and nothing outside the flatbuffer."""
    _check_inside(model)
    for code in list_of(model.operatorCodes):
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        if number not in NAMES:
            raise GliosliceError(_newer(f"op {number}"))
    if model.buffers[0].data is not None and len(model.buffers[0].data):
        raise ValueError("buffer 0 is not empty")
    users = [*(t for graph in model.subgraphs for t in graph.tensors), *list_of(model.metadata)]
    if any(user.buffer not in range(len(model.buffers)) for user in users):
        raise ValueError("a tensor's or a metadata's buffer is missing")
    for graph in model.subgraphs:
        _check_graph(model, graph)
    for signature in list_of(model.signatureDefs):
        tensors = range(len(model.subgraphs[signature.subgraphIndex].tensors))
        named = [*list_of(signature.inputs), *list_of(signature.outputs)]
        if any(entry.tensorIndex not in tensors for entry in named):
            raise ValueError("a signature names a missing tensor")


def _check_graph(model: Any, graph: Any) -> None:
    for tensor in graph.tensors:
        if tensor.type not in TYPE_NAMES:
            raise GliosliceError(_newer(f"tensor type {tensor.type}"))
        if any(size < 0 for size in list_of(tensor.shape)):
            raise ValueError("a tensor has a negative size")
    tensors = range(len(graph.tensors))
    if any(index not in tensors for index in [*list_of(graph.inputs), *list_of(graph.outputs)]):
        raise ValueError("an input or output is not a tensor")
    for operator in list_of(graph.operators):
        if operator.opcodeIndex not in range(len(model.operatorCodes)):
            raise ValueError(f"an op's code is {operator.opcodeIndex}")
        used = [*list_of(operator.inputs), *list_of(operator.outputs)]
        if any(index != -1 and index not in tensors for index in used):
            raise ValueError("an op's input or output is not a tensor")
        _check_custom(model.operatorCodes[operator.opcodeIndex])


def _check_inside(model: Any) -> None:
    operators = [operator for graph in model.subgraphs for operator in list_of(graph.operators)]
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    if (
        any(buffer.offset > 1 for buffer in model.buffers)
        or any(operator.largeCustomOptionsOffset > 1 for operator in operators)
        or any(tensor.externalBuffer for tensor in tensors)
        or list_of(model.externalBuffers)
    ):
        raise GliosliceError(
            "this TFLite file keeps constants outside its flatbuffer; convert the network again "
            "into one file of less than 2 GB"
        )


def _check_custom(code: Any) -> None:
    custom = schema.BuiltinOperator.CUSTOM
    if max(code.builtinCode, code.deprecatedBuiltinCode) != custom:
        return
    name = code.customCode or b""
    if not name.startswith(PORTABLE_CUSTOM):
        raise GliosliceError(
            f"this TFLite file holds the custom op {name.decode(errors='replace')}, which may "
            "depend on its offset in the file; pack the file before it is compiled for an "
            "accelerator, or convert without custom ops"
        )


def op_name(model: Any, operator: Any) -> str:
    """Return the schema's name of an operator."""
    code = model.operatorCodes[operator.opcodeIndex]
    name: str = NAMES[max(code.builtinCode, code.deprecatedBuiltinCode)]
    return name


def constant(model: Any, tensor: Any) -> NDArray[Any] | None:
    """Return the values of a constant float32, int8 or int32 tensor; None for any other."""
    data = model.buffers[tensor.buffer].data
    if data is None or not len(data) or tensor.type not in DTYPES:
        return None
    values: NDArray[Any] = np.frombuffer(data.tobytes(), DTYPES[tensor.type])
    return values.reshape(shape_of(tensor))


def set_constant(model: Any, tensor: Any, values: NDArray[Any]) -> None:
    """Set the values of a constant, without changing tensors that share its buffer."""
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.astype(DTYPES[tensor.type]).tobytes(), np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Return a tensor's shape."""
    return tuple(int(size) for size in list_of(tensor.shape))


def non_constant(model: Any, indices: Any) -> list[int]:
    """Return those of an op's tensors that are not constants; -1 means an omitted tensor."""
    tensors = model.subgraphs[0].tensors
    present = [int(index) for index in list_of(indices) if index != -1]
    return [i for i in present if model.buffers[tensors[i].buffer].data is None]


@dataclass(frozen=True)
class Tensor:
    """A tensor; `shape` has -1 where a size is open, `values` are those of a dense constant.

    `scale` is 0 unless the whole tensor has a single one.
    """

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int
    constant: bool
    values: NDArray[Any] | None


@dataclass(frozen=True)
class Op:
    """An op, called by its name in the schema; an omitted optional input is None.

    `options` is an object of the generated code, such as a `Conv2DOptionsT`, or None.
    """

    index: int
    name: str
    version: int
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    options: Any

    def value(self, number: int) -> NDArray[Any] | None:
        """Return the constant that is input `number`, or None."""
        tensor = self.inputs[number] if number < len(self.inputs) else None
        return None if tensor is None else tensor.values

    @property
    def macs(self) -> int:
        """Multiply-accumulate operations of a convolution or a fully connected layer, else 0."""
        weights = self.inputs[1] if len(self.inputs) > 1 else None
        if weights is None or self.name not in WEIGHTED_OPS:
            return 0
        pixels = self.inputs[2] if self.name == "TRANSPOSE_CONV" else self.outputs[0]
        assert pixels is not None
        if self.name == "DEPTHWISE_CONV_2D":
            return prod(pixels.shape) * prod(weights.shape[1:3])
        if self.name == "FULLY_CONNECTED":
            return prod(pixels.shape[:-1]) * prod(weights.shape)
        return prod(pixels.shape[:3]) * prod(weights.shape)


def ops_of(model: Any) -> tuple[Op, ...]:
    """Return the ops of the main graph of a `ModelT`, in order.

    Raises GliosliceError if there is no graph.
    """
    if not list_of(model.subgraphs):
        raise GliosliceError("this TFLite file holds no graph; convert it again")
    graph = model.subgraphs[0]
    tensors = [tensor_of(model, tensor) for tensor in list_of(graph.tensors)]
    found = []
    for index, operator in enumerate(list_of(graph.operators)):
        code = model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        custom = number == schema.BuiltinOperator.CUSTOM
        name = (code.customCode or b"").decode(errors="replace") if custom else NAMES[number]
        inputs = tuple(None if i == -1 else tensors[i] for i in list_of(operator.inputs))
        outputs = tuple(tensors[i] for i in list_of(operator.outputs))
        options = operator.builtinOptions or operator.builtinOptions2
        found.append(Op(index, name, code.version, inputs, outputs, options))
    return tuple(found)


def tensor_of(model: Any, tensor: Any) -> Tensor:
    """Return a tensor of a `ModelT`."""
    dtype = TYPE_NAMES[tensor.type]
    shape = tuple(int(size) for size in list_of(tensor.shape))
    open_shape = tuple(int(size) for size in list_of(tensor.shapeSignature))
    data = model.buffers[tensor.buffer].data
    constant = data is not None and len(data) > 0
    values = None
    if constant and dtype in NUMPY and data.nbytes == prod(shape) * NUMPY[dtype].itemsize:
        values = data.view(NUMPY[dtype]).reshape(shape)
    quantization = tensor.quantization
    scales = list_of(quantization.scale) if quantization is not None else []
    points = list_of(quantization.zeroPoint) if quantization is not None else []
    return Tensor(
        shape=open_shape or shape,
        dtype=dtype,
        scale=float(scales[0]) if len(scales) == 1 else 0.0,
        zero_point=int(points[0]) if len(points) else 0,
        constant=constant,
        values=values,
    )


def count_float_weights(model: Any) -> int:
    """Return the number of float32 weights in a `ModelT`, counting each constant once."""
    graph = model.subgraphs[0]
    used = {int(i) for operator in list_of(graph.operators) for i in list_of(operator.inputs)}
    tensors = [tensor_of(model, graph.tensors[i]) for i in sorted(used - {-1})]
    return sum(prod(t.shape) for t in tensors if t.constant and t.dtype == "FLOAT32")
