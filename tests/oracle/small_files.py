"""Builds small int8 TFLite files of one or a few ops, and runs them with LiteRT."""

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.typing import NDArray

REFERENCE = OpResolverType.BUILTIN_REF
TYPES = {
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.float32): schema.TensorType.FLOAT32,
}
OPTIONS = {
    "ADD": schema.AddOptionsT,
    "AVERAGE_POOL_2D": schema.Pool2DOptionsT,
    "CONCATENATION": schema.ConcatenationOptionsT,
    "CONV_2D": schema.Conv2DOptionsT,
    "DEPTHWISE_CONV_2D": schema.DepthwiseConv2DOptionsT,
    "MAX_POOL_2D": schema.Pool2DOptionsT,
    "PAD": schema.PadOptionsT,
    "QUANTIZE": schema.QuantizeOptionsT,
    "RESIZE_BILINEAR": schema.ResizeBilinearOptionsT,
    "RESIZE_NEAREST_NEIGHBOR": schema.ResizeNearestNeighborOptionsT,
    "RELU": None,
}


class SmallFile:
    """A TFLite file under construction; the first tensor is the input, the last op's the output."""

    def __init__(self) -> None:
        self.tensors: list[Any] = []
        self.buffers = [schema.BufferT()]
        self.codes: list[Any] = []
        self.ops: list[Any] = []

    def tensor(
        self,
        shape: tuple[int, ...],
        scale: float | NDArray[np.float32] = 1.0,
        zero_point: int = 0,
        dtype: type = np.int8,
    ) -> int:
        """Add an image and return its index."""
        scales = np.atleast_1d(np.asarray(scale, np.float32))
        quantization = schema.QuantizationParametersT()
        quantization.scale = scales
        quantization.zeroPoint = np.full(scales.size, zero_point, np.int64)
        tensor = schema.TensorT(
            shape=list(shape), type=TYPES[np.dtype(dtype)], buffer=0, quantization=quantization
        )
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(
        self,
        values: NDArray[Any],
        scale: float | NDArray[np.float32] | None = None,
        zero_point: int = 0,
        axis: int = 0,
    ) -> int:
        """Add a constant and return its index."""
        index = self.tensor(
            values.shape, 1.0 if scale is None else scale, zero_point, values.dtype.type
        )
        if scale is None:
            self.tensors[index].quantization = None
        else:
            self.tensors[index].quantization.quantizedDimension = axis
        data = np.frombuffer(values.tobytes(), np.uint8)
        self.tensors[index].buffer = len(self.buffers)
        self.buffers.append(schema.BufferT(data=data))
        return index

    def op(self, name: str, inputs: list[int], output: int, **options: Any) -> int:
        """Add an op with the schema's options and return the index of its output."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 3 if name.endswith("CONV_2D") else 2
        self.codes.append(code)
        operator = schema.OperatorT(
            opcodeIndex=len(self.codes) - 1, inputs=inputs, outputs=[output]
        )
        if OPTIONS[name] is not None:
            operator.builtinOptions = OPTIONS[name](**options)
            kind = OPTIONS[name].__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        self.ops.append(operator)
        return output

    def content(self) -> bytes:
        """Return the file."""
        graph = schema.SubGraphT(
            tensors=self.tensors,
            inputs=[0],
            outputs=[self.ops[-1].outputs[0]],
            operators=self.ops,
        )
        model = schema.ModelT(
            version=3, operatorCodes=self.codes, subgraphs=[graph], buffers=self.buffers
        )
        return packed(model)


def packed(model: Any) -> bytes:
    """Return the file of a `ModelT`."""
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def litert(content: bytes, x: NDArray[np.int8], kernels: Any = REFERENCE) -> Any:
    """Run a file on `x`; return LiteRT's interpreter with all tensors preserved."""
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=kernels,
        experimental_preserve_all_tensors=True,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    return interpreter


def random_int8(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Return values of the whole int8 range, uniformly distributed."""
    return rng.integers(-128, 128, shape, dtype=np.int8)
