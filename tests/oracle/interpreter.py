"""Runs an int8 TFLite file op by op; see the package's docstring."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from tests.oracle import kernels
from tests.oracle.tflite_reader import INT8, INT32, OracleGraph, OracleOp, read_graph


@dataclass(frozen=True)
class Kernel:
    """The function that computes an op from its inputs, and the types of the inputs.

    With `repeated`, there may be any number of inputs of that type.
    """

    compute: Callable[..., NDArray[np.int8]]
    types: tuple[np.dtype[Any], ...]
    repeated: bool = False

    def accepts(self, op: OracleOp) -> bool:
        """Return whether the inputs of `op` have these types."""
        given = tuple(tensor.dtype for tensor in op.inputs)
        return set(given) == set(self.types) if self.repeated else given == self.types


KERNELS: Mapping[str, Kernel] = {
    "ADD": Kernel(kernels.add, (INT8, INT8)),
    "AVERAGE_POOL_2D": Kernel(kernels.average_pool_2d, (INT8,)),
    "CONCATENATION": Kernel(kernels.concatenation, (INT8,), repeated=True),
    "CONV_2D": Kernel(kernels.conv_2d, (INT8, INT8, INT32)),
    "DEPTHWISE_CONV_2D": Kernel(kernels.depthwise_conv_2d, (INT8, INT8, INT32)),
    "MAX_POOL_2D": Kernel(kernels.max_pool_2d, (INT8,)),
    "PAD": Kernel(kernels.pad, (INT8, INT32)),
    "QUANTIZE": Kernel(kernels.quantize, (INT8,)),
    "RESIZE_BILINEAR": Kernel(kernels.resize_bilinear, (INT8, INT32)),
    "RESIZE_NEAREST_NEIGHBOR": Kernel(kernels.resize_nearest_neighbor, (INT8, INT32)),
}

MISMATCH = (ValueError, IndexError, OverflowError)
"""What numpy raises for shapes that do not fit, and `fixed_point` for scales."""


def load(content: bytes) -> OracleGraph:
    """Return the network of a TFLite file after checking that there is a kernel for each op.

    Raises GliosliceError as `read_graph` does, or naming an op that has no kernel or whose tensors
    are not int8 (images, rows, columns, channels) with one scale each.
    """
    graph = read_graph(content)
    for op in graph.ops:
        if op.name not in KERNELS:
            raise GliosliceError(
                f"{op}, has no kernel here; there are {', '.join(sorted(KERNELS))}"
            )
        images = [op.output, *(tensor for tensor in op.inputs if tensor.data is None)]
        if not KERNELS[op.name].accepts(op) or not all(
            (tensor.dtype, len(tensor.shape), tensor.scales.size) == (INT8, 4, 1)
            for tensor in images
        ):
            raise GliosliceError(
                f"{op}, has other inputs or another output than int8 images of one scale each; "
                "only int8 files of glioslice are supported"
            )
    return graph


def run(graph: OracleGraph, x: NDArray[np.int8]) -> dict[int, NDArray[np.int8]]:
    """Return `x` and every tensor computed from it, by their index in the file.

    Raises GliosliceError if `x` is not int8 of the input's shape, or the tensors of an op do not
    match.
    """
    if x.dtype != np.int8 or x.shape != graph.input.shape:
        raise GliosliceError(
            f"the input is {x.dtype} {x.shape}; the network takes int8 {graph.input.shape}"
        )
    values: dict[int, NDArray[np.int8]] = {graph.input.index: x}
    for op in graph.ops:
        inputs = [values.get(t.index) if t.data is None else t.data for t in op.inputs]
        try:
            computed = KERNELS[op.name].compute(op, *inputs)
        except MISMATCH as error:
            raise GliosliceError(
                f"{op}, cannot be computed ({error}); the file is damaged or not one of glioslice"
            ) from None
        if computed.shape != op.output.shape:
            raise GliosliceError(
                f"{op}, gives {computed.shape}, but the file has {op.output.shape}; it is damaged"
            )
        values[op.output.index] = computed
    return values


def invoke(content: bytes, x: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the network's output for `x`; raises GliosliceError as `load` and `run` do."""
    graph = load(content)
    return run(graph, x)[graph.output.index]
