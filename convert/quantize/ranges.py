"""Choose the int8 range of each tensor by squared error instead of by its extremes.

A few large values make the step coarse for all others. Clipping them costs the square of what is
clipped; the best range is where the two costs balance.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.tflite.editor import SAME_SCALE, non_constant, op_name, serialize
from convert.tflite.interpreter import tensor_values
from convert.tflite.reader import list_of, read_model

STEPS = 255
BINS = 2048
CANDIDATES = np.linspace(1, 0.02, 99)
"""Fractions of an extreme at which a range may end."""

Range = tuple[float, float]


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
