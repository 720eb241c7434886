"""Layer by layer: where the int8 file differs from the float one, and what each layer costs.

The error that has accumulated at a tensor does not show where it arose. A channel that is too wide
drowns the others of its tensor, yet its own size hides that in the tensor's signal-to-noise ratio,
which falls only layers later. So each layer's sensitivity is measured alone: in the float network,
its weights are rounded to those of the int8 file, its output is rounded and clipped to the int8
file's range, and the error is measured at the logits. Errors of different layers are small and
nearly independent, so their powers add up: a layer's share is its power over the sum of all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.tflite.interpreter import decibels, is_real, output_values, scale_of, tensor_values
from convert.tflite.reader import (
    QUANTIZE_OPS,
    SAME_SCALE,
    constant,
    list_of,
    non_constant,
    op_name,
    ops_of,
    read_model,
    set_constant,
    shape_of,
)
from convert.tflite.writer import serialize
from glioslice.errors import GliosliceError

QUANTIZE_VERSION = 2
"""The first version of QUANTIZE and DEQUANTIZE that takes int8."""


INPUT = "INPUT"
ROUNDING = frozenset({"AVERAGE_POOL_2D", "RESIZE_BILINEAR"})
"""Ops that compute new values under the scale of their input."""


@dataclass(frozen=True)
class Layer:
    """A tensor of the network, computed by `op`; the first is the input.

    `name` is the layer of the trained network, where that is known. `low` and `high` are the
    extremes of the float network, `clipped` is the share of its values outside the int8 range.
    `snr` is the ratio in dB of the float values to the int8 file's error, including all earlier
    errors; `alone` is that of the logits where only this layer is int8, and `share` its part of the
    error at the logits. `bytes` counts its constants and their scales.
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


def error_powers(
    fp32: bytes, int8: bytes, pairs: Mapping[int, int], slices: NDArray[np.float32]
) -> tuple[float, dict[int, float]]:
    """Return the power of the float logits over `slices` (N, X, Y, C), and that of each error.

    `pairs` maps each tensor of the float file to that of the int8 file. Its error is the one that
    arises where only this tensor and the weights that compute it are quantized.
    """
    wanted = output_values(fp32, slices).astype(np.float64)
    errors = {}
    for index, twin in pairs.items():
        given = output_values(quantize_one_tensor(fp32, int8, index, twin), slices)
        errors[index] = float(((given - wanted) ** 2).mean())
    return float((wanted**2).mean()), errors


def quantize_one_tensor(fp32: bytes, int8: bytes, index: int, twin: int) -> bytes:
    """Return the float file with tensor `index` quantized as the int8 file's tensor `twin` is."""
    model, other = read_model(fp32), read_model(int8)
    main = model.subgraphs[0]
    makers = [o for o in list_of(main.operators) if index in list_of(o.outputs)]
    for maker in makers:
        _round_weights(model, maker, other, twin)
    quantization = other.subgraphs[0].tensors[twin].quantization
    if quantization is None or quantization.scale is None:
        return serialize(model)
    coded = _add_tensor(model, index, schema.TensorType.INT8, quantization)
    rounded = _add_tensor(model, index, schema.TensorType.FLOAT32, None)
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
    return serialize(model)


def _round_weights(model: Any, maker: Any, other: Any, twin: int) -> None:
    """Set an op's weights and bias to the values that those of the int8 op represent."""
    int8_maker = next(o for o in other.subgraphs[0].operators if twin in list_of(o.outputs))
    pairs = zip(
        list_of(maker.inputs), list_of(int8_maker.inputs), strict=False
    )  # one may lack a bias
    for own, coded in ((o, c) for o, c in pairs if o != -1 and c != -1):
        tensor = model.subgraphs[0].tensors[own]
        source = other.subgraphs[0].tensors[coded]
        values, quantization = constant(other, source), source.quantization
        if values is None or tensor.type != schema.TensorType.FLOAT32:
            continue
        if quantization is None or quantization.scale is None:  # left in float
            continue
        along = [1] * values.ndim
        if along:  # a number that scales a whole tensor has no dimensions
            along[quantization.quantizedDimension] = len(quantization.scale)
        scales = np.asarray(quantization.scale, np.float64).reshape(along)
        zeros = np.asarray(quantization.zeroPoint, np.float64).reshape(along)
        set_constant(model, tensor, (values - zeros) * scales)


def _add_tensor(model: Any, like: int, kind: int, quantization: Any) -> int:
    """Add a tensor of the same shape as tensor `like` and return its index."""
    main = model.subgraphs[0]
    tensor = schema.TensorT()
    tensor.shape = np.array(shape_of(main.tensors[like]), np.int32)
    tensor.type, tensor.quantization, tensor.name = kind, quantization, b""
    main.tensors.append(tensor)
    return len(main.tensors) - 1


def _operator(model: Any, code: int, source: int, result: int) -> Any:
    entry = schema.OperatorCodeT()
    entry.builtinCode = entry.deprecatedBuiltinCode = code
    entry.version = QUANTIZE_VERSION
    model.operatorCodes.append(entry)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([result], np.int32)
    return operator


