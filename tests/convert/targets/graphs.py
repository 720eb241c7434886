"""Small TFLite files built op by op."""

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

INT8, INT32, FLOAT = schema.TensorType.INT8, schema.TensorType.INT32, schema.TensorType.FLOAT32


class GraphBuilder:
    """Tensors and ops of a file in the making; the first tensor is its input."""

    def __init__(self, *shape: int, dtype: int = INT8) -> None:
        self.model = schema.ModelT(
            version=3, operatorCodes=[], subgraphs=[], buffers=[schema.BufferT()]
        )
        self.graph = schema.SubGraphT(tensors=[], operators=[], inputs=[0], outputs=[])
        self.model.subgraphs = [self.graph]
        self.tensor(shape, dtype)

    def tensor(self, shape: Sequence[int], dtype: int = INT8, **parts: Any) -> int:
        quantization = None
        if dtype != FLOAT:
            scale, zero = np.array([0.05], np.float32), np.array([0], np.int64)
            quantization = schema.QuantizationParametersT(scale=scale, zeroPoint=zero)
        name = f"t{len(self.graph.tensors)}"
        self.graph.tensors.append(
            schema.TensorT(
                shape=list(shape), type=dtype, name=name, quantization=quantization, **parts
            )
        )
        return len(self.graph.tensors) - 1

    def constant(self, values: NDArray[Any]) -> int:
        kinds = {"int8": INT8, "int32": INT32, "float32": FLOAT}
        data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(schema.BufferT(data=data))
        buffer = len(self.model.buffers) - 1
        return self.tensor(values.shape, kinds[values.dtype.name], buffer=buffer)

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        *shape: int,
        options: Any = None,
        version: int = 1,
        dtype: int = INT8,
    ) -> int:
        """Add an op with one output and return that."""
        number = getattr(schema.BuiltinOperator, name)
        code = schema.OperatorCodeT(min(number, 127), version=version, builtinCode=number)
        output = self.tensor(shape, dtype)
        operator = schema.OperatorT(len(self.model.operatorCodes), list(inputs), [output])
        if options is not None:
            operator.builtinOptions = options
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        self.model.operatorCodes.append(code)
        self.graph.operators.append(operator)
        self.graph.outputs = [output]
        return output

    def conv(self, source: int, channels: int, height: int, width: int, **changes: Any) -> int:
        """Add a 3 x 3 convolution of 4 channels to as many."""
        filters = self.constant(np.ones((channels, 3, 3, 4), np.int8))
        bias = self.constant(np.zeros(channels, np.int32))
        parts = {"strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
        options = schema.Conv2DOptionsT(**(parts | changes))
        inputs = [source, filters, bias]
        return self.op("CONV_2D", inputs, 1, height, width, channels, options=options, version=3)

    @property
    def content(self) -> bytes:
        builder = flatbuffers.Builder(0)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def numbers(*values: Any) -> NDArray[np.int32]:
    return np.array(values, np.int32)
