"""The ops and tensors of a TFLite model: as they are, to be changed, or as plain data."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.tflite.reader import NAMES, TYPE_NAMES, list_of
from glioslice.errors import GliosliceError

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
