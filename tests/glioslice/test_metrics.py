"""Metrics compared with values computed manually, and HD95 with MONAI's."""

import numpy as np
import pytest

from glioslice.metrics import MISSED_MM, dice, hd95, region_dice, volumes_ml


def test_dice() -> None:
    one, other = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    assert dice(one, other) == pytest.approx(2 * 2 / 6)


def test_dice_of_empty_masks() -> None:
    nothing, something = np.zeros(4, bool), np.array([1, 0, 0, 0], bool)
    assert dice(nothing, nothing) == 1
    assert dice(something, nothing) == dice(nothing, something) == 0


def test_regions() -> None:
    truth = np.array([0, 1, 2, 3, 2], np.uint8)
    prediction = np.array([0, 3, 2, 2, 2], np.uint8)
    scores = region_dice(prediction, truth)
    assert scores == pytest.approx({"WT": 1, "TC": 2 / 3, "ET": 0, "mean": 5 / 9})


def test_hd95() -> None:
    one, other = np.zeros((2, 20, 20, 20), bool)
    one[2:6, 2:6, 2:6] = True
    other[2:6, 2:6, 5:9] = True
    assert hd95(one, other) == 3
    assert hd95(one, other, (1, 1, 2.5)) == 7.5
    assert hd95(one, one) == 0


def test_hd95_where_a_region_is_missing() -> None:
    nothing, something = np.zeros((2, 4, 4, 4), bool)
    something[1, 1, 1] = True
    assert hd95(nothing, nothing) == 0
    assert hd95(nothing, something) == hd95(something, nothing) == MISSED_MM


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_hd95_equals_that_of_monai(seed: int) -> None:
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    rng = np.random.default_rng(seed)
    one, other = rng.random((2, 16, 14, 12)) > 0.6
    other &= rng.random(other.shape) > 0.3
    one[:2], other[:, -3:] = True, True  # masks that touch the border
    wanted = compute_hausdorff_distance(
        torch.from_numpy(one)[None, None], torch.from_numpy(other)[None, None],
        include_background=True, percentile=95, spacing=[1.0, 0.5, 2.0],
    )  # fmt: skip
    assert hd95(one, other, (1.0, 0.5, 2.0)) == pytest.approx(wanted.item(), abs=1e-4)


def test_volumes() -> None:
    labels = np.repeat(np.array([0, 1, 2, 3], np.uint8), [500, 1000, 2000, 3000])
    assert volumes_ml(labels) == {"WT": 6.0, "TC": 4.0, "ET": 3.0}
