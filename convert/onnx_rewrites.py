"""Rewrite what the converter misreads in an ONNX model, so that it computes the same.

- Nodes whose inputs are constant become constants: the converter expects paddings and sizes so.
- An input or output whose channels come last loses the node that moves them.
- Max pooling gets its padding from a node of its own. The converter pads with the lowest float
  instead, -3.4e38, which leaves an int8 range no step for any other value.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError

MAX_FOLDED = 100_000
"""Numbers in a constant that folding makes; larger ones would be new weights."""

RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial"}
)
ELEMENTWISE = frozenset(
    {"Add", "Cast", "Clip", "Div", "Identity", "LeakyRelu", "Mul", "Neg", "Pow", "Relu", "Sigmoid",
     "Softmax", "LogSoftmax", "Sub", "Tanh"}
)  # fmt: skip
"""Ops that do not tell rows, columns and channels apart, or work along a named axis."""

NEVER_NEGATIVE = frozenset({"Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softmax", "Sqrt"})
PASSING = frozenset(
    {"AveragePool", "Concat", "Dropout", "GlobalAveragePool", "Identity", "MaxPool", "Reshape",
     "Transpose"}
)  # fmt: skip
"""Ops that make no negative value of values that are not; so do sums of such values."""

TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


@dataclass(frozen=True)
class ChannelsLast:
    """Whether input and output of a network have channels last, as its author made it."""

    input: bool = False
    output: bool = False


def rewrite(model: Any) -> tuple[Any, ChannelsLast]:
    """Return a prepared model with all rewrites, and which of its ends had channels last.

    Raises GliosliceError as `channels_first` does.
    """
    import onnx

    model = onnx.ModelProto.FromString(model.SerializeToString())
    fold_constants(model)
    layout = channels_first(model)
    pad_before_pooling(model)
    return onnx.shape_inference.infer_shapes(model, data_prop=True), layout


def fold_constants(model: Any) -> None:
    """Compute the nodes that depend on nothing but constants and known shapes, in place."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    shapes = _known_shapes(model)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kept: list[Any] = []
    new: dict[str, NDArray[Any]] = {}
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            inputs: dict[str, NDArray[Any]] = {
                node.input[0]: np.broadcast_to(np.float32(0), shapes[node.input[0]])
            }
        else:
            inputs = {name: constants[name] for name in node.input if name in constants}
        known = len(inputs) == len({name for name in node.input if name})
        if not known or node.op_type in RANDOM or outputs & {*node.output}:
            kept.append(node)
            continue
        try:
            values = ReferenceEvaluator(node, opsets=_opsets(model)).run(None, inputs)
        except Exception:  # an op that the evaluator lacks: the converter may have it
            kept.append(node)
            continue
        made = dict(zip(node.output, map(np.asarray, values), strict=True))
        if any(array.size > MAX_FOLDED for array in made.values()):
            kept.append(node)
            continue
        constants |= made
        new |= made
    used = {name for node in kept for name in node.input}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in new.items() if name in used
    )
    _replace_nodes(graph, kept)


