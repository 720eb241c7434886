"""Subsets of modalities: the table is made of the scores of each run, paired by patient."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scores
from benchmarks.folds import FOLDS_FOLDER, FoldRun
from benchmarks.missing_modalities import (
    SUBSETS,
    SubsetScore,
    read_subset_scores,
    score_runs,
    subset_table,
    write_scores,
)
from device.engine import Engine
from device.segment import segment
from glioslice.cases import read_case
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.metrics import region_dice
from glioslice.postprocessing import STANDARD_RULES, postprocess
from tests.conftest import Write


def test_every_subset_leaves_t1ce_or_flair() -> None:
    assert len(set(SUBSETS)) == len(SUBSETS) == 12
    assert SUBSETS[0] == () and ("flair", "t1", "t2") in SUBSETS
    assert not any({"flair", "t1ce"} <= set(missing) for missing in SUBSETS)


def test_the_table_is_paired_by_patient(folds_folder: Path) -> None:
    for fold, dice in ((1, 0.9), (2, 0.7)):
        run = FoldRun("compact", fold)
        run.folder.mkdir()
        scores = [
            SubsetScore(f"p{fold}", missing, masks, (dice - loss, dice, enhancing))
            for missing, loss in (((), 0.0), (("t1", "t2"), 0.03 * fold))
            for masks, enhancing in (("raw", 0.2), ("rules", 0.5))
        ]
        write_scores(run, scores)
        assert read_subset_scores(run) == scores
    head, _, whole, some = subset_table().splitlines()
    assert head.startswith("| int8 | masks | patients | sequences |")
    assert whole.startswith("| compact | rules | 2 | FLAIR, T1, T1ce, T2 | 0.800 | 0.800 | 0.500")
    assert "| FLAIR, T1ce | 0.755 |" in some
    assert some.endswith("-0.015 (-0.020 to -0.010) | 0.585 |")


@pytest.mark.slow
def test_a_run_is_scored_by_its_own_network(
    folds_folder: Path, write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(FOLDS_FOLDER / "nano-1", folds_folder / "nano-1")
    folder = write_case("a", folder=tmp_path / "cases")
    run = FoldRun("nano", 1)
    monkeypatch.setattr(scores, "held_out_cases", lambda fold: ["a"])
    score_runs([run], tmp_path / "cases")
    made = read_subset_scores(run)
    found = {one.missing: one for one in made if one.masks == "mirrored, rules"}
    assert list(found) == list(SUBSETS) and len(made) == 2 * len(found)
    case = read_case(folder)
    engine = Engine(next(run.folder.glob("*-int8.tflite")), mirroring=True)
    for missing in ((), ("t1ce",)):
        images = read_case(folder, missing).images
        labels = postprocess(segment(images, engine, raw=True).labels, STANDARD_RULES).labels
        assert case.labels is not None
        dice = region_dice(labels, case.labels)
        np.testing.assert_allclose(found[missing].dice, [dice[r] for r in REGIONS], atol=1e-5)
    monkeypatch.setattr(scores, "held_out_cases", lambda fold: ["b"])
    with pytest.raises(GliosliceError, match="lacks b of fold 1"):
        score_runs([run], tmp_path / "cases")
