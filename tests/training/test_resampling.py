"""Resampled slices: thickness, interpolation, misregistration and the edge of the brain."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from training.augment import RAW_ZERO
from training.config import TrainingConfig
from training.resampling import (
    REFERENCE,
    Resampling,
    random_resampling,
    resample_volume,
    series_weights,
)

UNCHANGED = Resampling(
    np.ones(4), np.zeros(4), np.zeros(4), np.zeros((4, 2)), np.zeros(4), brain_first=True
)


@pytest.fixture
def volume() -> Tensor:
    """Z-scores with a brain of 20 slices and 40 x 60 pixels, air around it."""
    scores = torch.zeros(30, 60, 80, 4)
    scores[5:25, 10:50, 10:70] = torch.randn(
        20, 40, 60, 4, generator=torch.Generator().manual_seed(0)
    )
    return scores


def test_slices_of_one_millimetre_change_nothing(volume: Tensor) -> None:
    for brain_first in (True, False):
        same = resample_volume(volume, replace(UNCHANGED, brain_first=brain_first))
        torch.testing.assert_close(same, volume, atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("thickness", "phase", "shift"),
    list(product((1.0, 2.0, 3.7, 6.0), (0.0, 0.4, 3.1), (0.0, -0.5))),
)
def test_weights_preserve_constants_and_straight_lines(
    thickness: float, phase: float, shift: float
) -> None:
    weights = series_weights(thickness, phase, 40, shift)
    assert weights.min() >= 0
    inner = slice(15, 25)  # slices near the ends mix with air
    np.testing.assert_allclose(weights.sum(axis=1)[inner], 1, atol=1e-5)
    # Parts of voxels have the voxel's value, so fractional thicknesses are a little off.
    exact = thickness == int(thickness) and phase == int(phase)
    position = np.arange(40) + shift
    off = np.abs(weights @ np.arange(40) - position)[inner]
    assert off.max() <= (1e-4 if exact else 0.13)
    assert weights[0].sum() < 1 or thickness == 1


def test_weights_computed_manually() -> None:
    np.testing.assert_array_equal(series_weights(1, 0, 5), np.eye(5))
    # Halfway there and halfway back.
    assert series_weights(1, 0.5, 5)[2].tolist() == pytest.approx([0, 0.25, 0.5, 0.25, 0])
    assert series_weights(3, 2, 5)[2].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])
    # A third of the way from the slice 0, 1, 2 to the slice 3, 4, 5.
    expected = [2 / 9] * 3 + [1 / 9] * 3
    assert series_weights(3, 1, 6)[2].tolist() == pytest.approx(expected)


def test_a_constant_brain_stays_constant() -> None:
    volume = torch.full((30, 64, 64, 4), 1.5)
    generator = torch.Generator().manual_seed(0)
    config = TrainingConfig(thick=1.0, misregistered=1.0)
    for _ in range(10):
        made = resample_volume(volume, random_resampling(config, generator))
        np.testing.assert_allclose(made[12:-12, 8:-8, 8:-8].numpy(), 1.5, atol=5e-3)


def test_the_edge_of_the_brain(volume: Tensor) -> None:
    volume[5:25, 10:50, 10:70] = 1.0
    shift = np.array([[0, 0], [0.5, 0], [0, 0], [0, 0]])
    mixed = resample_volume(volume, replace(UNCHANGED, shift=shift))[12]
    assert mixed[30, 40].tolist() == [1, 1, 1, 1]
    # Half tissue, half air: on one side in the brain, on the other beside it.
    half = (1 + RAW_ZERO) / 2 - RAW_ZERO
    assert mixed[49, 40].tolist() == pytest.approx([1, half, 1, 1], abs=1e-2)
    assert mixed[9, 40].tolist() == pytest.approx([-RAW_ZERO, half, -RAW_ZERO, -RAW_ZERO], abs=1e-2)
    after = resample_volume(volume, replace(UNCHANGED, shift=shift, brain_first=False))
    torch.testing.assert_close(after, volume, atol=1e-2, rtol=0)


def test_misregistration_turns_and_shifts_by_voxels(volume: Tensor) -> None:
    shift, angle = np.zeros((4, 2)), np.zeros(4)
    shift[0], angle[1] = (1, -2), math.pi
    moved = resample_volume(volume, replace(UNCHANGED, shift=shift, angle=angle)).numpy()[12]
    inner = moved[15:45, 15:65]
    still = volume.numpy()
    np.testing.assert_allclose(inner[..., 0], still[12, 16:46, 13:63, 0], atol=1e-2)
    np.testing.assert_allclose(inner[..., 1], still[12, ::-1, ::-1, 1][15:45, 15:65], atol=1e-2)
    np.testing.assert_allclose(inner[..., 2:], still[12, 15:45, 15:65, 2:], atol=1e-2)


def test_a_missing_modality_stays_missing(volume: Tensor) -> None:
    volume[..., 1] = 0
    made = resample_volume(volume, replace(UNCHANGED, thickness=np.full(4, 5.0)))
    assert made[12, 10:50, 10:70, 1].abs().max() < 1e-5
    assert made[12, 10:50, 10:70, 2].any()


def test_random_resampling_follows_the_config() -> None:
    config = TrainingConfig(thick=0.5, misregistered=0.5)

    def sample(seed: int, count: int = 400) -> list[Resampling]:
        generator = torch.Generator().manual_seed(seed)
        return [random_resampling(config, generator) for _ in range(count)]

    drawn = sample(0)
    thick = np.stack([r.thickness for r in drawn])
    series = (thick > 1).sum(axis=1)
    assert (series > 0).mean() == pytest.approx(0.5, abs=0.1)
    assert set(series) == {0, 1, 2, 3, 4}
    assert thick[thick > 1].min() >= config.thick_from
    assert thick.max() <= config.thick_to
    shift = np.stack([r.shift for r in drawn])
    assert not shift[:, REFERENCE].any()
    assert shift.any(axis=2).mean() == pytest.approx(0.5 * 3 / 4, abs=0.05)
    assert np.abs(shift).max() == pytest.approx(config.misregistered_shift, abs=0.05)
    assert max(np.abs(r.angle).max() for r in drawn) <= math.radians(config.misregistered_turn)
    again, other = sample(0, 2), sample(1, 2)
    np.testing.assert_array_equal(again[1].phase, drawn[1].phase)
    assert (other[1].phase != drawn[1].phase).any()