def channels_first(model: Any) -> ChannelsLast:
    """Remove the nodes that move the channels of input and output, in place.

    Returns which were moved: an input of (1, rows, columns, channels) becomes (1, channels, rows,
    columns). Raises GliosliceError where channels are moved, but other nodes lie before or after.
    """
    graph = model.graph
    taken, computed = graph.input[0], graph.output[0]
    readers = _readers(graph)
    makers = {name: node for node in graph.node for name in node.output}
    moves = [node for node in readers.get(taken.name, []) if _moves(model, node, TO_FIRST)]
    others = [node for node in readers.get(taken.name, []) if node not in moves]
    if (moves and others) or any(_leads_to_move(model, node, readers) for node in others):
        raise GliosliceError(
            f"its input {taken.name} has its channels last, and other nodes than a Transpose read "
            "it; export the network with channels first (tf2onnx: --inputs-as-nchw)"
        )
    last = makers.get(computed.name)
    moved_out = last is not None and _moves(model, last, TO_LAST)
    if last is not None and not moved_out and _follows_move(model, last, makers):
        raise GliosliceError(
            f"its output {computed.name} has its channels last, and {last.op_type} comes after the "
            "Transpose; export the network with channels first (tf2onnx: --outputs-as-nchw), or "
            f"without {last.op_type}"
        )
    for node in moves:
        for reader in readers.get(node.output[0], []):
            reader.input[:] = [taken.name if n == node.output[0] else n for n in reader.input]
    if moves:
        sizes = taken.type.tensor_type.shape.dim
        _, rows, columns, channels = (int(size.dim_value) for size in sizes)
        for size, value in zip(sizes[1:], (channels, rows, columns), strict=True):
            size.dim_value = value
    if moved_out and last is not None:
        source = makers[last.input[0]]
        name = last.input[0]
        source.output[:] = [computed.name if n == name else n for n in source.output]
        for reader in readers.get(name, []):
            reader.input[:] = [computed.name if n == name else n for n in reader.input]
    gone = [*moves, *([last] if moved_out else [])]
    _replace_nodes(graph, [node for node in graph.node if not any(node is one for one in gone)])
    del graph.value_info[:]
    graph.output[0].type.tensor_type.ClearField("shape")
    return ChannelsLast(bool(moves), moved_out)


