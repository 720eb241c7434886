"""Tumours set into slices of others: where they land, how bright they are, what is left alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.lesions import load_lesions
from training.loss import IGNORE
from training.transplant import RIM, transplant

HOST = torch.tensor([0.5, -1.0, 2.0, 0.0])[:, None, None]


@pytest.fixture
def slices() -> tuple[Tensor, Tensor]:
    """Eight slices: a square brain, as bright everywhere, with a speck of edema in a corner."""
    images = torch.zeros(8, 4, 128, 128)
    images[:, :, 16:112, 16:112] = HOST + 1e-3
    labels = torch.zeros(8, 128, 128, dtype=torch.uint8)
    labels[:, 18:22, 18:22] = 2
    return images, labels


def test_a_tumour_is_as_much_brighter_than_its_new_brain_as_it_was(
    slices: tuple[Tensor, Tensor], cubes: Path
) -> None:
    lesions, generator = load_lesions(cubes, set()), torch.Generator().manual_seed(0)
    images, labels = transplant(*slices, lesions, 1.0, generator)
    changed = (images != slices[0]).any(dim=1)
    assert changed.flatten(1).any(dim=1).sum() >= 6
    new = labels != slices[1]
    assert (new & ~changed).sum() == 0
    # In the cubes FLAIR is 1 + 10 times the label, in steps of 0.08, the rest as bright everywhere.
    for label, steps in ((2, 20), (3, 40)):
        inside = new & (labels == label)
        flair = images[:, 0][inside] - slices[0][:, 0][inside]
        assert flair.median() == pytest.approx(0.08 * steps, abs=0.08)
        others = (images - slices[0])[:, 1:].permute(1, 0, 2, 3)[:, inside]
        assert others.abs().max() < 0.1


def test_nothing_changes_far_from_it_or_outside_the_brain(
    slices: tuple[Tensor, Tensor], cubes: Path
) -> None:
    lesions, generator = load_lesions(cubes, set()), torch.Generator().manual_seed(1)
    before = [one.clone() for one in slices]
    images, labels = transplant(*slices, lesions, 1.0, generator)
    assert all(torch.equal(one, was) for one, was in zip(slices, before, strict=True))
    outside = (before[0] == 0).all(dim=1)
    assert not images.permute(1, 0, 2, 3)[:, outside].any() and not labels[outside].any()
    near = torch.nn.functional.max_pool2d(
        (labels > 0).float()[:, None], 2 * RIM + 1, stride=1, padding=RIM
    )[:, 0]
    changed = (images != before[0]).any(dim=1)
    assert not (changed & (near == 0)).any()
    assert not (labels == IGNORE).any()


def test_a_share_of_slices_in_the_same_way_again(
    slices: tuple[Tensor, Tensor], cubes: Path
) -> None:
    lesions = load_lesions(cubes, set())
    images, labels = slices[0].repeat(16, 1, 1, 1), slices[1].repeat(16, 1, 1)
    made = [
        transplant(images, labels, lesions, 0.25, torch.Generator().manual_seed(2))
        for _ in range(2)
    ]
    assert torch.equal(made[0][0], made[1][0]) and torch.equal(made[0][1], made[1][1])
    changed = (made[0][0] != images).flatten(1).any(dim=1)
    assert 0.1 < changed.float().mean() < 0.4
    still = transplant(images, labels, lesions, 0.0, torch.Generator().manual_seed(2))
    assert torch.equal(still[0], images) and torch.equal(still[1], labels)


def test_tumours_that_an_edge_cuts_off_stay_where_they_are(
    slices: tuple[Tensor, Tensor], cubes: Path
) -> None:
    lesions = load_lesions(cubes, set())
    assert {name: len(found) for name, found in lesions.whole.items()} == {"P1": 32, "P2": 16}
    with np.load(cubes) as held:
        arrays = dict(held)
    labels = arrays["labels"]
    labels[:2, 27, 10:14, 4:20] = 2  # beside rows that are not valid
    labels[2, 10:14, 0, 4:20] = 2  # at the edge
    np.savez(cubes, **arrays)
    lesions = load_lesions(cubes, set())
    assert not lesions.whole and len(lesions.patients) == 2
    images, _ = transplant(*slices, lesions, 1.0, torch.Generator().manual_seed(3))
    assert torch.equal(images, slices[0])
    labels[2, 3:27, 3:29, 4:20] = 2  # whole, but too large for its patch once it is stretched
    labels[2, :, 0] = 0
    np.savez(cubes, **arrays)
    lesions, many = load_lesions(cubes, set()), slices[0].repeat(4, 1, 1, 1)
    assert set(lesions.whole) == {"P2"}
    images, _ = transplant(
        many, slices[1].repeat(4, 1, 1), lesions, 1.0, torch.Generator().manual_seed(3)
    )
    assert 0.1 < (images != many).flatten(1).any(dim=1).float().mean() < 0.7


def test_slices_beside_change_where_the_middle_one_does(
    slices: tuple[Tensor, Tensor], cubes: Path
) -> None:
    images = slices[0].repeat(1, 3, 1, 1)
    lesions, generator = load_lesions(cubes, set()), torch.Generator().manual_seed(0)
    several, labels = transplant(images, slices[1], lesions, 1.0, generator)
    alone, wanted = transplant(*slices, lesions, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(labels, wanted)
    torch.testing.assert_close(several[:, 4:8], alone)
    changed = (several != images).unflatten(1, (3, 4)).any(dim=2).flatten(2).any(2)
    assert changed.any(dim=1).sum() >= 6
