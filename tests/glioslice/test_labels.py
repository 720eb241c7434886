"""Conversion between label schemes, labels and regions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.labels import (
    SCHEMES,
    LabelScheme,
    check_nesting,
    from_scheme,
    to_labels,
    to_regions,
    to_scheme,
)

LABELS = arrays(np.uint8, array_shapes(min_dims=3, max_dims=3), elements=st.integers(0, 3))


def test_the_values_of_each_data_set() -> None:
    ours = np.array([0, 1, 2, 3], np.uint8)
    values = {scheme.edition: to_scheme(ours, scheme).tolist() for scheme in SCHEMES}
    assert values == {
        "BraTS 2018-2021": [0, 1, 2, 4],
        "BraTS 2023 and later": [0, 1, 2, 3],
        "Decathlon Task01": [0, 2, 1, 3],
    }


@given(LABELS, st.sampled_from(SCHEMES))
def test_conversions_are_invertible(labels: NDArray[np.uint8], scheme: LabelScheme) -> None:
    np.testing.assert_array_equal(from_scheme(to_scheme(labels, scheme), scheme), labels)
    np.testing.assert_array_equal(to_labels(to_regions(labels)), labels)


def test_regions_nest() -> None:
    wt, tc, et = to_regions(np.array([0, 1, 2, 3], np.uint8))
    assert wt.tolist() == [False, True, True, True]
    assert tc.tolist() == [False, True, False, True]
    assert et.tolist() == [False, False, False, True]


def test_the_smaller_region_wins() -> None:
    every = np.array(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), bool).reshape(3, 8)
    labels = to_labels(every)
    assert labels.tolist() == [0, 3, 1, 3, 2, 3, 1, 3]  # (WT, TC, ET) = 000, 001, ... 111


def test_swapped_core_and_edema_are_detected() -> None:
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:10, 2:10, 2:10] = 2
    labels[4:8, 4:8, 4:8] = 1
    check_nesting(labels)
    check_nesting(np.zeros_like(labels))
    check_nesting(np.where(labels == 2, np.uint8(0), labels))  # only a core
    with pytest.raises(GliosliceError, match=r"80% of the core's surface .* 0% of the edema's"):
        check_nesting(np.array([0, 2, 1, 3], np.uint8)[labels])
