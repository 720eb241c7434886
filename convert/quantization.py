"""Make an int8 file of a float file, by one quantization strategy after the other until one passes.

1. usual calibration: the extremes over a few slices of each case
2. more slices: three times as many, chosen for tumour and for large intensities
3. ranges by error: large values are clipped where that costs less than a coarse step for all
4. equalised channels: wide channels are scaled down and their consumers up, skips above all
5. equalised channels, ranges by error

Strategies 2 to 5 use the same slices. The float network computes the same in all of them.

TensorFlow's converter calibrates and quantizes in one go. Here these are two steps, so that ranges
can be inspected and changed between them: `calibrate` returns a float file whose tensors carry a
minimum and a maximum, and `quantize_file` makes the int8 file of it. Without a change between them
the result is byte for byte the converter's own.

`fit_ranges` chooses the range of each tensor by squared error instead of by its extremes. A few
large values make the step coarse for all others. Clipping them costs the square of what is clipped;
the best range is where the two costs balance.

`equalize` evens the ranges of a tensor's channels without changing what the float network computes.
int8 has one step for all channels of a tensor. If one channel is fifty times wider than the others,
five steps are left for those. A factor s in the convolution that computes a channel and 1 / s in
the one that reads it cancel: positive factors commute with ReLU, pooling, resizing and
concatenation, and with an addition if both sides have the same. So each channel has a free factor,
shared by all tensors that it passes through; a skip and what it is added to always share theirs.

Cross-layer equalization is due to Nagel et al., "Data-Free Quantization Through Weight Equalization
and Bias Correction" (ICCV 2019); its balance of activations and weights here is that of Xiao et
al., "SmoothQuant" (ICML 2023), with strength 1/2. The factors are powers of two: float arithmetic
commutes with them exactly, so the float file computes the same bits.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from convert.artifacts import ModelFile
from convert.calibration import spread
from convert.log_capture import capture_output
from convert.tflite.interpreter import tensor_values
from convert.tflite.reader import (
    SAME_SCALE,
    constant,
    list_of,
    non_constant,
    op_name,
    read_model,
    set_constant,
    shape_of,
)
from convert.tflite.writer import serialize
from convert.verify.acceptance import Evaluation, GateResult
from glioslice.errors import GliosliceError

STEPS = 255
BINS = 2048
CANDIDATES = np.linspace(1, 0.02, 99)
"""Fractions of an extreme at which a range may end."""

Range = tuple[float, float]

ROUNDS = 8

PASSING = frozenset(
    {"MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR", "RELU", "ADD"}
)
"""Ops that scale channel c of their output as channel c of each input is scaled."""

HOMOGENEOUS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
"""Activations that commute with a positive factor."""

Doubles = NDArray[np.float64]

STRATEGIES = (
    "usual calibration",
    "more slices",
    "ranges by error",
    "equalised channels",
    "equalised channels, ranges by error",
)
"""The names in the order of the attempts; `report.json` holds them."""

MAX_INSPECTED = 96
"""Slices of which every value is inspected, a second each; extremes are taken over all slices."""

Slices = NDArray[np.float32]
"""(N, X, Y, C), as the TFLite file takes them one by one."""


@dataclass
class Histogram:
    """Counts of values in [low, high]; exact zeros, which cost nothing, are left out."""

    low: float
    high: float
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values; one outside the extremes counts as the extreme."""
        clipped = values[values != 0].clip(self.low, self.high)
        self.counts += np.histogram(clipped, BINS, (self.low, self.high))[0]


def fit_ranges(calibrated: bytes, slices: NDArray[np.float32]) -> bytes:
    """Return a calibrated file with the ranges of least squared error over `slices` (N, X, Y, C).

    Tensors that must share a scale share a range. The input keeps its range, the clip range.
    """
    model = read_model(calibrated)
    tensors = model.subgraphs[0].tensors
    groups = [group for group in scale_groups(model) if _may_change(model, group)]
    sources = {group: sorted(set(group) & _computed(model)) for group in groups}
    histograms = {
        group: Histogram(
            min(0.0, *(float(tensors[i].quantization.min[0]) for i in sources[group])),
            max(0.0, *(float(tensors[i].quantization.max[0]) for i in sources[group])),
        )
        for group in groups
    }
    for values in tensor_values(calibrated, slices):
        for group, histogram in histograms.items():
            for index in sources[group]:
                histogram.add(values[index])
    for group, histogram in histograms.items():
        low, high = best_range(histogram)
        for index in group:
            tensors[index].quantization.min = np.array([low], np.float32)
            tensors[index].quantization.max = np.array([high], np.float32)
    return serialize(model)


