"""Intensities change within what the network may see; the background stays where it is."""

import torch

from glioslice.preprocessing import CLIP
from training.augment import augment


def batch() -> torch.Tensor:
    images = torch.zeros(16, 4, 128, 128)
    images[:, :, 20:110, 20:120] = 0.01
    images[:, :, 60:80, 60:80] = 3.0
    return images


def test_values_stay_in_range_and_the_background_at_zero() -> None:
    images = augment(batch(), torch.Generator().manual_seed(1))
    assert images.abs().max() <= CLIP
    assert images.isfinite().all()
    assert not images[:, :, :20].any()
    assert not images[..., 120:].any()


def test_what_was_bright_stays_bright() -> None:
    images = augment(batch(), torch.Generator().manual_seed(0))
    inside, outside = images[:, :, 62:78, 62:78], images[:, :, 84:108, 84:108]
    kept = images.flatten(2).any(2)
    assert (inside.mean((2, 3)) > outside.mean((2, 3)) + 1)[kept].all()


def test_each_modality_changes_by_itself() -> None:
    means = augment(batch(), torch.Generator().manual_seed(0))[:, :, 62:78, 62:78].mean((2, 3))
    assert means.std(dim=1).min() > 0.01
    assert means.std(dim=0).min() > 0.1


def test_some_modalities_are_dropped_and_never_two() -> None:
    generator = torch.Generator().manual_seed(2)
    gone = torch.cat([~augment(batch(), generator).flatten(2).any(2) for _ in range(8)])
    assert 0.02 < gone.any(dim=1).float().mean() < 0.25
    assert gone.sum(dim=1).max() == 1


def test_the_seed_decides() -> None:
    one, again, other = (augment(batch(), torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
