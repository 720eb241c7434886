"""What the graph inside a TFLite file consists of, and whether it is the one we meant to emit.

A converter that pads with an op of its own, or resizes with half-pixel centres, still computes the
right masks here; an accelerator then refuses the file. So the graph is looked at, not only run.
"""

from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

from convert.ops import Op, Tensor, ops_of, tensor_of
from convert.reading import read_model
from glioslice.errors import GliosliceError

RESIZE_OPTIONS = (schema.ResizeNearestNeighborOptionsT, schema.ResizeBilinearOptionsT)
EXPECTED = frozenset(
    {"PAD", "CONV_2D", "MAX_POOL_2D", "ADD", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"}
)
"""PAD stands before a convolution of stride 2 alone: TFLite pads its other side, torch both."""
EXTRA = {"fp16": frozenset({"DEQUANTIZE"})}  # of the weights, once, when the file is loaded


@dataclass(frozen=True)
class Graph:
    """Input, output and the ops in their order."""

    input: Tensor
    output: Tensor
    ops: tuple[Op, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The ops by the schema's names."""
        return tuple(op.name for op in self.ops)


def read_graph(content: bytes) -> Graph:
    """Return the graph of a TFLite file with one input and one output.

    Raises GliosliceError if it is damaged or has more of them.
    """
    model = read_model(content)
    main = model.subgraphs[0]
    if len(model.subgraphs) != 1 or len(main.inputs) != 1 or len(main.outputs) != 1:
        raise GliosliceError("expected one graph with one input and one output")
    given, wanted = (main.tensors[of[0]] for of in (main.inputs, main.outputs))
    return Graph(tensor_of(model, given), tensor_of(model, wanted), ops_of(model))


def check_graph(content: bytes, precision: str, window: tuple[int, int], channels: int) -> Graph:
    """Return the graph of a file once it is sure that it is what this kit emits.

    Raises GliosliceError naming what differs: ops, the form of a resize, shapes or types.
    """
    graph = read_graph(content)
    foreign = set(graph.names) - EXPECTED - EXTRA.get(precision, frozenset())
    if foreign:
        raise GliosliceError(f"the {precision} file holds ops not asked for: {sorted(foreign)}")
    resizes = [op.options for op in graph.ops if isinstance(op.options, RESIZE_OPTIONS)]
    if any(options.halfPixelCenters or options.alignCorners for options in resizes):
        raise GliosliceError(f"the {precision} file resizes with half-pixel centres, not plainly")
    check_ends(graph, precision, (1, *window, channels))
    return graph


def check_ends(graph: Graph, precision: str, shape: tuple[int, ...]) -> None:
    """Raise GliosliceError unless a graph takes `shape`, and takes and gives the right type."""
    dtype = "INT8" if precision == "int8" else "FLOAT32"
    given, wanted = graph.input, graph.output
    if (given.shape, given.dtype, wanted.dtype) != (shape, dtype, dtype):
        raise GliosliceError(
            f"the {precision} file takes {given.dtype} {given.shape} and gives {wanted.dtype} "
            f"{wanted.shape}; expected {dtype} of {shape}"
        )
