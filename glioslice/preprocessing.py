"""From a volume to the network's input slices, and from masks back to a volume.

A volume is (4, X, Y, Z) in LPS orientation: X points to the patient's left, Y to the back, Z to
the head. A slice is (X, Y, 4) at one Z, cropped to a window of fixed size. numpy only.

The volumes of a file stay in the type in which it stores them: BraTS publishes 16-bit integers, and
many tools write bytes with a scale in the header. As float32 four volumes take 143 MB, as bytes
36 MB: they become float32 only where they are looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from glioslice.errors import GliosliceError
from glioslice.labels import occupied_box

Scalar = TypeVar("Scalar", bound=np.generic)

WINDOW = (160, 192)
"""Left-right and front-back size in voxels of 1 mm; all 39 measured brains fit."""

CLIP = 5.0
"""Limit of the z-scores: an int8 step is then 0.04 standard deviations."""

CACHED_VOXELS = 1 << 15
"""Voxels of which a copy as float64 fits a processor's cache."""

WILD = 50.0
"""Z-score from which a voxel is an error: it does not count in mean and standard deviation. The
brightest vessels of 60 patients reach 15."""


@dataclass(frozen=True, eq=False)
class StoredVolumes:
    """Volumes (4, X, Y, Z) as they are stored, and the factor by which each is multiplied.

    Indexing gives what indexing the float32 array of all voxels would give; `numpy.asarray` gives
    that array. The voxels are not changed any more: what is measured over the brain is kept.
    """

    stored: NDArray[Any]
    scales: tuple[np.float32, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all volumes: (4, X, Y, Z)."""
        return self.stored.shape

    def __len__(self) -> int:
        """Return the number of volumes."""
        return len(self.stored)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the volumes (X, Y, Z)."""
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Return a part; the first index is that of volumes, or an ellipsis."""
        part = np.asarray(self.stored[key], np.float32)
        scales = np.asarray(self.scales, np.float32)
        if (scales == 1).all():
            return part
        which = key[0] if isinstance(key, tuple) else key
        if which is Ellipsis:
            which = slice(None)
        chosen = scales[which]
        return part * chosen.reshape(chosen.shape + (1,) * (part.ndim - chosen.ndim))

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all voxels (numpy's protocol)."""
        return self[:].astype(dtype or np.float32, copy=False)

    @cached_property
    def brain(self) -> NDArray[np.bool_]:
        """Where any modality is not 0 (X, Y, Z); `brain_mask`."""
        brain = _nonzero(self.stored)
        brain.flags.writeable = False
        return brain

    @cached_property
    def statistics(self) -> tuple[tuple[np.float32, np.float32], ...]:
        """Mean and standard deviation of each volume over the brain; `modality_statistics`."""
        return tuple(statistics_of(voxels_in(self, i, self.brain)) for i in range(len(self)))


Images = NDArray[np.float32] | StoredVolumes
"""Four volumes (4, X, Y, Z), in memory as float32 or as they are stored."""


def stored_voxels(images: Images) -> NDArray[Any]:
    """Return the voxels without their scale: for comparisons with 0."""
    return images.stored if isinstance(images, StoredVolumes) else images


def voxels_in(images: Images, index: int, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the voxels of one volume in `mask` (X, Y, Z), in the order of memory."""
    volume = stored_voxels(images)[index]
    if abs(volume.strides[0]) < abs(volume.strides[-1]):  # numpy gathers along the last axis
        volume, mask = volume.T, mask.T
    voxels = np.asarray(volume[mask], np.float32)
    return voxels * images.scales[index] if isinstance(images, StoredVolumes) else voxels


@dataclass(frozen=True)
class Crop:
    """The position of the window in a volume; it may extend beyond the volume on any side.

    `origin` is its first voxel in X and Y, negative where the window starts outside. `z` is the
    range of slices with brain, start to stop.
    """

    shape: tuple[int, int, int]
    origin: tuple[int, int]
    z: tuple[int, int]
    window: tuple[int, int] = WINDOW

    def overlap(self, axis: int) -> tuple[slice, slice]:
        """Return the overlap of volume and window along `axis`: its slice of each."""
        start, size = self.origin[axis], self.window[axis]
        low, high = max(start, 0), min(start + size, self.shape[axis])
        return slice(low, high), slice(low - start, high - start)


def brain_mask(images: Images) -> NDArray[np.bool_]:
    """Return where any modality of skull-stripped images (4, X, Y, Z) is not 0, as (X, Y, Z)."""
    return images.brain if isinstance(images, StoredVolumes) else _nonzero(images)


def _nonzero(volumes: NDArray[Any]) -> NDArray[np.bool_]:
    brain: NDArray[np.bool_] = volumes[0] != 0
    for volume in volumes[1:]:
        brain |= volume != 0
    return brain


def find_crop(brain: NDArray[np.bool_], window: tuple[int, int] = WINDOW) -> Crop:
    """Return the crop centred on the bounding box of `brain` (X, Y, Z).

    Raises GliosliceError if the brain is empty or larger than the window.
    """
    box = occupied_box(brain)
    ranges = [(int(side.start), int(side.stop)) for side in box]
    if ranges[0][0] == ranges[0][1]:
        raise GliosliceError("no brain found: every voxel of the images is 0")
    sizes = [stop - start for start, stop in ranges]
    if sizes[0] > window[0] or sizes[1] > window[1]:
        raise GliosliceError(
            f"the brain is {sizes[0]} x {sizes[1]} voxels (left-right x front-back), larger than "
            f"the window of {window[0]} x {window[1]}; is it skull-stripped and at 1 mm?"
        )
    centred = [
        (start + stop - size) // 2 for (start, stop), size in zip(ranges[:2], window, strict=True)
    ]
    shape = (brain.shape[0], brain.shape[1], brain.shape[2])
    return Crop(shape, (centred[0], centred[1]), ranges[2], window)


def z_scores(images: Images, brain: NDArray[np.bool_], clip: float = CLIP) -> NDArray[np.float32]:
    """Normalise each modality to (x - mean) / sd over the brain, clipped to +-`clip`.

    Voxels outside the brain are 0, and so is a modality that is constant.
    """
    scored = np.zeros_like(stored_voxels(images), np.float32)
    for index, out in enumerate(scored):
        mean, deviation = modality_statistics(images, index, brain)
        if deviation > 0:
            out[brain] = np.clip((images[index][brain] - mean) / deviation, -clip, clip)
    return scored


def mean_and_deviation(
    image: NDArray[np.float32], brain: NDArray[np.bool_]
) -> tuple[np.float32, np.float32]:
    """Return the mean and standard deviation of an image (X, Y, Z) over the brain.

    Computed in float64 and rounded to float32, so that the result does not depend on the order in
    which a machine adds. Wild voxels do not count.
    """
    return modality_statistics(image[None], 0, brain)


def modality_statistics(
    images: Images, index: int, brain: NDArray[np.bool_]
) -> tuple[np.float32, np.float32]:
    """Return `mean_and_deviation` of one volume of images (4, X, Y, Z)."""
    if isinstance(images, StoredVolumes) and brain is images.brain:
        return images.statistics[index]
    return statistics_of(voxels_in(images, index, brain))


def statistics_of(voxels: NDArray[np.float32]) -> tuple[np.float32, np.float32]:
    """Return the mean and standard deviation of voxels that are not wild; 0 and 0 if none is."""
    while voxels.size:
        mean = voxels.mean(dtype=np.float64)
        deviation = np.sqrt(_squared_distances(voxels, mean) / voxels.size)
        limit = WILD * deviation
        if max(voxels.max() - mean, mean - voxels.min()) <= limit:
            with np.errstate(under="ignore"):  # less than the smallest float32 is 0
                return np.float32(mean), np.float32(deviation)
        voxels = voxels[np.abs(voxels - mean) <= limit]
    return np.float32(0), np.float32(0)


def _squared_distances(voxels: NDArray[np.float32], mean: np.float64) -> float:
    """Return the sum of (x - mean)^2, computed in parts that stay in the processor's cache."""
    total = 0.0
    for start in range(0, voxels.size, CACHED_VOXELS):
        part = np.subtract(voxels[start : start + CACHED_VOXELS], mean, dtype=np.float64)
        total += float(part @ part)
    return total


def extract_slices(volume: NDArray[Scalar], crop: Crop) -> NDArray[Scalar]:
    """Crop a volume (..., X, Y, Z) to slices (Z', window X, window Y, ...).

    Voxels of the window outside the volume are 0.
    """
    (x, wx), (y, wy) = crop.overlap(0), crop.overlap(1)
    part = np.moveaxis(volume[..., x, y, slice(*crop.z)], (-1, -3, -2), (0, 1, 2))
    slices = np.zeros((part.shape[0], *crop.window, *part.shape[3:]), volume.dtype)
    slices[:, wx, wy] = part
    return slices


def slice_volume(
    images: Images, window: tuple[int, int] = WINDOW, clip: float = CLIP
) -> tuple[NDArray[np.float32], Crop]:
    """Return images (4, X, Y, Z) as z-scored slices (Z', window X, window Y, 4), and their crop.

    Raises GliosliceError if the brain is empty or larger than the window.
    """
    crop, cut = iterate_slices(images, window, clip)
    slices = np.empty((crop.z[1] - crop.z[0], *window, len(images)), np.float32)
    for index, one in enumerate(cut):
        slices[index] = one
    return slices, crop


def iterate_slices(
    images: Images, window: tuple[int, int] = WINDOW, clip: float = CLIP
) -> tuple[Crop, Iterator[NDArray[np.float32]]]:
    """Return the crop of images (4, X, Y, Z), and their z-scored slices one by one.

    The slices are those of `slice_volume`. Raises GliosliceError if the brain is empty or larger
    than the window.
    """
    brain = brain_mask(images)
    crop = find_crop(brain, window)
    statistics = [modality_statistics(images, index, brain) for index in range(len(images))]
    return crop, _cut_slices(images, brain, crop, statistics, clip)


def _cut_slices(
    images: Images,
    brain: NDArray[np.bool_],
    crop: Crop,
    statistics: list[tuple[np.float32, np.float32]],
    clip: float,
) -> Iterator[NDArray[np.float32]]:
    (x, wx), (y, wy) = crop.overlap(0), crop.overlap(1)
    for z in range(*crop.z):
        # In memory like the volumes of files, X fastest: five times as fast as the other order.
        one = np.zeros((len(images), *crop.window[::-1]), np.float32).T  # (X, Y, 4)
        for index, (mean, deviation) in enumerate(statistics):
            if deviation > 0:
                scores = images[index, x, y, z] - mean
                scores /= deviation
                np.clip(scores, -clip, clip, out=scores)
                np.copyto(one[wx, wy, index], scores, where=brain[x, y, z])
        yield one


def restore_volume(masks: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """Place masks (Z', window X, window Y) in a volume (X, Y, Z): inverts `extract_slices`."""
    (x, wx), (y, wy) = crop.overlap(0), crop.overlap(1)
    # In memory like the volumes of files, X fastest: each plane of a file is one block.
    volume = np.zeros(crop.shape[::-1], masks.dtype).T
    volume[x, y, slice(*crop.z)] = np.moveaxis(masks[:, wx, wy], 0, -1)
    return volume


def quantize(slices: NDArray[np.float32], scale: float, zero_point: int) -> NDArray[np.int8]:
    """Return round(x / scale) + zero point as int8, ties to even, as TFLite's QUANTIZE does."""
    steps = slices / np.float32(scale)
    np.rint(steps, out=steps)
    steps += np.float32(zero_point)
    np.clip(steps, -128, 127, out=steps)
    return steps.astype(np.int8)
