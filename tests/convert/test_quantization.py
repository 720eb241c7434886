"""Each strategy on the network that it is for, quantised by the real tools."""

from collections.abc import Iterator

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from convert import quantization
from convert.quantization import (
    BINS,
    STRATEGIES,
    Attempt,
    Histogram,
    Int8Candidate,
    best_range,
    clipping_cost,
    equalize,
    fit_ranges,
    int8_candidates,
    scale_groups,
    try_candidates,
)
from convert.tflite.interpreter import output_values, tensor_values
from convert.tflite.reader import constant, read_model
from convert.tflite.writer import serialize
from convert.verify.acceptance import GateResult
from tests.convert.conftest import WINDOW, random_network
from tests.convert.float_files import FloatFile, of_unet
from tests.convert.hard_networks import Slices, cancelling, drop, plain, skipping, slices, spiky

LIMIT = 0.01
PROBES = slices(3, seed=1)


def attempt_all(fp32: bytes, usual: Slices, more: Slices) -> list[Attempt]:
    def attempt(candidate: Int8Candidate) -> Attempt:
        return Attempt(
            candidate, (), {}, GateResult("drop", drop(candidate.int8, fp32, PROBES), LIMIT)
        )

    return list(try_candidates(int8_candidates(fp32, usual, lambda: more), attempt))


@pytest.mark.slow
def test_a_healthy_network_passes_with_usual_calibration() -> None:
    [only] = attempt_all(plain(), slices(8), slices(16))
    assert only.candidate.strategy == "usual calibration"
    assert only.gate.passed


@pytest.mark.slow
def test_more_slices_help_where_the_usual_ones_were_quiet() -> None:
    attempts = attempt_all(plain(), slices(8, reach=0.3), slices(16))
    assert [a.candidate.strategy for a in attempts] == list(STRATEGIES[:2])
    assert attempts[0].gate.value > 0.1
    assert attempts[-1].gate.passed


@pytest.mark.slow
def test_clipping_helps_with_a_lonely_spike() -> None:
    many = slices(32)
    many[0, 3, 3, 1] = 5
    attempts = attempt_all(spiky(), many[:8], many)
    assert [a.candidate.strategy for a in attempts] == list(STRATEGIES[:3])
    assert attempts[-1].gate.passed


@pytest.mark.slow
def test_equalization_helps_where_a_channel_of_a_skip_is_too_wide() -> None:
    content, _ = skipping(50)
    attempts = attempt_all(content, slices(8), slices(16))
    assert [a.candidate.strategy for a in attempts] == list(STRATEGIES[:4])
    assert attempts[-1].gate.passed
    assert drop(attempts[-1].candidate.fp32, content, PROBES) == 0
    assert attempt_all(skipping(1)[0], slices(8), slices(16))[0].gate.passed


@pytest.mark.slow
def test_nothing_helps_where_large_values_cancel() -> None:
    attempts = attempt_all(cancelling()[0], slices(8), slices(16))
    assert [a.candidate.strategy for a in attempts] == list(STRATEGIES)
    assert all(a.gate.value > 0.1 for a in attempts)


