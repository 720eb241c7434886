"""Read and change parts of a TFLite model, and serialize it again."""

from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.tflite.deduplication import DeduplicatingBuilder
from convert.tflite.layout import build_flatbuffer
from convert.tflite.reader import IDENTIFIER, list_of

NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items()}
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


def serialize(model: Any) -> bytes:
    """Return a `ModelT` as a TFLite file."""
    builder = DeduplicatingBuilder()
    return build_flatbuffer(builder.nodes, model.Pack(builder), IDENTIFIER)