def measure_layers(
    fp32: bytes, int8: bytes, slices: NDArray[np.float32], names: Mapping[int, str]
) -> tuple[Layer, ...]:
    """Return the layers of a float file and the int8 file made of it, measured over `slices`.

    `names` holds the names of the float file's tensors, by index; others are named after their
    inputs. Tensors that represent no real numbers in one of the files are left out. Raises
    GliosliceError if the two files do not hold the same ops, or the runtime rejects one.
    """
    model, other = read_model(fp32), read_model(int8)
    tensors, others = (m.subgraphs[0].tensors for m in (model, other))
    pairs = {
        index: twin
        for index, twin in matching_tensors(model, other).items()
        if is_real(tensors[index]) and is_real(others[twin])
    }
    statistics = _compare_values(fp32, int8, slices, pairs, others)
    copies = _copied_tensors(other)
    own = {index: twin for index, twin in pairs.items() if twin not in copies}
    signal, errors = error_powers(fp32, int8, own, slices)
    total = sum(errors.values())
    makers = {
        int(index): (operator, op.macs)
        for operator, op in zip(other.subgraphs[0].operators, ops_of(other), strict=True)
        for index in operator.outputs
    }
    labels = label_tensors(model, names)
    layers = []
    for number, (index, twin) in enumerate(pairs.items()):
        (maker, macs), found = makers.get(twin, (None, 0)), statistics[index]
        layers.append(
            Layer(
                number=number,
                op=op_name(other, maker) if maker is not None else INPUT,
                name=labels[index],
                shape=shape_of(tensors[index])[1:],
                low=found.low,
                high=found.high,
                clipped=found.outside / found.count,
                snr=decibels(found.signal, found.noise),
                alone=decibels(signal, errors.get(index, 0.0)),
                share=errors.get(index, 0.0) / total if total else 0.0,
                bytes=_constant_bytes(other, maker),
                macs=macs,
            )
        )
    return tuple(layers)


def matching_tensors(model: Any, other: Any) -> dict[int, int]:
    """Return the index in `other` of each non-constant tensor of `model`, in the order of the ops.

    Raises GliosliceError if their ops, except those that only quantize, are not the same.
    """
    one, two = (_computed_tensors(m) for m in (model, other))
    if [name for name, _ in one] != [name for name, _ in two]:
        raise GliosliceError(
            "the int8 file has other ops than the float one: layers cannot be compared"
        )
    return {index: twin for (_, index), (_, twin) in zip(one, two, strict=True)}


def label_tensors(model: Any, names: Mapping[int, str]) -> dict[int, str]:
    """Return a name for each non-constant tensor: that in `names`, or those of its inputs."""
    main = model.subgraphs[0]
    labels = {int(main.inputs[0]): "input"}
    for operator in main.operators:
        inputs = [labels.get(i, "") for i in non_constant(model, operator.inputs)]
        label = " + ".join(dict.fromkeys(part for part in inputs if part))
        for index in non_constant(model, operator.outputs):
            labels[index] = names.get(index, label)
    return labels


def _compare_values(
    fp32: bytes,
    int8: bytes,
    slices: NDArray[np.float32],
    pairs: Mapping[int, int],
    int8_tensors: Any,
) -> dict[int, "_Statistics"]:
    """Return how the values of each pair of tensors differ over the slices."""
    statistics = {index: _Statistics() for index in pairs}
    bounds = {index: _bounds(int8_tensors[twin]) for index, twin in pairs.items()}
    runs = zip(tensor_values(fp32, slices), tensor_values(int8, slices), strict=True)
    for wanted, given in runs:
        for index, twin in pairs.items():
            statistics[index].add(wanted[index], given[twin], bounds[index])
    return statistics


@dataclass
class _Statistics:
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


def _computed_tensors(model: Any) -> list[tuple[str, int]]:
    """Return op and index of each tensor that is not constant or a mere requantization."""
    main = model.subgraphs[0]
    found = [(INPUT, int(main.inputs[0]))]
    for operator in main.operators:
        name = op_name(model, operator)
        if name not in QUANTIZE_OPS:
            found += [(name, index) for index in non_constant(model, operator.outputs)]
    return found


def _copied_tensors(model: Any) -> set[int]:
    """Return the tensors whose values are copies under the same scale, so without new error."""
    main = model.subgraphs[0]
    scales = [scale_of(tensor) for tensor in main.tensors]
    return {
        index
        for operator in main.operators
        if op_name(model, operator) in SAME_SCALE - ROUNDING
        for index in non_constant(model, operator.outputs)
        if all(scales[i] == scales[index] for i in non_constant(model, operator.inputs))
    }


def _bounds(tensor: Any) -> tuple[float, float]:
    """Return the range that a tensor can hold, half a step wider, as rounding is not clipping."""
    scaling = scale_of(tensor)
    if scaling is None:  # an op without an int8 kernel stayed in float
        return -np.inf, np.inf
    scale, zero_point = scaling
    return (-128.5 - zero_point) * scale, (127.5 - zero_point) * scale


def _constant_bytes(model: Any, maker: Any) -> int:
    """Return the bytes of an op's constants and their scales."""
    total = 0
    for index in [] if maker is None else list_of(maker.inputs):
        tensor = model.subgraphs[0].tensors[index]
        values = constant(model, tensor) if index != -1 else None
        if values is not None:
            scales = list_of(tensor.quantization.scale) if tensor.quantization else []
            total += values.nbytes + 4 * len(scales)
    return total
