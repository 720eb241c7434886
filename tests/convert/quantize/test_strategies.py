"""Each rung on the network that it is for, quantised by the real tools."""

from collections.abc import Iterator

import numpy as np
import pytest

from convert.quantize import strategies
from convert.quantize.strategies import RUNGS, Attempt, Rung, climb, rungs
from convert.verify.acceptance import Measure
from tests.convert.breaks import Slices, cancelling, drop, plain, skipping, slices, spiky

LIMIT = 0.01
JUDGED = slices(3, seed=1)


def climbed(fp32: bytes, usual: Slices, more: Slices) -> list[Attempt]:
    def attempt(rung: Rung) -> Attempt:
        return Attempt(rung, (), {}, Measure("drop", drop(rung.int8, fp32, JUDGED), LIMIT))

    return list(climb(rungs(fp32, usual, lambda: more), attempt))


@pytest.mark.slow
def test_a_healthy_network_needs_no_ladder() -> None:
    [only] = climbed(plain(), slices(8), slices(16))
    assert only.rung.name == "usual calibration"
    assert only.measure.held


@pytest.mark.slow
def test_more_slices_help_where_the_usual_ones_were_quiet() -> None:
    tried = climbed(plain(), slices(8, reach=0.3), slices(16))
    assert [a.rung.name for a in tried] == list(RUNGS[:2])
    assert tried[0].measure.value > 0.1
    assert tried[-1].measure.held


@pytest.mark.slow
def test_cutting_a_tower_off_helps_where_it_is_lonely() -> None:
    many = slices(32)
    many[0, 3, 3, 1] = 5
    tried = climbed(spiky(), many[:8], many)
    assert [a.rung.name for a in tried] == list(RUNGS[:3])
    assert tried[-1].measure.held


@pytest.mark.slow
def test_like_channels_help_where_one_of_a_skip_is_too_wide() -> None:
    content, _ = skipping(50)
    tried = climbed(content, slices(8), slices(16))
    assert [a.rung.name for a in tried] == list(RUNGS[:4])
    assert tried[-1].measure.held
    assert drop(tried[-1].rung.fp32, content, JUDGED) == 0
    assert climbed(skipping(1)[0], slices(8), slices(16))[0].measure.held


@pytest.mark.slow
def test_nothing_helps_where_large_values_cancel() -> None:
    tried = climbed(cancelling()[0], slices(8), slices(16))
    assert [a.rung.name for a in tried] == list(RUNGS)
    assert all(a.measure.value > 0.1 for a in tried)


@pytest.mark.parametrize("good", range(len(RUNGS)))
def test_the_first_rung_that_holds_is_the_last_that_is_made(
    good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tools that only write down what they are called with."""
    calls: list[str] = []

    def tool(name: str) -> object:
        def call(content: bytes, *_: object) -> bytes:
            calls.append(name)
            return content + b"." + name.encode()

        return call

    for name in ("calibrated", "quantised", "by_error", "equalised"):
        monkeypatch.setattr(strategies, name, tool(name))
    asked: list[int] = []

    def more() -> Slices:
        asked.append(1)
        return np.zeros((200, 1, 1, 1), np.float32)

    def attempt(rung: Rung) -> Attempt:
        held = rung.name == RUNGS[good]
        return Attempt(rung, (), {}, Measure("drop", 0.0 if held else 1.0, LIMIT))

    tried = climb(rungs(b"net", np.zeros((8, 1, 1, 1), np.float32), more), attempt)
    assert [a.rung.name for a in tried] == list(RUNGS[: good + 1])
    assert len(asked) == (good > 0)
    wanted = {
        "usual calibration": b"net.calibrated.quantised",
        "more slices": b"net.calibrated.quantised",
        "ranges by error": b"net.calibrated.by_error.quantised",
        "equalised channels": b"net.equalised.calibrated.quantised",
        "equalised channels, ranges by error": b"net.equalised.calibrated.by_error.quantised",
    }
    for one in tried:
        assert one.rung.int8 == wanted[one.rung.name]
        assert one.rung.fp32 == (b"net.equalised" if "equal" in one.rung.name else b"net")
    assert ("by_error" in calls) == (good >= 2)


def test_slices_are_looked_at_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}

    def tool(name: str) -> object:
        def call(content: bytes, given: Slices | None = None) -> bytes:
            seen[name] = 0 if given is None else len(given)
            return content

        return call

    for name in ("calibrated", "quantised", "by_error", "equalised"):
        monkeypatch.setattr(strategies, name, tool(name))
    few, many = (np.zeros((n, 1, 1, 1), np.float32) for n in (8, 500))
    made: Iterator[Rung] = rungs(b"", few, lambda: many)
    assert len(list(made)) == len(RUNGS)
    assert seen["calibrated"] == 500
    assert seen["by_error"] == seen["equalised"] == strategies.MOST_LOOKED_AT
