"""Resampled scans: the way through a scanner's series and back, and the table of the scores."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from benchmarks.folds import FoldRun, held_out_cases
from benchmarks.resampled import (
    THICKNESSES,
    ResampledScore,
    head_position,
    read_resampled_scores,
    resample_series,
    resampled_table,
    write_scores,
)

IDENTITY = sitk.Euler3DTransform()


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
        write_scores(run, scores)
        assert read_resampled_scores(run) == scores
    _, _, whole, *_, five = resampled_table().splitlines()
    assert whole.startswith("| as BraTS has it | 2 | 0.900 | 0.800 | 0.525 | 0.742 | 0.683 |")
    assert five.endswith("| -0.025 (-0.033 to -0.017) | -0.04 |")
