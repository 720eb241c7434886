"""The score of a mask, its file, and that committed files give the committed scores."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.folds import PLAN, FoldRun, held_out_cases
from benchmarks.scores import (
    RAW,
    RULES,
    Score,
    read_scores,
    score_case,
    score_mask,
    write_scores,
)
from glioslice.cases import Case, read_case
from glioslice.labels import BRATS_2023, CORE, EDEMA, ENHANCING
from glioslice.nifti import Space


def case_with(labels: NDArray[np.uint8]) -> Case:
    """A case without images: a score takes the labels alone."""
    images = np.zeros((4, *labels.shape), np.float32)
    x, y, z = labels.shape
    return Case("a", BRATS_2023, images, labels, Space.lps((x, y, z)))


def test_score_of_a_small_mask() -> None:
    truth = np.zeros((20, 20, 10), np.uint8)
    truth[2:12, 2:12, 2:6] = EDEMA
    truth[4:8, 4:8, 3:5] = CORE
    mask = truth.copy()
    mask[mask == CORE] = ENHANCING
    mask[2:12, 2:12, 8] = EDEMA  # a slice without tumour
    made = score_mask(case_with(truth), mask, "int8", RULES)
    assert (made.case, made.precision, made.masks) == ("a", "int8", RULES)
    assert made.dice == pytest.approx((800 / 900, 1, 0), abs=1e-5)
    assert made.mean == pytest.approx((800 / 900 + 1) / 3, abs=1e-5)
    assert made.hd95 == (3.0, 0.0, 373.13)
    assert made.volume == (0.5, 0.032, 0.032)
    assert made.expert == (0.4, 0.032, 0.0)
    assert made.outside == 0.1


def test_scores_come_back_from_their_file(folds_folder: Path) -> None:
    run = FoldRun("compact", 1)
    assert read_scores(run) == []
    given = [Score("a", "fp16", RAW, (0.5, 0.25, 1.0), (1.5, 2.0, 0.0), (3, 2, 1), (2, 2, 1), 0.25)]
    write_scores(run, given)
    assert read_scores(run) == given


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("run", [r for r in PLAN if r.has_files], ids=lambda run: run.name)
def test_committed_files_score_what_is_committed(run: FoldRun, real_cases: Path) -> None:
    name = held_out_cases(run.fold)[0]
    case = read_case(real_cases / name)
    committed = [s for s in read_scores(run) if s.case == name]
    scored = {(one.precision, one.masks): one for one in score_case(run, case)}
    assert {one.masks for one in committed} >= {RAW}
    for wanted in committed:
        found = scored[wanted.precision, wanted.masks]
        if wanted.precision == "int8":
            assert found == wanted
        else:  # sums of floats depend on the processor
            assert found.dice == pytest.approx(wanted.dice, abs=2e-3)
