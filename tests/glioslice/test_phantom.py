"""The phantom is reproducible, a valid case, and shows the contrasts of a high-grade glioma."""

import numpy as np
import pytest
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.labels import CORE, EDEMA, ENHANCING, to_regions
from glioslice.phantom.head import Phantom, make_phantom
from glioslice.preprocessing import brain_mask, find_crop, z_scores

SMALL = (64, 72, 48)
FLAIR, T1, T1CE, T2 = range(4)


@pytest.fixture(scope="module", params=(0, 1, 2))
def phantom(request: pytest.FixtureRequest) -> Phantom:
    return make_phantom(request.param, shape=SMALL)


@pytest.fixture(scope="module")
def healthy() -> Phantom:
    return make_phantom(0, tumour=False, shape=SMALL)


def scores(phantom: Phantom) -> NDArray[np.float32]:
    return z_scores(phantom.images, brain_mask(phantom.images))


def touching(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels that share a face with `mask`."""
    found = np.zeros_like(mask)
    for axis in range(3):
        for step in (-1, 1):
            found |= np.roll(mask, step, axis)
    return found


@pytest.mark.slow
def test_a_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    once, again, other = (make_phantom(seed, shape=SMALL) for seed in (3, 3, 4))
    assert once.images.tobytes() == again.images.tobytes()
    assert once.labels.tobytes() == again.labels.tobytes()
    assert not np.array_equal(once.images, other.images)
    assert not np.array_equal(once.labels, other.labels)


def test_images_are_a_skull_stripped_case(phantom: Phantom) -> None:
    assert phantom.images.shape == (4, *SMALL)
    assert phantom.images.dtype == np.float32
    assert phantom.labels.shape == SMALL
    assert phantom.labels.dtype == np.uint8
    brain = brain_mask(phantom.images)
    assert (phantom.images[:, brain] > 0).all()
    assert (phantom.images[:, ~brain] == 0).all()
    extent = [np.ptp(indices) + 1 for indices in np.nonzero(brain)]
    assert 0.3 < brain.sum() / np.prod(extent) < 0.7  # round, not a box
    assert ((phantom.images[:, brain].mean(1) > 50) & (phantom.images.max((1, 2, 3)) < 1e5)).all()


def test_truth_lies_in_one_hemisphere_of_the_brain(phantom: Phantom) -> None:
    regions = to_regions(phantom.labels)
    assert set(np.unique(phantom.labels)) == {0, CORE, EDEMA, ENHANCING}
    assert not (regions[0] & ~brain_mask(phantom.images)).any()
    left_half = np.arange(SMALL[0])[:, None, None] >= SMALL[0] / 2
    share = (regions[0] & left_half).sum() / regions[0].sum()
    assert max(share, 1 - share) > 0.97


def test_edema_surrounds_a_rim_that_surrounds_the_core(phantom: Phantom) -> None:
    core, edema, enhancing = (phantom.labels == label for label in (CORE, EDEMA, ENHANCING))
    assert (touching(core) & enhancing).sum() > 0.3 * enhancing.sum()
    assert (touching(edema) & enhancing).sum() > 0.2 * enhancing.sum()
    centre = np.argwhere(core | enhancing).mean(0)
    apart = [
        np.linalg.norm(np.argwhere(part) - centre, axis=1).mean()
        for part in (core, enhancing, edema)
    ]
    assert apart[0] < apart[1] < apart[2]


def test_contrasts_are_those_of_a_high_grade_glioma(phantom: Phantom) -> None:
    z = scores(phantom)
    core, edema, enhancing = (
        np.median(z[:, phantom.labels == label], axis=1) for label in (CORE, EDEMA, ENHANCING)
    )
    healthy = np.median(z[:, brain_mask(phantom.images) & (phantom.labels == 0)], axis=1)
    assert edema[FLAIR] > healthy[FLAIR] + 1.2
    assert core[FLAIR] < edema[FLAIR]
    assert core[T1] < edema[T1] - 0.4
    assert core[T1] < healthy[T1] - 0.4
    assert enhancing[T1CE] > max(healthy[T1CE], edema[T1CE]) + 1.2
    assert core[T1CE] < healthy[T1CE]
    assert edema[T2] > healthy[T2] + 0.4
    assert core[T2] > edema[T2]


def test_fluid_is_bright_in_t2_and_dark_in_flair_and_t1(healthy: Phantom) -> None:
    z = scores(healthy)
    fluid = z[T2] > 2
    assert fluid.sum() > 0.02 * brain_mask(healthy.images).sum()
    assert np.median(z[FLAIR, fluid]) < -1
    assert np.median(z[T1, fluid]) < -1


def test_vessels_are_bright_after_contrast_agent_alone(healthy: Phantom) -> None:
    z = scores(healthy)
    vessels = z[T1CE] > 3
    assert vessels.any()
    assert np.median(z[T1, vessels]) < 1
    assert np.median(z[FLAIR, vessels]) < 1


def test_without_tumour_it_is_the_same_head(healthy: Phantom) -> None:
    assert not healthy.labels.any()
    ill = make_phantom(0, shape=SMALL)
    brain = brain_mask(healthy.images)
    assert np.mean(brain == brain_mask(ill.images)) > 0.99
    side = np.argwhere(ill.labels)[:, 0].mean() < SMALL[0] / 2
    other = slice(SMALL[0] // 2 + 4, None) if side else slice(None, SMALL[0] // 2 - 4)
    far = brain[other]
    for one, two in zip(healthy.images[:, other], ill.images[:, other], strict=True):
        assert np.corrcoef(one[far], two[far])[0, 1] > 0.9


@pytest.mark.parametrize("shape", [(37, 72, 48), (64, 46, 48), (64, 72, 37), (64, 72), (0, 0, 0)])
def test_a_volume_too_small_for_a_head_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(GliosliceError, match="choose at least 38 x 47 x 38"):
        make_phantom(0, shape=shape)


@pytest.mark.slow
def test_at_full_size_it_is_as_large_as_a_head_and_fits_the_window() -> None:
    phantom = make_phantom(0)
    brain = brain_mask(phantom.images)
    sizes = [np.ptp(np.flatnonzero(brain.any(axis=axes))) for axes in ((1, 2), (0, 2), (0, 1))]
    assert 120 < sizes[0] < 150
    assert 144 < sizes[1] < 185
    assert 115 < sizes[2] < 150
    assert 1.15e6 < brain.sum() < 1.65e6
    find_crop(brain)  # raises where the brain is larger than the window
    core, edema, enhancing = (int((phantom.labels == label).sum()) for label in (1, 2, 3))
    assert 4e3 < core + enhancing < 8e4
    assert 1e4 < edema < 1.5e5
