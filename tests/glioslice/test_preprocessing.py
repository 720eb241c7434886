"""Slices are extracted, normalised and quantized; masks return to their original voxels."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.preprocessing import (
    WINDOW,
    StoredVolumes,
    brain_mask,
    extract_slices,
    find_crop,
    quantize,
    restore_volume,
    slice_volume,
    voxels_in,
    z_scores,
)


@st.composite
def brains(draw: st.DrawFn) -> NDArray[Any]:
    """A volume with a brain anywhere in it whose bounding box fits the window."""
    shape = [draw(st.integers(1, side)) for side in (200, 230, 12)]
    brain = np.zeros(shape, bool)
    box = []
    for axis, size in enumerate(shape):
        limit = min(size, (*WINDOW, size)[axis])
        length = draw(st.integers(1, limit))
        start = draw(st.integers(0, size - length))
        box.append((start, start + length))
    for corner in range(2):  # two opposite corners fix the bounding box
        brain[tuple(b[0] if corner == 0 else b[1] - 1 for b in box)] = True
    return brain


@given(brains(), st.integers(0, 2**32 - 1))
def test_restoring_inverts_extracting_within_the_brain(brain: NDArray[Any], seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, brain.shape, dtype=np.uint8) * brain
    crop = find_crop(brain)
    slices = extract_slices(labels, crop)
    assert slices.shape[1:] == WINDOW
    np.testing.assert_array_equal(restore_volume(slices, crop), labels)


@given(brains())
def test_every_voxel_returns_to_its_place(brain: NDArray[Any]) -> None:
    """Each voxel of the window inside the volume is restored once, at its original position."""
    crop = find_crop(brain)
    address = np.arange(1, brain.size + 1, dtype=np.uint32).reshape(brain.shape)
    back = restore_volume(extract_slices(address, crop), crop)  # type: ignore[arg-type]
    inside = back > 0
    np.testing.assert_array_equal(back[inside], address[inside])
    assert inside[brain].all()


def test_channels_are_the_last_axis() -> None:
    volume = np.arange(4 * 3 * 5 * 2, dtype=np.float32).reshape(4, 3, 5, 2)
    crop = find_crop(np.ones((3, 5, 2), bool))
    slices = extract_slices(volume, crop)
    (x, wx), (y, wy) = crop.overlap(0), crop.overlap(1)
    assert slices.shape == (2, *WINDOW, 4)
    np.testing.assert_array_equal(slices[1, wx, wy, 3], volume[3, x, y, 1])


def test_a_brain_larger_than_the_window_is_refused() -> None:
    brain = np.ones((WINDOW[0] + 1, 20, 3), bool)
    with pytest.raises(GliosliceError, match=r"161 x 20 voxels .* larger than the window"):
        find_crop(brain)


def test_no_brain_is_refused() -> None:
    with pytest.raises(GliosliceError, match="no brain"):
        find_crop(brain_mask(np.zeros((4, 5, 5, 5), np.float32)))


def test_z_scores() -> None:
    images = np.random.default_rng(0).gamma(9, 40, (4, 20, 20, 20)).astype(np.float32)
    images[:, :5] = 0
    images[2] = 0  # a missing modality
    images[3, 10, 10, 10] = 1e6
    brain = brain_mask(images)
    scored = z_scores(images, brain)
    assert scored.dtype == np.float32
    assert not scored[:, ~brain].any()
    assert not scored[2].any()
    assert scored[3].max() == 5
    for modality in (0, 1):
        expected = (images[modality][brain] - images[modality][brain].mean()) / images[modality][
            brain
        ].std()
        np.testing.assert_allclose(scored[modality][brain], expected.clip(-5, 5), atol=1e-4)


def test_quantize_rounds_to_even_and_saturates() -> None:
    values = np.array([0, 0.25, 0.75, -0.25, 100, -100], np.float32)
    assert quantize(values, 0.5, -1).tolist() == [-1, -1, 1, -1, 127, -128]


def test_slice_volume_is_the_steps_in_one(
    volumes: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    images, _ = volumes
    slices, crop = slice_volume(images)
    brain = brain_mask(images)
    assert crop == find_crop(brain)
    np.testing.assert_array_equal(slices, extract_slices(z_scores(images, brain), crop))


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
def test_stored_volumes_are_indexed_as_float32(key: Any) -> None:
    np.testing.assert_array_equal(VOLUMES[key], DENSE[key])
    assert VOLUMES[key].dtype == np.float32


def test_stored_volumes_as_an_array() -> None:
    np.testing.assert_array_equal(np.asarray(VOLUMES), DENSE)
    np.testing.assert_array_equal(np.stack(list(VOLUMES)), DENSE)
    assert (len(VOLUMES), VOLUMES.shape) == (4, DENSE.shape)


def test_voxels_in_a_mask_do_not_depend_on_the_order_of_memory() -> None:
    mask = DENSE[0] > 40
    for index in range(4):
        expected = np.sort(DENSE[index][mask])
        np.testing.assert_array_equal(np.sort(voxels_in(VOLUMES, index, mask)), expected)
        np.testing.assert_array_equal(np.sort(voxels_in(DENSE, index, mask)), expected)
