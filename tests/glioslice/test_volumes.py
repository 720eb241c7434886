"""Volumes in their stored type behave as the float32 array of all voxels does."""

from typing import Any

import numpy as np
import pytest

from glioslice.volumes import StoredVolumes, voxels_in

STORED = np.random.default_rng(5).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
SCALES = tuple(np.float32(s) for s in (1, 0.1, 28.59, 3))
VOLUMES = StoredVolumes(STORED.transpose(0, 3, 2, 1).copy().transpose(0, 3, 2, 1), SCALES)
DENSE = STORED.astype(np.float32) * np.array(SCALES, np.float32)[:, None, None, None]


@pytest.mark.parametrize(
    "key",
    [
        1,
        slice(1, 3),
        [0, 2],
        (2, slice(1, 4), slice(None), 1),
        (slice(None), 3),
        (..., 2),
        (1, np.array([0, 5]), np.array([4, 0]), np.array([1, 1])),
        slice(None),
    ],
)
def test_indexing(key: Any) -> None:
    np.testing.assert_array_equal(VOLUMES[key], DENSE[key])
    assert VOLUMES[key].dtype == np.float32


def test_as_an_array() -> None:
    np.testing.assert_array_equal(np.asarray(VOLUMES), DENSE)
    np.testing.assert_array_equal(np.stack(list(VOLUMES)), DENSE)
    assert (len(VOLUMES), VOLUMES.shape) == (4, DENSE.shape)


def test_voxels_in_a_mask_do_not_depend_on_the_order_of_memory() -> None:
    mask = DENSE[0] > 40
    for index in range(4):
        expected = np.sort(DENSE[index][mask])
        np.testing.assert_array_equal(np.sort(voxels_in(VOLUMES, index, mask)), expected)
        np.testing.assert_array_equal(np.sort(voxels_in(DENSE, index, mask)), expected)
