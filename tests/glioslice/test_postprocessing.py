"""Post-processing of a whole volume."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from glioslice.labels import to_regions
from glioslice.postprocessing import PostprocessingRules, postprocess

Volume = NDArray[np.uint8]

ALL = PostprocessingRules(smooth=True, share=0.1, core_ml=0.05, enhancing_ml=0.02)


def head() -> Volume:
    """A tumour of 20 x 20 x 12 with a core and an enhancing rim."""
    labels = np.zeros((50, 60, 20), np.uint8)
    labels[10:30, 20:40, 4:16] = 2
    labels[14:26, 24:36, 6:14] = 3
    labels[16:24, 26:34, 6:14] = 1
    return labels


def test_default_rules_change_nothing() -> None:
    assert (postprocess(head(), PostprocessingRules()) == head()).all()


def test_a_single_large_tumour_is_unchanged() -> None:
    assert (postprocess(head(), ALL) == head()).all()


@pytest.mark.parametrize(
    ("rules", "place", "value", "becomes"),
    [
        (PostprocessingRules(share=0.01), np.s_[40:43, 5:8, 2:5], 2, 0),  # 27 of 4,800 voxels
        (PostprocessingRules(share=0.01), np.s_[40:45, 5:10, 2:6], 2, 2),  # 100
        (PostprocessingRules(share=0.01), np.s_[40:43, 5:8, 2:5], 3, 0),  # with the regions inside
        (PostprocessingRules(core_ml=0.03), np.s_[11:13, 21:24, 5:9], 1, 2),  # 24 voxels
        (PostprocessingRules(core_ml=0.03), np.s_[11:13, 21:24, 5:9], 3, 2),
        (PostprocessingRules(core_ml=0.02), np.s_[11:13, 21:24, 5:9], 1, 1),
        (PostprocessingRules(enhancing_ml=0.03), np.s_[19:21, 29:32, 8:12], 3, 1),
        (PostprocessingRules(enhancing_ml=0.02), np.s_[19:21, 29:32, 8:12], 3, 3),
    ],
)
def test_a_small_component(
    rules: PostprocessingRules, place: tuple[slice, ...], value: int, becomes: int
) -> None:
    labels = head()
    labels[place] = value
    expected = head()
    expected[place] = becomes
    assert (postprocess(labels, rules) == expected).all()


def test_a_slice_unlike_its_neighbours_is_smoothed() -> None:
    labels = head()
    labels[..., 9] = 0
    labels[40:48, 50:58, 12] = 2
    assert (postprocess(labels, PostprocessingRules(smooth=True)) == head()).all()


def test_an_empty_mask() -> None:
    assert not postprocess(np.zeros((9, 9, 9), np.uint8), ALL).any()


@given(arrays(np.uint8, (6, 7, 5), elements=st.integers(0, 3)))
def test_regions_never_grow_and_stay_nested(labels: Volume) -> None:
    rules = PostprocessingRules(share=0.2, core_ml=0.01, enhancing_ml=0.005)
    before, after = to_regions(labels), to_regions(postprocess(labels, rules))
    assert not (after & ~before).any()
    assert not (after[1] & ~after[0]).any() and not (after[2] & ~after[1]).any()
