"""Augmentation moves images and labels together, and stays within what the network may see."""

import torch

from glioslice.slices import CLIP
from training.augment import augment


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(16, 160, 192, dtype=torch.uint8)
    labels[:, 60:100, 70:120] = 2
    labels[:, 70:90, 80:110] = 3
    images = torch.zeros(16, 4, 160, 192)
    images[:, :, 20:140, 20:170] = 0.01
    images += 3.0 * (labels == 3)[:, None]
    return images, labels


def test_labels_move_with_the_images() -> None:
    images, labels = augment(*batch(), torch.Generator().manual_seed(0))
    inside, outside = labels == 3, (labels == 0) & (images[:, 0] != 0)
    for image, one, other in zip(images[:, 3], inside, outside, strict=True):
        if image.any():  # not dropped
            assert image[one].mean() > image[other].mean() + 1


def test_values_stay_in_range_and_the_background_at_zero() -> None:
    images, labels = augment(*batch(), torch.Generator().manual_seed(1))
    assert images.abs().max() <= CLIP
    assert images.isfinite().all()
    assert labels.dtype == torch.uint8
    assert set(labels.unique().tolist()) <= {0, 2, 3}
    assert (images[:, :, 0, 0] == 0).float().mean() > 0.9  # corners lie outside the head


def test_some_modalities_are_dropped_and_never_two() -> None:
    generator = torch.Generator().manual_seed(2)
    gone = torch.cat([~augment(*batch(), generator)[0].flatten(2).any(2) for _ in range(8)])
    assert 0.02 < gone.any(dim=1).float().mean() < 0.25
    assert gone.sum(dim=1).max() == 1


def test_the_seed_decides() -> None:
    one, again, other = (augment(*batch(), torch.Generator().manual_seed(s))[0] for s in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
