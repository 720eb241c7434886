"""Each strategy on the network that it is for, quantised by the real tools."""

from collections.abc import Iterator

import numpy as np
import pytest

from convert import quantization
from convert.quantization import (
    STRATEGIES,
    Attempt,
    Int8Candidate,
    int8_candidates,
    try_candidates,
)
from convert.verify.acceptance import GateResult
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
