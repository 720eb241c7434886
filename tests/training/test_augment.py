"""Intensity augmentation keeps z-scores in range and the background at 0."""

from collections import Counter

import pytest
import torch

from glioslice.cases import MODALITIES
from glioslice.preprocessing import CLIP
from training.augment import MISSING, augment


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
