import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convert.quantize.ranges import (
    BINS,
    Histogram,
    best_range,
    clipping_cost,
    fit_ranges,
    scale_groups,
)
from convert.tflite.editor import serialize
from convert.tflite.interpreter import tensor_values
from convert.tflite.reader import read_model
from tests.convert.float_files import FloatFile


def histogram(values: NDArray[np.float32]) -> Histogram:
    made = Histogram(min(0.0, float(values.min())), max(0.0, float(values.max())))
    made.add(values)
    return made


def error(values: NDArray[np.float32], low: float, high: float) -> float:
    """The squared error of rounding to 256 steps, measured and not estimated."""
    step = (high - low) / 255
    rounded = step * np.rint(values.clip(low, high) / step)
    return float(((values - rounded) ** 2).sum())


def with_extremes(content: bytes, slices: NDArray[np.float32]) -> bytes:
    """The file with the extremes of each tensor, as calibration writes them."""
    model = read_model(content)
    runs = list(tensor_values(content, slices))
    for index in runs[0]:
        quantization = schema.QuantizationParametersT()
        quantization.min = np.array([min(run[index].min() for run in runs)], np.float32)
        quantization.max = np.array([max(run[index].max() for run in runs)], np.float32)
        model.subgraphs[0].tensors[index].quantization = quantization
    return serialize(model)


def ranges(content: bytes) -> dict[int, tuple[float, float]]:
    return {
        i: (float(t.quantization.min[0]), float(t.quantization.max[0]))
        for i, t in enumerate(read_model(content).subgraphs[0].tensors)
        if t.quantization is not None and t.quantization.min is not None
    }


def test_even_values_keep_their_extremes() -> None:
    values = np.linspace(-2, 6, 100_000, dtype=np.float32)
    assert best_range(histogram(values)) == pytest.approx((-2.0, 6.0), rel=0.02)


def test_a_lonely_spike_is_clipped_where_others_gain_more() -> None:
    values = np.r_[np.random.default_rng(0).uniform(0, 1, 4_000_000), 60].astype(np.float32)
    low, high = best_range(histogram(values))
    assert low == 0
    assert 1 < high < 20
    assert error(values, low, high) < 0.5 * error(values, 0, 60)


def test_exact_zeros_cost_nothing() -> None:
    values = np.r_[np.zeros(4_000_000), np.linspace(0.1, 1, 50), 60].astype(np.float32)
    assert best_range(histogram(values))[1] == 60


@pytest.mark.parametrize("share", [1.0, 0.5, 0.02])
def test_the_cost_is_the_error_that_rounding_makes(share: float) -> None:
    """Also beside a spike, where all others round to 0: that costs less than step^2 / 12."""
    values = np.r_[np.random.default_rng(0).normal(0, 0.3, 200_000), 500].astype(np.float32)
    made = histogram(values)
    low, high = share * made.low, share * made.high
    assert clipping_cost(made, low, high) == pytest.approx(error(values, low, high), rel=0.15)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.floats(2, 8), st.booleans())
def test_no_other_range_is_much_better(seed: int, tail: float, positive: bool) -> None:
    values = np.random.default_rng(seed).standard_t(tail, 50_000).astype(np.float32)
    values = np.abs(values) if positive else values
    mine = error(values, *best_range(histogram(values)))
    for share in (1, 0.9, 0.7, 0.5, 0.3):
        assert mine <= 1.05 * error(values, share * min(0.0, values.min()), share * values.max())


def test_values_outside_count_as_the_extremes() -> None:
    made = Histogram(0.0, 1.0)
    made.add(np.array([0.0, 0.5, 3.0, -2.0], np.float32))
    assert made.counts.sum() == 3
    assert (made.counts[-1], made.counts[0], len(made.counts)) == (1, 1, BINS)


def branches() -> tuple[bytes, dict[str, int]]:
    made = FloatFile((8, 8, 2))
    one = np.eye(2).reshape(2, 1, 1, 2)
    top = made.conv(made.input, one, [0, 0])
    low = made.pool(top)
    deep = made.conv(low, 2 * one, [0, 0])
    up = made.up(deep)
    total = made.add(up, top)
    out = made.conv(total, one, [0, 0], relu=False)
    where = {"top": top, "low": low, "deep": deep, "up": up, "total": total, "out": out}
    return made.file(out), where | {"input": made.input}


def test_ops_that_copy_values_share_their_range() -> None:
    content, where = branches()
    groups = {frozenset(group) for group in scale_groups(read_model(content))}
    assert groups == {
        frozenset({where["input"]}), frozenset({where["total"]}), frozenset({where["out"]}),
        frozenset({where["top"], where["low"]}), frozenset({where["deep"], where["up"]}),
    }  # fmt: skip


def test_parts_of_a_concatenation_share_a_range() -> None:
    made = FloatFile((4, 4, 2))
    one = np.eye(2).reshape(2, 1, 1, 2)
    a, b = made.conv(made.input, one, [0, 0]), made.conv(made.input, 3 * one, [0, 0])
    both = made.concat(a, b)
    content = made.file(made.conv(both, np.ones((1, 1, 1, 4)), [0]))
    assert (a, b, both) in scale_groups(read_model(content))


def test_all_ranges_but_the_inputs_are_clipped() -> None:
    content, where = branches()
    slices = np.random.default_rng(0).standard_t(2, (60, 8, 8, 2)).astype(np.float32)
    before = ranges(with_extremes(content, slices))
    after = ranges(fit_ranges(with_extremes(content, slices), slices))
    assert after[where["input"]] == before[where["input"]]
    assert after[where["top"]] == after[where["low"]]
    assert after[where["deep"]] == after[where["up"]]
    for name in ("top", "deep", "total"):
        assert 0.05 < after[where[name]][1] / before[where[name]][1] <= 1
    assert after != before


def test_tensors_without_ranges_are_left_alone() -> None:
    content, _ = branches()
    slices = np.ones((1, 8, 8, 2), np.float32)
    with pytest.raises(StopIteration):
        next(iter(ranges(fit_ranges(content, slices)).items()))
