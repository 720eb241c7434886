"""Dice and volumes by hand."""

import numpy as np
import pytest

from glioslice.metrics import dice, region_dice, volumes_ml


def test_dice_by_hand() -> None:
    one, other = np.array([1, 1, 1, 0], bool), np.array([0, 1, 1, 1], bool)
    assert dice(one, other) == pytest.approx(2 * 2 / 6)


def test_both_empty_count_one_and_one_empty_zero() -> None:
    nothing, something = np.zeros(4, bool), np.array([1, 0, 0, 0], bool)
    assert dice(nothing, nothing) == 1
    assert dice(something, nothing) == dice(nothing, something) == 0


def test_regions() -> None:
    truth = np.array([0, 1, 2, 3, 2], np.uint8)
    prediction = np.array([0, 3, 2, 2, 2], np.uint8)
    scores = region_dice(prediction, truth)
    assert scores == pytest.approx({"WT": 1, "TC": 2 / 3, "ET": 0, "mean": 5 / 9})


def test_volumes() -> None:
    labels = np.repeat(np.array([0, 1, 2, 3], np.uint8), [500, 1000, 2000, 3000])
    assert volumes_ml(labels) == {"WT": 6.0, "TC": 4.0, "ET": 3.0}