def best_range(histogram: Histogram) -> Range:
    """Return the range of least squared error; the extremes if no other candidate is better."""
    lows = histogram.low * CANDIDATES if histogram.low < 0 else np.zeros(1)
    highs = histogram.high * CANDIDATES if histogram.high > 0 else np.zeros(1)
    _, low, high = min(
        ((clipping_cost(histogram, low, high), low, high) for low in lows for high in highs),
        key=lambda candidate: candidate[0],
    )
    return float(low), float(high)


def clipping_cost(histogram: Histogram, low: float, high: float) -> float:
    """Return the squared error of values clipped to [low, high] and rounded to int8 steps.

    The step is (high - low) / 255, and 0 is one of its multiples. A bin's error is that of its
    middle, clipped and rounded, plus width^2 / 12 for its spread. Where a bin is wider than a step,
    it is the clipping error plus step^2 / 12, the variance of rounding.
    """
    step, width = (high - low) / STEPS, (histogram.high - histogram.low) / BINS
    centres = histogram.low + width * (np.arange(BINS) + 0.5)
    clipped = centres.clip(low, high)
    if step > width:
        errors = (centres - step * np.rint(clipped / step)) ** 2 + width**2 / 12
    else:
        errors = (centres - clipped) ** 2 + step**2 / 12
    return float(errors @ histogram.counts)


def scale_groups(model: Any) -> list[tuple[int, ...]]:
    """Return the tensors that are not constants, grouped by the scale that they must share."""
    roots: dict[int, int] = {}

    def root(index: int) -> int:
        while roots.setdefault(index, index) != index:
            index = roots[index]
        return index

    for operator in model.subgraphs[0].operators:
        read = non_constant(model, operator.inputs)
        computed = non_constant(model, operator.outputs)
        for index in (*read, *computed):
            root(index)
        if op_name(model, operator) in SAME_SCALE:
            for index in (*read[1:], *computed):
                roots[root(index)] = root(read[0])
    groups: dict[int, list[int]] = {}
    for index in sorted(roots):
        groups.setdefault(root(index), []).append(index)
    return [tuple(group) for group in groups.values()]


def _may_change(model: Any, group: tuple[int, ...]) -> bool:
    main = model.subgraphs[0]
    known = all(
        main.tensors[i].quantization is not None and main.tensors[i].quantization.min is not None
        for i in group
    )
    return known and not set(group) & {*list_of(main.inputs)}


def _computed(model: Any) -> set[int]:
    """Return the tensors with new values, not copied from another under the same scale."""
    return {
        index
        for operator in model.subgraphs[0].operators
        if op_name(model, operator) not in SAME_SCALE
        for index in non_constant(model, operator.outputs)
    }


def equalize(fp32: bytes, slices: NDArray[np.float32]) -> bytes:
    """Return a float file of the same function whose channels have similar ranges on `slices`."""
    model = read_model(fp32)
    channels = _Channels(model)
    peaks = _channel_peaks(fp32, slices)
    for _ in range(ROUNDS):
        factors = channels.factors(model, peaks)
        if (factors == 1).all():
            break
        for operator in channels.convolutions:
            _rescale(model, operator, channels, factors)
        peaks = {i: x * factors[channels.of(i)] for i, x in peaks.items()}
    return serialize(model)


