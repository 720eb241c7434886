"""Post-processing of a whole volume."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from glioslice.labels import to_labels, to_regions
from glioslice.postprocessing import (
    NO_RULES,
    STANDARD_RULES,
    PostprocessingRules,
    postprocess,
)

Volume = NDArray[np.uint8]


def head() -> Volume:
    """A tumour of 20 x 20 x 12 with a core and an enhancing rim."""
    labels = np.zeros((50, 60, 20), np.uint8)
    labels[10:30, 20:40, 4:16] = 2
    labels[14:26, 24:36, 6:14] = 3
    labels[16:24, 26:34, 6:14] = 1
    return labels


def by_scipy(labels: Volume, rules: PostprocessingRules) -> Volume:
    """The same rules with scipy's components."""
    wt, tc, et = to_regions(labels)
    components, _ = ndimage.label(wt, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept = (sizes / max(sizes.max(), 1) >= rules.smallest_part)[components] & wt
    et = et & kept
    if et.sum() < rules.smallest_enhancing:
        et = np.zeros_like(et)
    return to_labels(np.stack([kept, tc & kept, et]))


def test_no_rules_change_nothing() -> None:
    assert not NO_RULES and STANDARD_RULES
    result = postprocess(head(), NO_RULES)
    assert (result.labels == head()).all() and not result.changed
    assert result.summary() == "nothing changed"


@pytest.mark.parametrize(
    ("place", "value", "becomes"),
    [
        (np.s_[40:45, 2:17, 2:8], 2, 0),  # 450 of 4,800 voxels
        (np.s_[40:48, 2:17, 2:6], 2, 2),  # 480: exactly a tenth
        (np.s_[40:43, 5:8, 2:5], 3, 0),  # with the regions inside
        (np.s_[30:31, 40:41, 16:17], 2, 2),  # touches the tumour at a corner
        (np.s_[31:32, 41:42, 17:18], 2, 0),  # a gap of one voxel
        (np.s_[49:50, 59:60, 19:20], 2, 0),  # the last voxel of the volume
    ],
)
def test_a_part_under_a_tenth_of_the_largest_vanishes(
    place: tuple[slice, ...], value: int, becomes: int
) -> None:
    labels = head()
    labels[place] = value
    before, expected = labels.copy(), head()
    expected[place] = becomes
    result = postprocess(labels, STANDARD_RULES)
    assert (result.labels == expected).all() and (labels == before).all()
    voxels = int(np.count_nonzero(before != expected))
    assert (result.removed_parts, result.removed_voxels) == (int(becomes == 0), voxels)
    assert ("1 small part " in result.summary()) == result.changed


@pytest.mark.parametrize(("voxels", "becomes"), [(99, 1), (100, 3)])
def test_an_enhancing_tumour_of_fewer_than_100_voxels_becomes_core(
    voxels: int, becomes: int
) -> None:
    labels = head()
    labels[labels == 3] = 1
    labels.reshape(-1)[np.flatnonzero(labels == 1)[:: 1152 // voxels][:voxels]] = 3
    result = postprocess(labels, STANDARD_RULES)
    assert np.count_nonzero(labels == 3) == voxels
    assert (result.labels[labels == 3] == becomes).all()
    assert result.core_voxels == (voxels if becomes == 1 else 0)
    assert ("0.10 mL of enhancing" in result.summary()) == (becomes == 1)


def test_enhancing_voxels_of_removed_parts_do_not_count() -> None:
    labels = head()
    labels[labels == 3] = 1
    labels[14, 24:34, 6:14] = 3  # 80
    labels[40:43, 5:13, 2:6] = 3  # 96 in a part that vanishes
    result = postprocess(labels, STANDARD_RULES)
    assert (result.removed_voxels, result.core_voxels) == (96, 80)
    assert not (result.labels == 3).any()


def test_an_empty_and_a_full_mask() -> None:
    empty = postprocess(np.zeros((9, 9, 9), np.uint8), STANDARD_RULES)
    assert not empty.labels.any() and not empty.changed
    full = np.full((9, 9, 9), 3, np.uint8)
    assert (postprocess(full, STANDARD_RULES).labels == 3).all()


@given(
    arrays(np.uint8, (6, 7, 9), elements=st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3])),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]),
    st.integers(0, 30),
)
def test_the_components_are_those_of_scipy(labels: Volume, share: float, enhancing: int) -> None:
    rules = PostprocessingRules(share, enhancing)
    result = postprocess(labels, rules).labels
    np.testing.assert_array_equal(result, by_scipy(labels, rules))
    np.testing.assert_array_equal(postprocess(result, rules).labels, result)
    before, after = to_regions(labels), to_regions(result)
    assert not (after & ~before).any()


@pytest.mark.parametrize("share", [0.002, 0.02, 0.2])
def test_a_volume_full_of_noise_is_that_of_scipy_too(share: float) -> None:
    noise = np.random.default_rng(0).random((120, 130, 100))
    labels = np.where(noise < share, 2, 0).astype(np.uint8)
    labels[noise > 1 - share / 2] = 3
    rules = PostprocessingRules(0.3, 100)
    np.testing.assert_array_equal(postprocess(labels, rules).labels, by_scipy(labels, rules))


def test_a_spiral_of_many_runs_is_one_part() -> None:
    labels = np.zeros((41, 41, 3), np.uint8)
    x, y = np.mgrid[:41, :41] - 20
    turns = (np.arctan2(y, x) / np.pi / 2 - np.hypot(x, y) / 8) % 1
    labels[turns < 0.5] = 2
    result = postprocess(labels, PostprocessingRules(1.0, 0)).labels
    np.testing.assert_array_equal(result, by_scipy(labels, PostprocessingRules(1.0, 0)))


def test_a_whole_head_takes_less_than_two_seconds() -> None:
    x, y, z = np.ogrid[:240, :240, :155]
    labels = np.where((x - 90) ** 2 + (y - 120) ** 2 + (z - 80) ** 2 < 900, 2, 0).astype(np.uint8)
    labels[np.random.default_rng(0).random(labels.shape) < 1e-3] = 2  # 8,928 specks at most
    started = time.process_time()
    result = postprocess(labels, STANDARD_RULES)
    assert time.process_time() - started < 2  # 0.3 s measured
    assert result.removed_parts > 5000


@pytest.mark.parametrize("limits", [(-0.1, 0), (1.1, 0), (0.1, -1)])
def test_limits_out_of_range_are_refused(limits: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match="smallest_"):
        PostprocessingRules(*limits)
