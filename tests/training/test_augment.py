"""Intensities change within what the network may see; the background stays where it is."""

import torch

from glioslice.slices import CLIP
from training.augment import augment, fade, restyle
from training.loss import IGNORE


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


def test_faint_tumours_lose_contrast_and_nothing_else_changes() -> None:
    images, labels = batch(), torch.zeros(16, 128, 128, dtype=torch.uint8)
    images[:, :, 20:110, 20:120] += 0.2
    labels[:, 60:80, 60:80] = 2
    labels[:, 100:110] = IGNORE
    faint = fade(images, labels, 0.5, torch.Generator().manual_seed(0))
    far = torch.ones(128, 128, dtype=torch.bool)
    far[56:84, 56:84] = False
    assert torch.equal(faint[..., far], images[..., far])
    contrast = (faint[..., 65:75, 65:75] - faint[..., 88:98, 88:98]).mean((2, 3)) / 2.99
    changed = (contrast < 0.999).any(dim=1)
    assert 3 <= int(changed.sum()) <= 13
    assert (contrast[changed] > 0.28).all()
    assert contrast[changed].std(dim=1).min() > 0.01  # each modality by itself
    assert fade(images, labels, 0.0, torch.Generator()) is images
    three = fade(images.repeat(1, 3, 1, 1), labels, 0.5, torch.Generator().manual_seed(0))
    torch.testing.assert_close(three, faint.repeat(1, 3, 1, 1))  # a scan's slices alike


def test_another_scanner_keeps_the_order_of_grey() -> None:
    ramp = torch.linspace(-CLIP, CLIP, 401).reshape(1, 1, 1, 1, 401).repeat(8, 4, 2, 1, 1)
    styled = restyle(ramp, 0.5, torch.Generator().manual_seed(0))
    assert styled.shape == ramp.shape
    assert (styled.diff(dim=-1) > 0).all()
    assert torch.equal(styled[:, :, 0], styled[:, :, 1])  # the slices of one scan alike
    torch.testing.assert_close(styled[..., 200], torch.zeros(8, 4, 2, 1), atol=1e-5, rtol=0)
    slope = (styled[..., 280] - styled[..., 120]) / 4
    torch.testing.assert_close(slope, torch.ones(8, 4, 2, 1), atol=1e-4, rtol=0)
    changed = ((styled - ramp).abs() > 0.05).flatten(2).any(2)
    assert 10 <= int(changed.sum()) <= 22
    other = styled[changed].flatten(1)
    assert not torch.allclose(other[0], other[1], atol=0.05)
    assert restyle(ramp, 0.0, torch.Generator()) is ramp


def test_each_modality_changes_by_itself() -> None:
    means = augment(batch(), torch.Generator().manual_seed(0))[:, :, 62:78, 62:78].mean((2, 3))
    assert means.std(dim=1).min() > 0.01
    assert means.std(dim=0).min() > 0.1


def test_the_slices_of_one_scan_change_alike() -> None:
    """All but noise: a modality's slices, equal before, are equal after; background stays."""
    images = batch().repeat(1, 3, 1, 1)
    images[:, 8:, 100:] = 0.0  # the slice above is smaller
    changed = augment(images, torch.Generator().manual_seed(0)).unflatten(1, (3, 4))
    assert not changed[:, 2, :, 100:].any()
    assert changed[:, 0, :, 104:].any()
    middle = changed[:, :, :, 30:90, 30:90]
    noiseless = (middle[:, 0] == middle[:, 2]).flatten(2).all(2)
    assert 0.5 < noiseless.float().mean() < 0.9
    mean = middle.mean((3, 4))
    torch.testing.assert_close(mean[:, 0], mean[:, 2], atol=0.02, rtol=0)
    gone = ~changed.flatten(3).any(3)
    assert torch.equal(gone[:, 0], gone[:, 2])


def test_some_modalities_are_dropped_and_never_two() -> None:
    generator = torch.Generator().manual_seed(2)
    gone = torch.cat([~augment(batch(), generator).flatten(2).any(2) for _ in range(8)])
    assert 0.02 < gone.any(dim=1).float().mean() < 0.25
    assert gone.sum(dim=1).max() == 1


def test_the_seed_decides() -> None:
    one, again, other = (augment(batch(), torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