@pytest.mark.parametrize("good", range(len(STRATEGIES)))
def test_the_first_candidate_that_passes_is_the_last_that_is_made(
    good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tools that only record their calls."""
    calls: list[str] = []

    def tool(name: str) -> object:
        def call(content: bytes, *_: object) -> bytes:
            calls.append(name)
            return content + b"." + name.encode()

        return call

    for name in ("calibrate", "quantize_file", "fit_ranges", "equalize"):
        monkeypatch.setattr(quantization, name, tool(name))
    calls_of_extended: list[int] = []

    def more() -> Slices:
        calls_of_extended.append(1)
        return np.zeros((200, 1, 1, 1), np.float32)

    def attempt(candidate: Int8Candidate) -> Attempt:
        passed = candidate.strategy == STRATEGIES[good]
        return Attempt(candidate, (), {}, GateResult("drop", 0.0 if passed else 1.0, LIMIT))

    attempts = try_candidates(
        int8_candidates(b"net", np.zeros((8, 1, 1, 1), np.float32), more), attempt
    )
    assert [a.candidate.strategy for a in attempts] == list(STRATEGIES[: good + 1])
    assert len(calls_of_extended) == (good > 0)
    wanted = {
        "usual calibration": b"net.calibrate.quantize_file",
        "more slices": b"net.calibrate.quantize_file",
        "ranges by error": b"net.calibrate.fit_ranges.quantize_file",
        "equalised channels": b"net.equalize.calibrate.quantize_file",
        "equalised channels, ranges by error": b"net.equalize.calibrate.fit_ranges.quantize_file",
    }
    for one in attempts:
        assert one.candidate.int8 == wanted[one.candidate.strategy]
        assert one.candidate.fp32 == (
            b"net.equalize" if "equal" in one.candidate.strategy else b"net"
        )
    assert ("fit_ranges" in calls) == (good >= 2)


def test_the_number_of_inspected_slices_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}

    def tool(name: str) -> object:
        def call(content: bytes, given: Slices | None = None) -> bytes:
            seen[name] = 0 if given is None else len(given)
            return content

        return call

    for name in ("calibrate", "quantize_file", "fit_ranges", "equalize"):
        monkeypatch.setattr(quantization, name, tool(name))
    few, many = (np.zeros((n, 1, 1, 1), np.float32) for n in (8, 500))
    made: Iterator[Int8Candidate] = int8_candidates(b"", few, lambda: many)
    assert len(list(made)) == len(STRATEGIES)
    assert seen["calibrate"] == 500
    assert seen["fit_ranges"] == seen["equalize"] == quantization.MAX_INSPECTED


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


SLICES = np.random.default_rng(0).normal(0, 1, (6, *WINDOW, 4)).astype(np.float32)


def widened(factor: float = 50.0) -> bytes:
    """A U-Net's file with a channel of its skip `factor` times too wide, of the same function."""
    network = random_network((4, 6))
    parts = network.state_dict(keep_vars=True)
    for norm in ("encoder.0.1.1", "lift.0.1"):  # of the skip, and of what it is added to
        parts[f"{norm}.weight"].data[2] *= factor
        parts[f"{norm}.bias"].data[2] *= factor
    for convolution in ("decoder.0.0", "encoder.1.0.0"):
        parts[f"{convolution}.weight"].data[:, 2] /= factor
    return of_unet(network, WINDOW)


def widths(content: bytes, slices: NDArray[np.float32] = SLICES) -> dict[int, float]:
    """The widest channel over the median one, for each tensor."""
    peaks: dict[int, NDArray[np.float32]] = {}
    for values in tensor_values(content, slices):
        for index, of in values.items():
            top = np.abs(of).max(axis=(0, 1, 2))
            peaks[index] = np.maximum(peaks.get(index, top), top)
    return {index: float(top.max() / np.median(top[top > 0])) for index, top in peaks.items()}


def test_the_float_network_computes_the_same_bits() -> None:
    content = widened()
    even = equalize(content, SLICES)
    assert even != content
    np.testing.assert_array_equal(output_values(even, SLICES), output_values(content, SLICES))


def test_a_wide_channel_of_a_skip_is_made_small() -> None:
    before, after = widths(widened()), widths(equalize(widened(), SLICES))
    skips = [index for index, width in before.items() if width > 20]
    assert len(skips) >= 4  # the skip, its pooled form, what is lifted, their sum
    assert all(after[index] < 8 for index in skips)


def test_weights_keep_their_precision() -> None:
    """A column of weights far below the others of its row would be rounded away in their place."""

    def smallest(content: bytes) -> float:
        model = read_model(content)
        found = []
        for operator in (o for o in model.subgraphs[0].operators if len(o.inputs) == 3):
            values = constant(model, model.subgraphs[0].tensors[operator.inputs[1]])
            assert values is not None
            rows = np.abs(values).max(axis=(1, 2))
            found.append(float((rows / rows.max(axis=1, keepdims=True)).max(axis=0).min()))
        return min(found)

    assert smallest(widened()) < 1 / 40
    assert smallest(equalize(widened(), SLICES)) > 1 / 10


def test_an_even_network_is_left_as_it_is() -> None:
    made = FloatFile((8, 8, 2))
    x = made.conv(made.input, np.eye(2).reshape(2, 1, 1, 2), [6, 6])
    content = made.file(made.conv(x, np.ones((1, 1, 1, 2)), [0], relu=False))
    slices = np.random.default_rng(0).uniform(-5, 5, (3, 8, 8, 2)).astype(np.float32)
    even = equalize(content, slices)
    for one, other in zip(read_model(content).buffers, read_model(even).buffers, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_concatenated_skips_have_factors_of_their_own() -> None:
    made = FloatFile((8, 8, 2))
    one = np.eye(2).reshape(2, 1, 1, 2)
    wide = made.conv(made.input, 64 * one, [0, 0])
    small = made.conv(made.input, one, [0, 0])
    last = np.array([[1, 1, 64, 64]]).reshape(1, 1, 1, 4) / 64
    content = made.file(made.conv(made.concat(wide, small), last, [0], relu=False))
    slices = np.random.default_rng(0).normal(0, 1, (3, 8, 8, 2)).astype(np.float32)
    even = equalize(content, slices)
    np.testing.assert_array_equal(output_values(even, slices), output_values(content, slices))
    values = next(tensor_values(even, slices))
    assert float(values[wide].max() / values[small].max()) == pytest.approx(1, rel=1.1)


def test_ops_that_may_not_pass_factors_keep_their_channels() -> None:
    made = FloatFile((8, 8, 2))
    x = made.conv(made.input, [[[[64.0, 0]]], [[[0, 1.0]]]], [0, 0], relu=False)
    y = made.prelu(x, [0.1, 0.2])
    content = made.file(made.conv(y, [[[[1 / 64, 1.0]]]], [0], relu=False))
    slices = np.random.default_rng(0).normal(0, 1, (3, 8, 8, 2)).astype(np.float32)
    even = equalize(content, slices)
    before, after = next(tensor_values(content, slices)), next(tensor_values(even, slices))
    np.testing.assert_array_equal(before[x], after[x])
    np.testing.assert_array_equal(output_values(even, slices), output_values(content, slices))


def test_input_and_output_keep_their_channels() -> None:
    made = FloatFile((8, 8, 2))
    x = made.conv(made.input, [[[[1 / 64, 1.0]]], [[[1 / 64, -1.0]]]], [0, 0])
    content = made.file(made.conv(x, [[[[1.0, 0]]], [[[0, 64.0]]]], [0, 0], relu=False))
    slices = np.random.default_rng(0).normal(0, 1, (3, 8, 8, 2)).astype(np.float32)
    slices[..., 0] *= 64
    even = equalize(content, slices)
    np.testing.assert_array_equal(output_values(even, slices), output_values(content, slices))


def test_dead_channels_stay_dead() -> None:
    made = FloatFile((4, 4, 1))
    x = made.conv(made.input, [[[[1.0]]], [[[0.0]]]], [0, 0])
    content = made.file(made.conv(x, [[[[1.0, 1.0]]]], [0], relu=False))
    slices = np.ones((1, 4, 4, 1), np.float32)
    np.testing.assert_array_equal(output_values(equalize(content, slices), slices), slices)
