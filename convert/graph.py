"""What the graph inside a TFLite file consists of, and whether it is the one we meant to emit.

A converter that pads with an op of its own, or resizes with half-pixel centres, still computes the
right masks here; an accelerator then refuses the file. So the graph is looked at, not only run.
"""

from dataclasses import dataclass
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from convert.editing import op_name
from convert.reading import read_model
from glioslice.errors import GliosliceError

RESIZES = {"RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"}
RESIZE_OPTIONS = (schema.ResizeNearestNeighborOptionsT, schema.ResizeBilinearOptionsT)
EXPECTED = frozenset({"CONV_2D", "MAX_POOL_2D", "ADD", *RESIZES})
EXTRA = {"fp16": frozenset({"DEQUANTIZE"})}  # of the weights, once, when the file is loaded
TYPE_NAMES = {number: name for name, number in vars(schema.TensorType).items()}


@dataclass(frozen=True)
class Tensor:
    """A tensor as the file declares it; `scale` and `zero_point` are 0 unless it has just one."""

    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


@dataclass(frozen=True)
class Graph:
    """Input, output and the ops in their order, by the schema's names."""

    input: Tensor
    output: Tensor
    ops: tuple[str, ...]
    half_pixel_centres: bool


def read_graph(content: bytes) -> Graph:
    """Return the graph of a TFLite file with one input and one output.

    Raises GliosliceError if it is damaged or has more of them.
    """
    model = read_model(content)
    main = model.subgraphs[0]
    if len(model.subgraphs) != 1 or len(main.inputs) != 1 or len(main.outputs) != 1:
        raise GliosliceError("expected one graph with one input and one output")
    resizes = [
        operator.builtinOptions
        for operator in main.operators
        if isinstance(operator.builtinOptions, RESIZE_OPTIONS)
    ]
    return Graph(
        input=_tensor(main.tensors[main.inputs[0]]),
        output=_tensor(main.tensors[main.outputs[0]]),
        ops=tuple(op_name(model, operator) for operator in main.operators),
        half_pixel_centres=any(r.halfPixelCenters or r.alignCorners for r in resizes),
    )


def check_graph(content: bytes, precision: str, window: tuple[int, int], channels: int) -> Graph:
    """Return the graph of a file once it is sure that it is what this kit emits.

    Raises GliosliceError naming what differs: ops, the form of a resize, shapes or types.
    """
    graph = read_graph(content)
    foreign = set(graph.ops) - EXPECTED - EXTRA.get(precision, frozenset())
    if foreign:
        raise GliosliceError(f"the {precision} file holds ops not asked for: {sorted(foreign)}")
    if graph.half_pixel_centres:
        raise GliosliceError(f"the {precision} file resizes with half-pixel centres, not plainly")
    dtype = "INT8" if precision == "int8" else "FLOAT32"
    shape = (1, *window, channels)
    if (graph.input.shape, graph.input.dtype, graph.output.dtype) != (shape, dtype, dtype):
        raise GliosliceError(
            f"the {precision} file takes {graph.input} and gives {graph.output}; "
            f"expected {dtype} of {shape}"
        )
    return graph


def _tensor(tensor: Any) -> Tensor:
    quantisation, single = tensor.quantization, False
    if quantisation is not None and quantisation.scale is not None:
        single = len(quantisation.scale) == 1
    return Tensor(
        shape=tuple(int(size) for size in tensor.shape),
        dtype=TYPE_NAMES[tensor.type],
        scale=float(quantisation.scale[0]) if single else 0.0,
        zero_point=int(quantisation.zeroPoint[0]) if single else 0,
    )
