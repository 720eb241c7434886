"""How much of the error at the network's output each layer is to blame for.

The error that has piled up at a tensor does not say where it entered: a channel too wide swallows
its neighbours where it is written, yet its own size hides that in the tensor's signal-to-noise
ratio, which only falls layers later. So each layer alone is taken to int8 in the float network, its
weights rounded as the int8 file has them, what it writes rounded and cut to the int8 file's range,
and the error is measured where it matters, at the logits. Errors of different layers are small and
nearly independent, so their powers add up: a layer's power over the sum of all is its share.

Layer by layer: where the int8 file differs from the float one, and what each layer costs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.tflite.editor import (
    MARKERS,
    SAME_SCALE,
    constant,
    flowing,
    op_name,
    set_constant,
    shape_of,
    written,
)
from convert.tflite.interpreter import decibels, is_real, outputs_of, scale_of, values_of
from convert.tflite.ops import ops_of
from convert.tflite.reader import list_of, read_model
from glioslice.errors import GliosliceError

VERSION = 2
"""Of QUANTIZE and DEQUANTIZE: the first that takes int8."""


def powers(
    fp32: bytes, int8: bytes, same: Mapping[int, int], slices: NDArray[np.float32]
) -> tuple[float, dict[int, float]]:
    """Return the power of the float logits over `slices` (N, X, Y, C), and that of the errors.

    `same` has the int8 file's number of each tensor that the float file computes, and of its input.
    The errors are those that quantising this tensor and the weights behind it alone causes.
    """
    wanted = outputs_of(fp32, slices).astype(np.float64)
    errors = {}
    for index, twin in same.items():
        given = outputs_of(with_one_quantised(fp32, int8, index, twin), slices)
        errors[index] = float(((given - wanted) ** 2).mean())
    return float((wanted**2).mean()), errors


def with_one_quantised(fp32: bytes, int8: bytes, index: int, twin: int) -> bytes:
    """Return the float file with tensor `index`, `twin` in the int8 file, as that one has it."""
    model, other = read_model(fp32), read_model(int8)
    main = model.subgraphs[0]
    makers = [o for o in list_of(main.operators) if index in list_of(o.outputs)]
    for maker in makers:
        _round_weights(model, maker, other, twin)
    quantisation = other.subgraphs[0].tensors[twin].quantization
    if quantisation is None or quantisation.scale is None:
        return written(model)
    coded = _tensor(model, index, schema.TensorType.INT8, quantisation)
    rounded = _tensor(model, index, schema.TensorType.FLOAT32, None)
    readers = [o for o in list_of(main.operators) if index in list_of(o.inputs)]
    for reader in readers:
        reader.inputs = np.array([rounded if i == index else i for i in reader.inputs], np.int32)
    main.outputs = np.array([rounded if i == index else i for i in main.outputs], np.int32)
    for graph in list_of(model.signatureDefs):
        for entry in list_of(graph.outputs):
            entry.tensorIndex = rounded if entry.tensorIndex == index else entry.tensorIndex
    place = main.operators.index(makers[0]) + 1 if makers else 0
    main.operators[place:place] = [
        _operator(model, schema.BuiltinOperator.QUANTIZE, index, coded),
        _operator(model, schema.BuiltinOperator.DEQUANTIZE, coded, rounded),
    ]
    return written(model)


def _round_weights(model: Any, maker: Any, other: Any, twin: int) -> None:
    """Give an op's weights and bias the values that those of the int8 op stand for."""
    theirs = next(o for o in other.subgraphs[0].operators if twin in list_of(o.outputs))
    pairs = zip(list_of(maker.inputs), list_of(theirs.inputs), strict=False)  # one may lack a bias
    for own, coded in ((o, c) for o, c in pairs if o != -1 and c != -1):
        tensor = model.subgraphs[0].tensors[own]
        source = other.subgraphs[0].tensors[coded]
        values, quantisation = constant(other, source), source.quantization
        if values is None or tensor.type != schema.TensorType.FLOAT32:
            continue
        if quantisation is None or quantisation.scale is None:  # left in float
            continue
        along = [1] * values.ndim
        along[quantisation.quantizedDimension] = len(quantisation.scale)
        scales = np.asarray(quantisation.scale, np.float64).reshape(along)
        zeros = np.asarray(quantisation.zeroPoint, np.float64).reshape(along)
        set_constant(model, tensor, (values - zeros) * scales)


def _tensor(model: Any, like: int, kind: int, quantisation: Any) -> int:
    main = model.subgraphs[0]
    made = schema.TensorT()
    made.shape = np.array(shape_of(main.tensors[like]), np.int32)
    made.type, made.quantization, made.name = kind, quantisation, b""
    main.tensors.append(made)
    return len(main.tensors) - 1


def _operator(model: Any, code: int, read: int, made: int) -> Any:
    known = schema.OperatorCodeT()
    known.builtinCode = known.deprecatedBuiltinCode = code
    known.version = VERSION
    model.operatorCodes.append(known)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.array([read], np.int32), np.array([made], np.int32)
    return operator


INPUT = "INPUT"
ROUNDING = frozenset({"AVERAGE_POOL_2D", "RESIZE_BILINEAR"})
"""Ops that make new values under the scale of the old ones."""


@dataclass(frozen=True)
class Layer:
    """A tensor of the network, computed by `op`; the first is the input.

    `name` says which layer of the trained network it is, where that is known. `low` and `high` are
    the extremes of the float network, `clipped` is the share of its values outside the int8 range.
    `snr` is the ratio in dB of the float values to the error of the int8 file's, with all that came
    before; `alone` is that of the logits where this layer alone is int8, and `share` its part of
    the error at the logits (`convert.verify.layer_errors`). `bytes` are its constants and their scales.
    """

    number: int
    op: str
    name: str
    shape: tuple[int, ...]
    low: float
    high: float
    clipped: float
    snr: float
    alone: float
    share: float
    bytes: int
    macs: int


