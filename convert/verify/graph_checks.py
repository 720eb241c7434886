"""Layers that are known to break on the way to int8, named before any work is done.

What is said of each was measured on networks of this size with the tools that are pinned. Of a
network that is not ours the gate decides about those that are only slow or large.

What the graph inside a TFLite file consists of, and whether it is the one we meant to emit.

A converter that pads with an op of its own, or resizes with half-pixel centres, still computes the
right masks here; an accelerator then refuses the file. So the graph is looked at, not only run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn as nn
from ai_edge_litert import schema_py_generated as schema
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from convert.onnx_model import label
from convert.tflite.editor import flowing, op_name
from convert.tflite.ops import Op, Tensor, ops_of, tensor_of
from convert.tflite.reader import read_model
from convert.verify.layer_errors import labels_of
from glioslice.errors import GliosliceError

PRELU = "fails or turns into NaN, depending on its slopes; use ReLU"
INSTANCE_NORM = "is off by a hundredth of its values; use BatchNorm, which is folded away"
HARD_SWISH = "makes int8 4.5 times slower; use ReLU"
GROUPED_TRANSPOSED = "makes int8 4.5 times slower; use nearest upsampling and a convolution"
DEPTHWISE = "spends its bytes on scales and runs at half the speed; use a plain convolution"
BREAKING = frozenset({PRELU, INSTANCE_NORM})


def check_layers(network: nn.Module) -> None:
    """Look at every module of a network.

    Raises GliosliceError naming those that break, why, and what to use instead.
    """
    found = [
        f"{name or 'the network'} ({type(module).__name__}): {what}"
        for name, module in network.named_modules()
        if (what := trouble(module))
    ]
    if found:
        raise GliosliceError(f"layers that do not survive conversion: {'; '.join(found)}")


def trouble(module: nn.Module) -> str:
    """Return what is wrong with a layer and what to use instead, "" if nothing is known."""
    if isinstance(module, nn.PReLU):
        return PRELU
    if isinstance(module, _InstanceNorm):
        return INSTANCE_NORM
    if isinstance(module, nn.Hardswish):
        return HARD_SWISH
    if isinstance(module, _ConvTransposeNd) and module.groups > 1:
        return GROUPED_TRANSPOSED
    if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
        return DEPTHWISE
    return ""


def check_nodes(model: Any) -> tuple[str, ...]:
    """Look at every node of an ONNX model and return what is said of those that cost much.

    Raises GliosliceError naming those that break, why, and what to use instead.
    """
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        if what := _trouble_of(model, node):
            found.setdefault(what, []).append(f"{label(node)} ({node.op_type})")
    breaking = [f"{', '.join(found[what])}: {what}" for what in found if what in BREAKING]
    if breaking:
        raise GliosliceError(f"layers that do not survive conversion: {'; '.join(breaking)}")
    return tuple(f"{', '.join(named)}: {what}" for what, named in found.items())


def _trouble_of(model: Any, node: Any) -> str:
    plain = {"PRelu": PRELU, "InstanceNormalization": INSTANCE_NORM, "HardSwish": HARD_SWISH}
    if node.op_type in plain:
        return plain[node.op_type]
    groups = next((of.i for of in node.attribute if of.name == "group"), 1)
    if groups > 1 and node.op_type == "ConvTranspose":
        return GROUPED_TRANSPOSED
    weights = [t for t in model.graph.initializer if t.name == node.input[1]] if groups > 1 else []
    depthwise = groups > 1 and any(t.dims[1] == 1 for t in weights)  # one input a group
    return DEPTHWISE if node.op_type == "Conv" and depthwise else ""


def check_ops(fp32: bytes, names: Mapping[int, str]) -> None:
    """Look at the ops of a float file; `names` has the layers of its tensors.

    Raises GliosliceError naming the layers behind ops that this kit does not emit.
    """
    model = read_model(fp32)
    labels = labels_of(model, names)
    foreign = [
        f"{op_name(model, operator)} after {labels[flowing(model, operator.inputs)[0]]}"
        for operator in model.subgraphs[0].operators
        if op_name(model, operator) not in EXPECTED
    ]
    if foreign:
        raise GliosliceError(
            f"ops that this kit does not emit: {', '.join(foreign)}; use "
            f"{', '.join(sorted(EXPECTED))} alone"
        )


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
