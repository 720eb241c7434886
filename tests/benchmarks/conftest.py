"""Scores by hand: two folds' worth of made-up patients, where the committed ones would be."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import folds, scores
from benchmarks.folds import Run
from benchmarks.scores import Score, write_scores

GRADES = {"a": ("high", 1), "b": ("low", 2), "c": ("unknown", 3), "d": ("high", 4)}


def score_of(
    case: str,
    dice: tuple[float, float, float],
    precision: str = "int8",
    missing: str = "",
    outside: float = 0.0,
) -> Score:
    """A score whose mask is 1 mL too large in each region and 2 mm off."""
    far, expert = (2.0, 2.0, 373.13), (50.0, 20.0, 10.0)
    return Score(case, precision, missing, dice, far, (51.0, 21.0, 11.0), expert, outside)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of runs of its own: nothing is scored in it yet."""
    monkeypatch.setattr(folds, "KEPT", tmp_path)
    rows = [f"{case},{grade},{fold}" for case, (grade, fold) in GRADES.items()]
    (tmp_path / "folds.csv").write_text("\n".join(["case,grade,fold", *rows]) + "\n")
    folds.patients.cache_clear()
    yield tmp_path
    folds.patients.cache_clear()


def write(run: Run, *given: Score) -> None:
    """Write a run's scores."""
    write_scores(run, list(given))
    assert scores.read_scores(run) == list(given)
