"""The int8 range of each tensor by squared error instead of by its extremes.

A few large values make the step of all others coarse. Cut off, they cost the square of what is cut;
the best range is where the two costs balance.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.tflite.editor import SAME_SCALE, flowing, op_name, written
from convert.tflite.interpreter import values_of
from convert.tflite.reader import list_of, read_model

STEPS = 255
BINS = 2048
CANDIDATES = np.linspace(1, 0.02, 99)
"""Shares of an extreme that a range may end at."""

Range = tuple[float, float]


@dataclass
class Histogram:
    """How often which value occurs in [low, high]; exact zeros cost nothing and are left out."""

    low: float
    high: float
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values; those outside the extremes count as the extreme."""
        there = values[values != 0].clip(self.low, self.high)
        self.counts += np.histogram(there, BINS, (self.low, self.high))[0]


def by_error(calibrated: bytes, slices: NDArray[np.float32]) -> bytes:
    """Return a calibrated file with the ranges of least squared error over `slices` (N, X, Y, C).

    Tensors that must share a scale share a range. The input keeps its own: it is the clip range.
    """
    model = read_model(calibrated)
    tensors = model.subgraphs[0].tensors
    groups = [group for group in groups_of(model) if _may_change(model, group)]
    sources = {group: sorted(set(group) & _computed(model)) for group in groups}
    histograms = {
        group: Histogram(
            min(0.0, *(float(tensors[i].quantization.min[0]) for i in sources[group])),
            max(0.0, *(float(tensors[i].quantization.max[0]) for i in sources[group])),
        )
        for group in groups
    }
    for values in values_of(calibrated, slices):
        for group, histogram in histograms.items():
            for index in sources[group]:
                histogram.add(values[index])
    for group, histogram in histograms.items():
        low, high = best_range(histogram)
        for index in group:
            tensors[index].quantization.min = np.array([low], np.float32)
            tensors[index].quantization.max = np.array([high], np.float32)
    return written(model)


def best_range(histogram: Histogram) -> Range:
    """Return the range of CANDIDATES of least squared error; the extremes where none is better."""
    lows = histogram.low * CANDIDATES if histogram.low < 0 else np.zeros(1)
    highs = histogram.high * CANDIDATES if histogram.high > 0 else np.zeros(1)
    _, low, high = min(
        ((cost(histogram, low, high), low, high) for low in lows for high in highs),
        key=lambda candidate: candidate[0],
    )
    return float(low), float(high)


def cost(histogram: Histogram, low: float, high: float) -> float:
    """Return the squared error of values cut to [low, high] and rounded to multiples of its step.

    The step is (high - low) / 255, and 0 is one of its multiples. A bin counts as its middle, cut
    and rounded, plus width^2 / 12 for its spread; where it is wider than a step, as step^2 / 12,
    the variance of rounding.
    """
    step, width = (high - low) / STEPS, (histogram.high - histogram.low) / BINS
    centres = histogram.low + width * (np.arange(BINS) + 0.5)
    cut = centres.clip(low, high)
    if step > width:
        errors = (centres - step * np.rint(cut / step)) ** 2 + width**2 / 12
    else:
        errors = (centres - cut) ** 2 + step**2 / 12
    return float(errors @ histogram.counts)


def groups_of(model: Any) -> list[tuple[int, ...]]:
    """Return the tensors that flow, those that must share a scale together."""
    roots: dict[int, int] = {}

    def root(index: int) -> int:
        while roots.setdefault(index, index) != index:
            index = roots[index]
        return index

    for operator in model.subgraphs[0].operators:
        read = flowing(model, operator.inputs)
        made = flowing(model, operator.outputs)
        for index in (*read, *made):
            root(index)
        if op_name(model, operator) in SAME_SCALE:
            for index in (*read[1:], *made):
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
    """Return the tensors whose values are new, not taken over from another under its scale."""
    return {
        index
        for operator in model.subgraphs[0].operators
        if op_name(model, operator) not in SAME_SCALE
        for index in flowing(model, operator.outputs)
    }
