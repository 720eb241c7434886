"""Missing modalities and resampled scans: tables of the scores of each run, paired by patient."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from benchmarks import scores
from benchmarks.degraded_cases import (
    SUBSETS,
    THICKNESSES,
    ResampledScore,
    SubsetScore,
    head_position,
    read_resampled_scores,
    read_subset_scores,
    resample_series,
    resampled_table,
    score_subset_runs,
    subset_table,
    write_resampled_scores,
    write_subset_scores,
)
from benchmarks.folds import FOLDS_FOLDER, FoldRun, held_out_cases
from device.engine import Engine
from device.segment import segment
from glioslice.cases import read_case
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.metrics import region_dice
from glioslice.postprocessing import STANDARD_RULES, postprocess
from tests.conftest import Write

IDENTITY = sitk.Euler3DTransform()


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
        write_subset_scores(run, scores)
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
    score_subset_runs([run], tmp_path / "cases")
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
        score_subset_runs([run], tmp_path / "cases")


@pytest.fixture
def ball() -> NDArray[np.float32]:
    """A bright ball of 20 voxels across in a darker cube, (48, 48, 48)."""
    x, y, z = np.mgrid[-24:24, -24:24, -24:24]
    made: NDArray[np.float32] = np.where(x**2 + y**2 + z**2 < 100, 3.0, 1.0).astype(np.float32)
    return made


def test_one_millimetre_in_place_changes_nothing(ball: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(resample_series(ball, 1, IDENTITY), ball, atol=1e-5)


def test_thick_slices_blur_through_plane_alone(ball: NDArray[np.float32]) -> None:
    thick = resample_series(ball, 3, IDENTITY)
    inner = (slice(12, 36),) * 3
    assert np.abs(np.diff(thick[inner], axis=2)).max() < np.abs(np.diff(ball, axis=2)).max()
    np.testing.assert_allclose(thick[24, 24, 22:26], 3.0, atol=1e-5)
    # Along a column that is constant through plane, nothing is mixed.
    columns = np.repeat(ball[:, :, 24:25], 48, axis=2)
    kept = resample_series(columns, 3, IDENTITY)
    np.testing.assert_allclose(kept[..., 12:36], columns[..., 12:36], atol=1e-5)


def test_a_turned_and_shifted_head_comes_back_to_its_place(ball: NDArray[np.float32]) -> None:
    position = head_position(ball.shape, np.random.default_rng(0))
    back = resample_series(ball, 1, position)
    inner = (slice(12, 36),) * 3
    assert np.abs(back[inner] - ball[inner]).mean() < 0.1
    centre = [np.average(np.arange(48), weights=(back > 2).sum(axis=axes))
              for axes in ((1, 2), (0, 2), (0, 1))]  # fmt: skip
    np.testing.assert_allclose(centre, 24, atol=0.2)
    wrong = resample_series(ball, 1, sitk.Euler3DTransform((24, 24, 24), 0, 0, 0, (8, 0, 0)))
    assert not np.array_equal(wrong, back)


def test_the_loss_is_paired_and_grades_stand_apart(folds_folder: Path) -> None:
    for fold in (1, 2):
        run = FoldRun("compact", fold)
        run.folder.mkdir()
        loss = 0.01 * fold
        scores = [
            ResampledScore(case, thickness, (0.9 - loss * thickness, 0.8, 0.7 / fold))
            for case in held_out_cases(fold)
            for thickness in THICKNESSES
        ]
        write_resampled_scores(run, scores)
        assert read_resampled_scores(run) == scores
    _, _, whole, *_, five = resampled_table().splitlines()
    assert whole.startswith("| as BraTS has it | 2 | 0.900 | 0.800 | 0.525 | 0.742 | 0.683 |")
    assert five.endswith("| -0.025 (-0.033 to -0.017) | -0.04 |")