class _Channels:
    """The channels of all non-constant tensors, those with a common factor as one class."""

    def __init__(self, model: Any) -> None:
        main = model.subgraphs[0]
        self.tensors = main.tensors
        self.start: dict[int, int] = {}
        count = 0
        operators = list_of(main.operators)
        everything = [i for o in operators for i in (*list_of(o.inputs), *list_of(o.outputs))]
        for index in dict.fromkeys([*list_of(main.inputs), *everything]):
            if index != -1 and model.buffers[main.tensors[index].buffer].data is None:
                self.start[int(index)] = count
                count += (shape_of(main.tensors[index]) or (1,))[-1]
        self.roots = np.arange(count)
        self.fixed: set[int] = set()
        self.convolutions = [o for o in operators if _is_plain(model, o, everything)]
        for operator in operators:
            if operator not in self.convolutions:
                self._tie(model, operator)
        for index in (*list_of(main.inputs), *list_of(main.outputs)):
            self._fix(int(index))

    def of(self, index: int) -> NDArray[np.int64]:
        """Return the class of each channel of a tensor."""
        return self.roots[self._own(index)]

    def factors(self, model: Any, peaks: dict[int, Doubles]) -> Doubles:
        """Return a factor for each class, a power of two.

        Let x be the class's largest value relative to its tensor's, and w its largest weight
        relative to its row's. Then sqrt(w / x) makes both equal; the next round corrects the rest.
        """
        x, w = np.zeros(len(self.roots)), np.zeros(len(self.roots))
        for index, values in peaks.items():
            if values.max() > 0:
                np.maximum.at(x, self.of(index), values / values.max())
        for operator in self.convolutions:
            weights = constant(model, self.tensors[operator.inputs[1]])
            assert weights is not None
            rows = np.abs(weights).max(axis=(1, 2)).astype(np.float64)  # (outputs, inputs)
            of_row = rows.max(axis=1, keepdims=True)
            shares = np.divide(rows, of_row, out=np.zeros_like(rows), where=of_row > 0)
            np.maximum.at(w, self.of(int(operator.inputs[0])), shares.max(axis=0))
        known = (x > 0) & (w > 0)
        known[[self.roots[i] for i in self.fixed]] = False
        powers = np.zeros(len(x))
        powers[known] = np.rint(np.log2(w[known] / x[known]) / 2)
        return np.exp2(powers)

    def _own(self, index: int) -> slice:
        start = self.start[index]
        return slice(start, start + (shape_of(self.tensors[index]) or (1,))[-1])

    def _tie(self, model: Any, operator: Any) -> None:
        """Join the classes of an op's inputs and output, or fix them if it may not pass factors."""
        inputs = non_constant(model, operator.inputs)
        outputs = non_constant(model, operator.outputs)
        name, options = op_name(model, operator), operator.builtinOptions
        plain = getattr(options, "fusedActivationFunction", 0) in HOMOGENEOUS and len(outputs) == 1
        shapes = {shape_of(self.tensors[i])[-1:] for i in (*inputs, *outputs)}
        whole = name != "ADD" or len(inputs) == 2
        parts = [self._own(i) for i in inputs]
        if plain and name in PASSING and whole and len(shapes) == 1:
            for part in parts:
                self._join(np.r_[part], np.r_[self._own(outputs[0])])
        elif plain and name == "CONCATENATION" and _along_channels(self.tensors, operator):
            if len(inputs) == len(list_of(operator.inputs)):
                self._join(np.concatenate([np.r_[p] for p in parts]), np.r_[self._own(outputs[0])])
        else:
            for index in (*inputs, *outputs):
                self._fix(index)

    def _join(self, ones: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        for one, other in zip(ones, others, strict=True):
            low, high = sorted((self.roots[one], self.roots[other]))
            self.roots[self.roots == high] = low

    def _fix(self, index: int) -> None:
        self.fixed |= {*range(*self._own(index).indices(len(self.roots)))}


def _is_plain(model: Any, operator: Any, everything: list[int]) -> bool:
    """Return whether this is a convolution whose weights and bias are its own, not grouped."""
    if op_name(model, operator) != "CONV_2D":
        return False
    tensors = model.subgraphs[0].tensors
    own = [int(i) for i in operator.inputs[1:] if i != -1]
    return (
        operator.builtinOptions.fusedActivationFunction in HOMOGENEOUS
        and all(everything.count(i) == 1 and constant(model, tensors[i]) is not None for i in own)
        and shape_of(tensors[own[0]])[-1] == shape_of(tensors[operator.inputs[0]])[-1]
    )


def _along_channels(tensors: Any, operator: Any) -> bool:
    rank = len(shape_of(tensors[operator.outputs[0]]))
    return bool(operator.builtinOptions.axis in (-1, rank - 1))


def _channel_peaks(fp32: bytes, slices: NDArray[np.float32]) -> dict[int, Doubles]:
    """Return the largest absolute value of each channel of each tensor."""
    peaks: dict[int, Doubles] = {}
    for values in tensor_values(fp32, slices):
        for index, of_tensor in values.items():
            if of_tensor.ndim:
                found = np.abs(of_tensor).reshape(-1, of_tensor.shape[-1]).max(axis=0)
                peaks[index] = np.maximum(peaks.get(index, 0), found.astype(np.float64))
    return peaks


def _rescale(model: Any, operator: Any, channels: _Channels, factors: Doubles) -> None:
    """Scale the weights and bias of a convolution by the factors of its channels."""
    tensors = model.subgraphs[0].tensors
    input_factors = factors[channels.of(int(operator.inputs[0]))]
    output_factors = factors[channels.of(int(operator.outputs[0]))]
    weights = tensors[operator.inputs[1]]
    values = constant(model, weights)
    assert values is not None
    set_constant(model, weights, values * output_factors[:, None, None, None] / input_factors)
    for index in list_of(operator.inputs)[2:]:
        bias = constant(model, tensors[index]) if index != -1 else None
        if bias is not None:
            set_constant(model, tensors[index], bias * output_factors)


@dataclass(frozen=True)
class Int8Candidate:
    """An int8 file, and the float file `fp32` that it was made of, by one of STRATEGIES."""

    strategy: str
    fp32: bytes
    int8: bytes


@dataclass(frozen=True)
class Attempt:
    """A candidate and how it did; `evaluations` are those of `files`, by name."""

    candidate: Int8Candidate
    files: tuple[ModelFile, ...]
    evaluations: dict[str, Evaluation]
    gate: GateResult


def calibrate(fp32: bytes, slices: Slices) -> bytes:
    """Return the float file with the extremes of each tensor over `slices` written into it.

    Raises GliosliceError if an extreme is not finite: no range can be made of it.
    """
    with capture_output():
        from tensorflow.lite.python.optimize.calibrator import Calibrator, add_intermediate_tensors

        calibrator = Calibrator(add_intermediate_tensors(fp32))
        content = bytes(calibrator.calibrate(lambda: ([one[np.newaxis]] for one in slices)))
    for tensor in read_model(content).subgraphs[0].tensors:
        known = tensor.quantization is not None and tensor.quantization.min is not None
        if known and not np.isfinite([tensor.quantization.min, tensor.quantization.max]).all():
            raise GliosliceError(
                "the float file computes NaN or infinite values on calibration slices, so it "
                "cannot be quantized; look for an overflow in the network"
            )
    return content


def quantize_file(calibrated: bytes) -> bytes:
    """Return the full-integer file of a calibrated float file, with int8 input and output."""
    with capture_output():
        import tensorflow as tf
        from tensorflow.lite.python.convert import mlir_quantize

        return bytes(mlir_quantize(calibrated, input_data_type=tf.int8, output_data_type=tf.int8))


def int8_candidates(
    fp32: bytes, usual: Slices, extended: Callable[[], Slices]
) -> Iterator[Int8Candidate]:
    """Yield the candidate of each strategy; it is made when the iterator reaches it.

    `usual` and `extended()` are slices to calibrate on. Raises GliosliceError if a tool fails.
    """
    yield Int8Candidate(STRATEGIES[0], fp32, quantize_file(calibrate(fp32, usual)))
    slices = extended()
    inspected = np.stack(spread(list(slices), MAX_INSPECTED))
    calibrated = calibrate(fp32, slices)
    yield Int8Candidate(STRATEGIES[1], fp32, quantize_file(calibrated))
    yield Int8Candidate(STRATEGIES[2], fp32, quantize_file(fit_ranges(calibrated, inspected)))
    equalized = equalize(fp32, inspected)
    calibrated = calibrate(equalized, slices)
    yield Int8Candidate(STRATEGIES[3], equalized, quantize_file(calibrated))
    yield Int8Candidate(STRATEGIES[4], equalized, quantize_file(fit_ranges(calibrated, inspected)))


def try_candidates(
    candidates: Iterable[Int8Candidate], attempt: Callable[[Int8Candidate], Attempt]
) -> tuple[Attempt, ...]:
    """Return the attempts up to the first that passed; all of them if none did."""
    attempts = []
    for candidate in candidates:
        attempts.append(attempt(candidate))
        if attempts[-1].gate.passed:
            break
    return tuple(attempts)
