"""A score by hand, its file, and that the committed ones come from the committed files."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.folds import PLAN, Run, left_out
from benchmarks.scores import Score, read_scores, score, score_case, write_scores
from glioslice.cases import Case, find_case, phantom_case, read_case
from glioslice.labels import CORE, EDEMA, ENHANCING


def case_with(labels: NDArray[np.uint8]) -> Case:
    """The phantom with labels of our own."""
    return replace(phantom_case(0), name="a", labels=labels)


def test_a_score_by_hand() -> None:
    truth = np.zeros((20, 20, 10), np.uint8)
    truth[2:12, 2:12, 2:6] = EDEMA
    truth[4:8, 4:8, 3:5] = CORE
    mask = truth.copy()
    mask[mask == CORE] = ENHANCING
    mask[2:12, 2:12, 8] = EDEMA  # a slice without tumour
    made = score(case_with(truth), mask, "int8", "t1")
    assert (made.case, made.precision, made.missing) == ("a", "int8", "t1")
    assert made.dice == pytest.approx((800 / 900, 1, 0), abs=1e-5)
    assert made.mean == pytest.approx((800 / 900 + 1) / 3, abs=1e-5)
    assert made.hd95 == (3.0, 0.0, 373.13)
    assert made.volume == (0.5, 0.032, 0.032)
    assert made.expert == (0.4, 0.032, 0.0)
    assert made.outside == 0.1


def test_scores_come_back_from_their_file(kept: Path) -> None:
    run = Run("compact", 1)
    assert read_scores(run) == []
    given = [Score("a", "fp16", "", (0.5, 0.25, 1.0), (1.5, 2.0, 0.0), (3, 2, 1), (2, 2, 1), 0.25)]
    write_scores(run, given)
    assert read_scores(run) == given


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("run", [r for r in PLAN if r.packed], ids=lambda run: run.name)
def test_committed_files_score_what_is_committed(run: Run, real_cases: Path) -> None:
    name = left_out(run.fold)[0]
    case = read_case(find_case(real_cases / name))
    committed = [s for s in read_scores(run) if s.case == name]
    scored = list(score_case(run, case))
    for found, wanted in zip(scored, committed, strict=True):
        if wanted.precision == "int8":
            assert found == wanted
        else:  # sums of floats depend on the processor
            assert found.dice == pytest.approx(wanted.dice, abs=2e-3)
