"""Made-up scores of four patients, for the fixture `folds_folder` of tests/conftest.py."""

from benchmarks.folds import FoldRun
from benchmarks.scores import RAW, Score, read_scores, write_scores


def score_of(
    case: str,
    dice: tuple[float, float, float],
    precision: str = "int8",
    masks: str = RAW,
    outside: float = 0.0,
) -> Score:
    """A score whose mask is 1 mL too large in each region and 2 mm off."""
    far, expert = (2.0, 2.0, 373.13), (50.0, 20.0, 10.0)
    return Score(case, precision, masks, dice, far, (51.0, 21.0, 11.0), expert, outside)


def write_run(run: FoldRun, *scores: Score) -> None:
    """Write a run's scores."""
    write_scores(run, list(scores))
    assert read_scores(run) == list(scores)
