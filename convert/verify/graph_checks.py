"""Check the structure of a network: its layers before conversion, its TFLite graph afterwards.

Unsupported layers are named before any work is done. The verdict on each was measured on networks
of this size with the pinned tools. In an external network, layers that are only slow or large give
a warning, and the acceptance gate decides.

A converter that pads with an op of its own, or resizes with half-pixel centres, still computes the
right masks here, but an accelerator then refuses the file. So the graph is inspected, not only run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn as nn
from ai_edge_litert import schema_py_generated as schema
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

from convert.onnx_model import node_label
from convert.tflite.reader import Op, Tensor, non_constant, op_name, ops_of, read_model, tensor_of
from convert.verify.layer_errors import label_tensors
from glioslice.errors import GliosliceError

PRELU = "fails or turns into NaN, depending on its slopes; use ReLU"
INSTANCE_NORM = "is off by a hundredth of its values; use BatchNorm, which is folded away"
HARD_SWISH = "makes int8 4.5 times slower; use ReLU"
GROUPED_TRANSPOSED = "makes int8 4.5 times slower; use nearest upsampling and a convolution"
DEPTHWISE = "spends its bytes on scales and runs at half the speed; use a plain convolution"
TRAINING_MODE = "was exported in training mode; call network.eval() and export it again"
BREAKING = frozenset({PRELU, INSTANCE_NORM, TRAINING_MODE})
RESIZE_OPTIONS = (schema.ResizeNearestNeighborOptionsT, schema.ResizeBilinearOptionsT)
EXPECTED = frozenset(
    {"PAD", "CONV_2D", "MAX_POOL_2D", "ADD", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"}
)
"""PAD comes only before a convolution of stride 2: TFLite pads one side of it, torch both."""

EXTRA = {"fp16": frozenset({"DEQUANTIZE"})}  # of the weights, once, when the file is loaded


def check_layers(network: nn.Module) -> None:
    """Check every module of a network.

    Raises GliosliceError naming the unsupported ones, the reason, and what to use instead.
    """
    found = [
        f"{name or 'the network'} ({type(module).__name__}): {problem}"
        for name, module in network.named_modules()
        if (problem := problem_with_module(module))
    ]
    if found:
        raise GliosliceError(f"unsupported layers: {'; '.join(found)}")


def problem_with_module(module: nn.Module) -> str:
    """Return what is wrong with a layer and what to use instead, "" if it is supported."""
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
    """Check every node of an ONNX model and return a warning for each kind of costly node.

    Raises GliosliceError naming the unsupported ones, the reason, and what to use instead.
    """
    found: dict[str, list[str]] = {}
    for node in model.graph.node:
        if problem := _problem_with_node(model, node):
            found.setdefault(problem, []).append(f"{node_label(node)} ({node.op_type})")
    messages = {problem: f"{', '.join(nodes)}: {problem}" for problem, nodes in found.items()}
    breaking = [text for problem, text in messages.items() if problem in BREAKING]
    if breaking:
        raise GliosliceError(f"unsupported layers: {'; '.join(breaking)}")
    return tuple(messages.values())


def _problem_with_node(model: Any, node: Any) -> str:
    plain = {"PRelu": PRELU, "InstanceNormalization": INSTANCE_NORM, "HardSwish": HARD_SWISH}
    if node.op_type in plain:
        return plain[node.op_type]
    if node.op_type == "BatchNormalization" and any(
        a.name == "training_mode" and a.i for a in node.attribute
    ):
        return TRAINING_MODE
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if groups > 1 and node.op_type == "ConvTranspose":
        return GROUPED_TRANSPOSED
    weights = [t for t in model.graph.initializer if t.name == node.input[1]] if groups > 1 else []
    depthwise = groups > 1 and any(t.dims[1] == 1 for t in weights)  # one input a group
    return DEPTHWISE if node.op_type == "Conv" and depthwise else ""


def check_ops(fp32: bytes, names: Mapping[int, str]) -> None:
    """Check the ops of a float file; `names` holds the layers of its tensors.

    Raises GliosliceError naming the layers before ops that glioslice does not emit.
    """
    model = read_model(fp32)
    labels = label_tensors(model, names)
    foreign = [
        f"{op_name(model, operator)} after {labels[non_constant(model, operator.inputs)[0]]}"
        for operator in model.subgraphs[0].operators
        if op_name(model, operator) not in EXPECTED
    ]
    if foreign:
        raise GliosliceError(
            f"ops that glioslice does not emit: {', '.join(foreign)}; use only "
            f"{', '.join(sorted(EXPECTED))}"
        )


@dataclass(frozen=True)
class Graph:
    """The input, the output and the ops of a TFLite file, in order."""

    input: Tensor
    output: Tensor
    ops: tuple[Op, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The ops' names in the TFLite schema."""
        return tuple(op.name for op in self.ops)


def read_graph(content: bytes) -> Graph:
    """Return the graph of a TFLite file with one input and one output.

    Raises GliosliceError if it is damaged or has more of either.
    """
    model = read_model(content)
    main = model.subgraphs[0]
    if len(model.subgraphs) != 1 or len(main.inputs) != 1 or len(main.outputs) != 1:
        raise GliosliceError("expected one graph with one input and one output")
    taken, computed = (main.tensors[ends[0]] for ends in (main.inputs, main.outputs))
    return Graph(tensor_of(model, taken), tensor_of(model, computed), ops_of(model))


def check_graph(content: bytes, precision: str, window: tuple[int, int], channels: int) -> Graph:
    """Return the graph of a file once it is known to be what glioslice emits.

    Raises GliosliceError naming what differs: ops, the kind of a resize, shapes or types.
    """
    graph = read_graph(content)
    foreign = set(graph.names) - EXPECTED - EXTRA.get(precision, frozenset())
    if foreign:
        raise GliosliceError(f"the {precision} file holds unexpected ops: {sorted(foreign)}")
    resizes = [op.options for op in graph.ops if isinstance(op.options, RESIZE_OPTIONS)]
    if any(options.halfPixelCenters or options.alignCorners for options in resizes):
        raise GliosliceError(
            f"the {precision} file resizes with half-pixel centres or aligned corners"
        )
    check_ends(graph, precision, (1, *window, channels))
    return graph


def check_ends(graph: Graph, precision: str, shape: tuple[int, ...]) -> None:
    """Raise GliosliceError unless a graph takes `shape` and its ends have the right type."""
    dtype = "INT8" if precision == "int8" else "FLOAT32"
    taken, computed = graph.input, graph.output
    if (taken.shape, taken.dtype, computed.dtype) != (shape, dtype, dtype):
        raise GliosliceError(
            f"the {precision} file takes {taken.dtype} {taken.shape} and returns "
            f"{computed.dtype} {computed.shape}; expected {dtype} of {shape}"
        )