def layers_of(
    fp32: bytes, int8: bytes, slices: NDArray[np.float32], names: Mapping[int, str]
) -> tuple[Layer, ...]:
    """Return the layers of a float file and of the int8 file made of it, over `slices`.

    `names` has those of tensors of the float file, by index; what is not in it is named after what
    it reads. Tensors that stand for no real numbers in one of the files are left out. Raises
    GliosliceError if the two files do not hold the same ops, or the runtime refuses one.
    """
    model, other = read_model(fp32), read_model(int8)
    tensors, others = (m.subgraphs[0].tensors for m in (model, other))
    same = {
        index: twin
        for index, twin in twins(model, other).items()
        if is_real(tensors[index]) and is_real(others[twin])
    }
    seen = {index: _Seen() for index in same}
    bounds = {index: _bounds(others[twin]) for index, twin in same.items()}
    for wanted, given in zip(values_of(fp32, slices), values_of(int8, slices), strict=True):
        for index, twin in same.items():
            seen[index].add(wanted[index], given[twin], bounds[index])
    taken = _taken_over(other)
    own = {index: twin for index, twin in same.items() if twin not in taken}
    signal, errors = powers(fp32, int8, own, slices)
    whole = sum(errors.values())
    makers = {
        int(index): (operator, op.macs)
        for operator, op in zip(other.subgraphs[0].operators, ops_of(other), strict=True)
        for index in operator.outputs
    }
    labels = labels_of(model, names)
    rows = []
    for number, (index, twin) in enumerate(same.items()):
        (maker, macs), of = makers.get(twin, (None, 0)), seen[index]
        rows.append(
            Layer(
                number=number,
                op=op_name(other, maker) if maker is not None else INPUT,
                name=labels[index],
                shape=shape_of(tensors[index])[1:],
                low=of.low,
                high=of.high,
                clipped=of.outside / of.count,
                snr=decibels(of.signal, of.noise),
                alone=decibels(signal, errors.get(index, 0.0)),
                share=errors.get(index, 0.0) / whole if whole else 0.0,
                bytes=_bytes(other, maker),
                macs=macs,
            )
        )
    return tuple(rows)


def twins(model: Any, other: Any) -> dict[int, int]:
    """Return the number in `other` of each tensor that flows in `model`, in the order of the ops.

    Raises GliosliceError if their ops, but for those that only quantise, are not the same.
    """
    one, two = (_chain(m) for m in (model, other))
    if [name for name, _ in one] != [name for name, _ in two]:
        raise GliosliceError(
            "the int8 file has other ops than the float one: layers cannot be told apart"
        )
    return {own: its for (_, own), (_, its) in zip(one, two, strict=True)}


def labels_of(model: Any, names: Mapping[int, str]) -> dict[int, str]:
    """Return a name for each tensor that flows: that in `names`, or those of what it is made of."""
    main = model.subgraphs[0]
    labels = {int(main.inputs[0]): "input"}
    for operator in main.operators:
        read = [labels.get(i, "") for i in flowing(model, operator.inputs)]
        label = " + ".join(dict.fromkeys(part for part in read if part))
        for index in flowing(model, operator.outputs):
            labels[index] = names.get(index, label)
    return labels


@dataclass
class _Seen:
    low: float = 0.0
    high: float = 0.0
    outside: int = 0
    count: int = 0
    signal: float = 0.0
    noise: float = 0.0

    def add(
        self,
        wanted: NDArray[np.float32],
        given: NDArray[np.float32],
        bounds: tuple[float, float],
    ) -> None:
        low, high = bounds
        self.low, self.high = min(self.low, wanted.min()), max(self.high, wanted.max())
        self.outside += int(((wanted < low) | (wanted > high)).sum())
        self.count += wanted.size
        exact = wanted.astype(np.float64)
        self.signal += float((exact**2).sum())
        self.noise += float(((exact - given) ** 2).sum())


def _chain(model: Any) -> list[tuple[str, int]]:
    main = model.subgraphs[0]
    chain = [(INPUT, int(main.inputs[0]))]
    for operator in main.operators:
        name = op_name(model, operator)
        if name not in MARKERS:
            chain += [(name, index) for index in flowing(model, operator.outputs)]
    return chain


def _taken_over(model: Any) -> set[int]:
    """Return the tensors that only take over values of their own scale: no new error."""
    main = model.subgraphs[0]
    scales = [scale_of(tensor) for tensor in main.tensors]
    return {
        index
        for operator in main.operators
        if op_name(model, operator) in SAME_SCALE - ROUNDING
        for index in flowing(model, operator.outputs)
        if all(scales[i] == scales[index] for i in flowing(model, operator.inputs))
    }


def _bounds(tensor: Any) -> tuple[float, float]:
    """Return what a tensor can hold, half a step wider: rounding is no clipping."""
    of = scale_of(tensor)
    if of is None:  # an op that has no int8 kernel was left in float
        return -np.inf, np.inf
    scale, zero_point = of
    return (-128.5 - zero_point) * scale, (127.5 - zero_point) * scale


def _bytes(model: Any, maker: Any) -> int:
    total = 0
    for index in [] if maker is None else list_of(maker.inputs):
        tensor = model.subgraphs[0].tensors[index]
        values = constant(model, tensor) if index != -1 else None
        if values is not None:
            scales = list_of(tensor.quantization.scale) if tensor.quantization else []
            total += values.nbytes + 4 * len(scales)
    return total
