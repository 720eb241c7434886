"""Images and labels are transformed together, within the limits.

Intensity augmentation keeps z-scores in range and the background at 0.

Resampled slices: thickness, interpolation, misregistration and the edge of the brain.
"""

import math
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from glioslice.cases import MODALITIES
from glioslice.preprocessing import CLIP
from training import augment as module
from training.augment import (
    MISSING,
    RAW_ZERO,
    REFERENCE,
    Resampling,
    augment,
    random_resampling,
    resample_volume,
    series_weights,
    warp,
)
from training.config import TrainingConfig

MIDDLE = torch.tensor([[79.5, 95.5]])


def warped(
    seed: int, count: int = 1, *, outside: int = 0, zoom: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops of a slice whose first modality is its label."""
    labels = torch.zeros(count, 160, 192, dtype=torch.uint8)
    labels[:, 60:100, 70:120] = 2
    labels[:, 70:90, 80:110] = 3
    images = torch.full((count, 4, 160, 192), 0.01)
    images[:, 0] += labels
    generator = torch.Generator().manual_seed(seed)
    centres = MIDDLE.expand(count, 2)
    return warp(images, labels, centres, (128, 128), generator, zoom=zoom, outside=outside)


@pytest.fixture
def no_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_ROTATION", "MAX_LOG_SCALE", "MAX_ELASTIC"):
        monkeypatch.setattr(module, name, 0.0)


def test_labels_move_with_the_images() -> None:
    images, labels = warped(0, 16)
    assert images.shape == (16, 4, 128, 128)
    assert set(labels.unique().tolist()) == {0, 2, 3}
    apart = (images[:, 0] - labels).abs() > 1.0
    assert apart.float().mean() < 0.002  # only along borders, where images are interpolated


@pytest.mark.usefixtures("no_motion")
def test_without_motion_a_crop_is_exact_or_mirrored() -> None:
    for seed in range(4):
        images, labels = warped(seed)
        rows = torch.arange(16, 144)
        expected = torch.zeros(160, 192, dtype=torch.uint8)
        expected[60:100, 70:120] = 2
        expected[70:90, 80:110] = 3
        # Only left and right may be mirrored.
        either = [expected[order][:, 32:160] for order in (rows, rows.flip(0))]
        assert any(torch.equal(labels[0], crop) for crop in either)
        torch.testing.assert_close(images[0, 0], labels[0] + 0.01, atol=1e-3, rtol=0)


@pytest.mark.usefixtures("no_motion")
def test_zoom_is_pixels_per_voxel() -> None:
    _, labels = warped(0, zoom=2.0)
    assert int((labels == 3).sum()) == 4 * 20 * 30


def test_labels_beyond_the_image() -> None:
    for outside in (0, 255):
        images, labels = warped(1, 8, zoom=0.5, outside=outside)
        beyond = images.eq(0).all(dim=1)
        assert beyond.float().mean() > 0.3
        assert (labels[beyond] == outside).float().mean() > 0.97  # except along the border


def test_each_crop_is_transformed_independently_and_reproducibly() -> None:
    (first, _), (again, _), (other, _) = warped(3, 4), warped(3, 4), warped(4, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def batch() -> torch.Tensor:
    images = torch.zeros(16, 4, 128, 128)
    images[:, :, 20:110, 20:120] = 0.01
    images[:, :, 60:80, 60:80] = 3.0
    return images


def test_values_stay_in_range_and_the_background_at_zero() -> None:
    images = augment(batch(), 0.4, torch.Generator().manual_seed(1))
    assert images.abs().max() <= CLIP
    assert images.isfinite().all()
    assert not images[:, :, :20].any()
    assert not images[..., 120:].any()


def test_contrast_is_preserved() -> None:
    images = augment(batch(), 0.4, torch.Generator().manual_seed(0))
    inside, outside = images[:, :, 62:78, 62:78], images[:, :, 84:108, 84:108]
    kept = images.flatten(2).any(2)
    assert (inside.mean((2, 3)) > outside.mean((2, 3)) + 1)[kept].all()


def test_each_modality_changes_independently() -> None:
    means = augment(batch(), 0.0, torch.Generator().manual_seed(0))[:, :, 62:78, 62:78].mean((2, 3))
    assert means.std(dim=1).min() > 0.01
    assert means.std(dim=0).min() > 0.1


def test_subsets_of_modalities_are_missing_as_often_as_they_should() -> None:
    images = torch.ones(1000, 4, 8, 8)
    generator = torch.Generator().manual_seed(2)
    gone = torch.cat([~augment(images, 0.4, generator).flatten(2).any(2) for _ in range(4)])
    subsets = Counter(
        " ".join(m for m, out in zip(MODALITIES, row, strict=True) if out) for row in gone.tolist()
    )
    assert subsets.pop("") / 4000 == pytest.approx(0.6, abs=0.03)
    assert set(subsets) == {
        " ".join(sorted(names.split(), key=MODALITIES.index)) for names in MISSING
    }
    for names, share in MISSING.items():
        ordered = " ".join(sorted(names.split(), key=MODALITIES.index))
        assert subsets[ordered] / 4000 == pytest.approx(0.4 * share, abs=0.015)


def test_t1ce_and_flair_are_never_both_missing() -> None:
    assert sum(MISSING.values()) == pytest.approx(1)
    assert len(MISSING) == 11
    assert not any({"t1ce", "flair"} <= set(names.split()) for names in MISSING)


def test_no_modality_is_missing_if_none_may_be() -> None:
    assert augment(torch.ones(64, 4, 8, 8), 0.0, torch.Generator()).flatten(2).any(2).all()


def test_the_seed_makes_it_reproducible() -> None:
    one, again, other = (augment(batch(), 0.4, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


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
