"""The limits that the Edge TPU's documentation sets to single ops: see `coral_list`."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from convert.ops import Op, Tensor

Refusal = tuple[str, str]
"""Why an op is refused, and how to mend it."""
Rule = Callable[[Op], Iterator[Refusal]]

SOFTMAX_ELEMENTS = 16_000
NO_ACTIVATION = schema.ActivationFunctionType.NONE


def _no_activation(op: Op) -> Iterator[Refusal]:
    if op.options is not None and op.options.fusedActivationFunction != NO_ACTIVATION:
        yield "it has a fused activation", "move the activation into an op of its own, before it"


def _concatenation(op: Op) -> Iterator[Refusal]:
    yield from _no_activation(op)
    constants = [given for given in op.inputs if given is not None and given.constant]
    zeros = all(c.values is not None and bool(np.all(c.values == c.zero_point)) for c in constants)
    if constants and (len(op.inputs) != 2 or not zeros):
        yield "a constant among its inputs", "concatenate two inputs, the constant all zeros"


def _equal_dilation(op: Op) -> Iterator[Refusal]:
    if op.options is not None and op.options.dilationHFactor != op.options.dilationWFactor:
        yield "other dilation in y than in x", "dilate by the same factor both ways"


def _fully_connected(op: Op) -> Iterator[Refusal]:
    if op.options is not None and op.options.weightsFormat:
        yield "shuffled weights", "convert with weights in the default format"
    if sum(size > 1 for size in op.outputs[0].shape) > 1:
        yield "its output has more than one dimension", "use a 1 x 1 CONV_2D, or flatten before it"


def _not_batch(op: Op, axes: Iterable[int], verb: str) -> Iterator[Refusal]:
    rank = len(op.outputs[0].shape if op.name == "PACK" else _given(op).shape)
    if rank and any(axis % rank == 0 for axis in axes):
        yield f"it {verb}s the batch dimension", f"{verb} other dimensions than the first"


def _reduce(op: Op) -> Iterator[Refusal]:
    axes = [int(axis) for axis in np.ravel(_constant(op, 1))]
    yield from _not_batch(op, axes, "reduce")
    shape = _given(op).shape
    innermost = bool(shape) and any(axis % len(shape) == len(shape) - 1 for axis in axes)
    if op.name == "MEAN" and innermost and shape[-1] % 4:
        yield f"a mean over {shape[-1]} channels", "use a multiple of 4 channels"


def _pack(op: Op) -> Iterator[Refusal]:
    yield from _not_batch(op, [op.options.axis if op.options is not None else 0], "pack")


def _pad(op: Op) -> Iterator[Refusal]:
    if np.any(_constant(op, 1)[:1]):
        yield "it pads the batch dimension", "pad other dimensions than the first"


def _prelu(op: Op) -> Iterator[Refusal]:
    alpha = op.inputs[1]
    if alpha is not None and any(size > 1 for size in alpha.shape[:-1]):
        yield "one alpha for each place", "share alpha between places: shared_axes=[1, 2] in Keras"


def _resize(op: Op) -> Iterator[Refusal]:
    if op.options is not None and op.options.halfPixelCenters:
        # Issues 187, 396 and 420, of compilers 14 and 15.
        yield "operation version not supported: half-pixel centres", "resize in the plain form"


def _softmax(op: Op) -> Iterator[Refusal]:
    shape = _given(op).shape
    if sum(size > 1 for size in shape) > 1:
        yield "its input has more than one dimension", "take the softmax on the CPU, behind all"
    elif max(shape, default=1) > SOFTMAX_ELEMENTS:
        yield f"more than {SOFTMAX_ELEMENTS:,} elements", "use fewer classes"


def _split(op: Op) -> Iterator[Refusal]:
    yield from _not_batch(op, [int(axis) for axis in np.ravel(_constant(op, 0))], "split")


def _strided_slice(op: Op) -> Iterator[Refusal]:
    if np.any(_constant(op, 3) != 1):
        yield "strides other than 1", "slice with strides of 1"
    if op.options is not None and (op.options.ellipsisMask or op.options.newAxisMask):
        yield "an ellipsis or a new axis", "name begin and end of each dimension"


def _given(op: Op) -> Tensor:
    """Return the op's main input."""
    number = {"TRANSPOSE_CONV": 2, "SPLIT": 1}.get(op.name, 0)
    given = op.inputs[number]
    if given is None:
        raise ValueError(f"{op.name} without its input")
    return given


def _constant(op: Op, number: int) -> np.ndarray:  # type: ignore[type-arg]
    """Return a constant, empty where there is none: that is refused elsewhere."""
    values = op.value(number)
    return np.zeros(0, np.int32) if values is None else values


RULES: dict[str, Rule] = {
    "AVERAGE_POOL_2D": _no_activation,
    "CONCATENATION": _concatenation,
    "CONV_2D": _equal_dilation,
    "DEPTHWISE_CONV_2D": _equal_dilation,
    "FULLY_CONNECTED": _fully_connected,
    "MAX_POOL_2D": _no_activation,
    "MEAN": _reduce,
    "PACK": _pack,
    "PAD": _pad,
    "PRELU": _prelu,
    "REDUCE_MAX": _reduce,
    "REDUCE_MIN": _reduce,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "STRIDED_SLICE": _strided_slice,
    "SUM": _reduce,
}
"""The limits that are documented for single ops."""
