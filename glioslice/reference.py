"""An int8 TFLite file computed in numpy, bit for bit as TFLite's reference kernels compute it.

    y = reference.invoke(Path("compact-int8.tflite").read_bytes(), x)

What runs reference kernels, such as TFLite Micro's, is held against this byte for byte,
intermediate tensors included. XNNPACK scales in float32 and rounds once where these kernels round
twice: by itself, a convolution then differs by one step in under 1 % of its values, at the end of
a network the logits by several steps. What runs on XNNPACK is held against XNNPACK.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice import reference_ops as ops
from glioslice.errors import GliosliceError
from glioslice.tflite_file import INT8, INT32, Graph, Op, read_graph


@dataclass(frozen=True)
class Kernel:
    """How an op is computed, as a function of it and of its inputs' arrays, and their types.

    Of a type that is `repeated`, any number of inputs may come.
    """

    compute: Callable[..., NDArray[np.int8]]
    types: tuple[np.dtype[Any], ...]
    repeated: bool = False

    def takes(self, op: Op) -> bool:
        """Tell whether these are the types of the inputs of `op`."""
        given = tuple(tensor.dtype for tensor in op.inputs)
        return set(given) == set(self.types) if self.repeated else given == self.types


KERNELS: Mapping[str, Kernel] = {
    "ADD": Kernel(ops.add, (INT8, INT8)),
    "AVERAGE_POOL_2D": Kernel(ops.average_pool_2d, (INT8,)),
    "CONCATENATION": Kernel(ops.concatenation, (INT8,), repeated=True),
    "CONV_2D": Kernel(ops.conv_2d, (INT8, INT8, INT32)),
    "DEPTHWISE_CONV_2D": Kernel(ops.depthwise_conv_2d, (INT8, INT8, INT32)),
    "MAX_POOL_2D": Kernel(ops.max_pool_2d, (INT8,)),
    "PAD": Kernel(ops.pad, (INT8, INT32)),
    "QUANTIZE": Kernel(ops.quantize, (INT8,)),
    "RESIZE_BILINEAR": Kernel(ops.resize_bilinear, (INT8, INT32)),
    "RESIZE_NEAREST_NEIGHBOR": Kernel(ops.resize_nearest_neighbor, (INT8, INT32)),
}

UNFIT = (ValueError, IndexError, OverflowError)
"""What numpy raises for shapes that do not go together, and `fixed_point` for scales."""


def load(content: bytes) -> Graph:
    """Return the network of a TFLite file once it is sure that all its ops are known here.

    Raises GliosliceError as `read_graph` does, and naming an op that is not known, or that is not
    one of int8 tensors (images, rows, columns, channels) with one scale each.
    """
    graph = read_graph(content)
    for op in graph.ops:
        if op.name not in KERNELS:
            raise GliosliceError(
                f"{op}, has no reference arithmetic here; known are {', '.join(sorted(KERNELS))}"
            )
        images = [op.output, *(tensor for tensor in op.inputs if tensor.data is None)]
        if not KERNELS[op.name].takes(op) or not all(
            (tensor.dtype, len(tensor.shape), tensor.scales.size) == (INT8, 4, 1)
            for tensor in images
        ):
            raise GliosliceError(
                f"{op}, has other inputs or another output than int8 images of one scale each; "
                "only int8 files of this kit are computed here"
            )
    return graph


def run(graph: Graph, x: NDArray[np.int8]) -> dict[int, NDArray[np.int8]]:
    """Return every tensor that is computed for the input `x`, and `x`, by their index in the file.

    Raises GliosliceError if `x` is not int8 of the input's shape, or the tensors of an op do not
    fit together.
    """
    if x.dtype != np.int8 or x.shape != graph.input.shape:
        raise GliosliceError(
            f"the input is {x.dtype} {x.shape}; the network takes int8 {graph.input.shape}"
        )
    values: dict[int, NDArray[np.int8]] = {graph.input.index: x}
    for op in graph.ops:
        given = [values.get(t.index) if t.data is None else t.data for t in op.inputs]
        try:
            computed = KERNELS[op.name].compute(op, *given)
        except UNFIT as error:
            raise GliosliceError(
                f"{op}, cannot be computed ({error}); the file is damaged or not of this kit"
            ) from None
        if computed.shape != op.output.shape:
            raise GliosliceError(
                f"{op}, gives {computed.shape} where the file says {op.output.shape}; it is damaged"
            )
        values[op.output.index] = computed
    return values


def invoke(content: bytes, x: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the network's output for `x`; raises GliosliceError as `load` and `run` do."""
    graph = load(content)
    return run(graph, x)[graph.output.index]