def pad_before_pooling(model: Any) -> None:
    """Give max pooling that pads a node that pads, in place.

    Zeros are padded where no value is negative. Elsewhere the outer rows and columns are repeated:
    a window that reaches beyond them holds them too, so the largest value is the same.
    """
    shapes = _known_shapes(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    kept = []
    for node in model.graph.node:
        pads = _pooling_pads(node, shapes) if node.op_type == "MaxPool" else None
        if pads is None or not any(pads):
            kept.append(node)
            continue
        if _never_negative(node.input[0], makers):
            kept += _pad_with_zeros(model.graph, node, pads)
        elif all(step == 1 for step in _numbers(node, "dilations", [1, 1])):
            kept += _repeat_borders(model.graph, node, pads, shapes[node.input[0]])
        else:
            kept.append(node)
            continue
        attributes = [a for a in node.attribute if a.name not in ("pads", "auto_pad", "ceil_mode")]
        del node.attribute[:]
        node.attribute.extend(attributes)
        kept.append(node)
    _replace_nodes(model.graph, kept)
    del model.graph.value_info[:]


def _pooling_pads(node: Any, shapes: dict[str, tuple[int, ...]]) -> list[int] | None:
    """Return what a max pooling adds at top, left, bottom and right; None if it is not known."""
    taken, computed = shapes.get(node.input[0]), shapes.get(node.output[0])
    if taken is None or computed is None or len(taken) != 4 or len(node.output) > 1:
        return None
    kernel = _numbers(node, "kernel_shape", [])
    strides, dilations = (_numbers(node, name, [1, 1]) for name in ("strides", "dilations"))
    given = _numbers(node, "pads", [0, 0, 0, 0])
    auto = next((a.s.decode() for a in node.attribute if a.name == "auto_pad"), "NOTSET")
    pads = [0, 0, 0, 0]
    for axis in (0, 1):
        reach = (computed[axis + 2] - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        whole = max(0, reach - taken[axis + 2])
        before = {"SAME_UPPER": whole // 2, "SAME_LOWER": whole - whole // 2}.get(auto, given[axis])
        pads[axis], pads[axis + 2] = before, max(0, whole - before)
    return pads


def _pad_with_zeros(graph: Any, pool: Any, pads: list[int]) -> list[Any]:
    import onnx

    name = f"{pool.name or pool.output[0]}/pad"
    top, left, bottom, right = pads
    amounts = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
    zero = np.zeros((), np.float32)
    graph.initializer.append(onnx.numpy_helper.from_array(amounts, f"{name}/amounts"))
    graph.initializer.append(onnx.numpy_helper.from_array(zero, f"{name}/zero"))
    inputs = [pool.input[0], f"{name}/amounts", f"{name}/zero"]
    pool.input[0] = f"{name}/out"
    return [onnx.helper.make_node("Pad", inputs, [f"{name}/out"], name=name, mode="constant")]


def _repeat_borders(graph: Any, pool: Any, pads: list[int], shape: tuple[int, ...]) -> list[Any]:
    import onnx

    nodes = []
    for axis in (2, 3):
        before, after, size = pads[axis - 2], pads[axis], shape[axis]
        parts = [pool.input[0]]
        for count, index, front in ((before, 0, True), (after, size - 1, False)):
            if not count:
                continue
            name = f"{pool.name or pool.output[0]}/border{axis}{'ab'[index > 0]}"
            for part, value in (("from", index), ("to", index + 1), ("axis", axis)):
                array = np.array([value], np.int64)
                graph.initializer.append(onnx.numpy_helper.from_array(array, f"{name}/{part}"))
            ends = [f"{name}/{part}" for part in ("from", "to", "axis")]
            nodes.append(onnx.helper.make_node("Slice", [pool.input[0], *ends], [name], name=name))
            parts = [name] * count + parts if front else parts + [name] * count
        if len(parts) > 1:
            joined = f"{pool.name or pool.output[0]}/bordered{axis}"
            nodes.append(onnx.helper.make_node("Concat", parts, [joined], name=joined, axis=axis))
            pool.input[0] = joined
    return nodes


def _never_negative(name: str, makers: dict[str, Any]) -> bool:
    node = makers.get(name)
    if node is None:
        return False
    if node.op_type in NEVER_NEGATIVE:
        return True
    if node.op_type in PASSING:
        inputs = node.input if node.op_type == "Concat" else node.input[:1]
        return all(_never_negative(one, makers) for one in inputs)
    return node.op_type == "Add" and all(_never_negative(one, makers) for one in node.input)


def _moves(model: Any, node: Any, order: list[int]) -> bool:
    """Return whether a node moves the channels as `order` does, by Transpose or by Reshape."""
    if node.op_type == "Transpose":
        return _numbers(node, "perm", []) == order
    if node.op_type != "Reshape":
        return False
    shapes = _known_shapes(model)
    taken, computed = shapes.get(node.input[0]), shapes.get(node.output[0])
    if taken is None or computed is None or len(taken) != 4 or len(computed) != 4:
        return False
    # Of a single channel the order of the values is the same.
    channels = taken[3] if order == TO_FIRST else taken[1]
    return channels == 1 and computed == tuple(taken[i] for i in order) != taken


def _leads_to_move(model: Any, node: Any, readers: dict[str, list[Any]]) -> bool:
    if _moves(model, node, TO_FIRST):
        return True
    return node.op_type in ELEMENTWISE and any(
        _leads_to_move(model, reader, readers)
        for name in node.output
        for reader in readers.get(name, [])
    )


def _follows_move(model: Any, node: Any, makers: dict[str, Any]) -> bool:
    if _moves(model, node, TO_LAST):
        return True
    return node.op_type in ELEMENTWISE and any(
        _follows_move(model, makers[name], makers) for name in node.input if name in makers
    )


def _readers(graph: Any) -> dict[str, list[Any]]:
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    return readers


def _known_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the sizes of the tensors that have fixed ones."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        sizes = tuple(int(size.dim_value) for size in kind.shape.dim)
        if kind.HasField("shape") and prod(sizes) > 0:
            shapes[value.name] = sizes
    return shapes


def _opsets(model: Any) -> dict[str, int]:
    return {entry.domain: entry.version for entry in model.opset_import}


def _numbers(node: Any, name: str, default: list[int]) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name and a.ints), default)


def _replace_nodes(graph: Any, nodes: list[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
