"""Volume to slices as the network sees them, and masks back to exactly the voxels they came from.

A volume is (4, X, Y, Z) in LPS order: X grows to the patient's left, Y to the back, Z to the head.
A slice is (X, Y, 4) of one Z, cut to the window. numpy only.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError

Scalar = TypeVar("Scalar", bound=np.generic)

WINDOW = (160, 192)
"""Left-right and front-back size in voxels of 1 mm; it held every one of 39 measured brains."""

CLIP = 5.0
"""Z-scores are cut here: an int8 step is then 0.04 standard deviations."""


@dataclass(frozen=True)
class Crop:
    """Where a window lies in a volume; the origin may be negative, the window may reach past it.

    `z` are the slices that hold brain, `start` to `stop`.
    """

    shape: tuple[int, int, int]
    origin: tuple[int, int]
    z: tuple[int, int]
    window: tuple[int, int] = WINDOW

    def overlap(self, axis: int) -> tuple[slice, slice]:
        """Return the part of the volume under the window along `axis`, and where it lies in it."""
        start, size = self.origin[axis], self.window[axis]
        low, high = max(start, 0), min(start + size, self.shape[axis])
        return slice(low, high), slice(low - start, high - start)


def brain_of(images: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the brain of a skull-stripped case, (4, X, Y, Z) to (X, Y, Z): any modality not 0."""
    brain: NDArray[np.bool_] = images[0] != 0
    for image in images[1:]:
        brain |= image != 0
    return brain


def crop_of(brain: NDArray[np.bool_], window: tuple[int, int] = WINDOW) -> Crop:
    """Return the window centred on the bounding box of `brain` (X, Y, Z).

    Raises GliosliceError if there is no brain or the box is larger than the window.
    """
    ranges = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(brain.any(axis=others))
        if not filled.size:
            raise GliosliceError("no brain found: every voxel of the images is 0")
        ranges.append((int(filled[0]), int(filled[-1]) + 1))
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


def z_scores(
    images: NDArray[np.float32], brain: NDArray[np.bool_], clip: float = CLIP
) -> NDArray[np.float32]:
    """Return (x - mean) / sd over the brain per modality, cut to +-`clip`; 0 outside the brain.

    A modality that is constant becomes 0.
    """
    scored = np.zeros_like(images)
    for image, out in zip(images, scored, strict=True):
        mean, deviation = scale_of(image, brain)
        if deviation > 0:
            out[brain] = np.clip((image[brain] - mean) / deviation, -clip, clip)
    return scored


def scale_of(image: NDArray[np.float32], brain: NDArray[np.bool_]) -> tuple[np.float32, np.float32]:
    """Return mean and standard deviation of an image (X, Y, Z) over the brain.

    They are computed in float64 and rounded to float32, so that the order of a machine's sums
    cannot be seen in the result.
    """
    voxels = image[brain]
    return np.float32(voxels.mean(dtype=np.float64)), np.float32(voxels.std(dtype=np.float64))


def cut(volume: NDArray[Scalar], crop: Crop) -> NDArray[Scalar]:
    """Return the slices of (..., X, Y, Z) that hold brain as (Z', window X, window Y, ...).

    Voxels of the window outside the volume are 0.
    """
    (x, wx), (y, wy) = crop.overlap(0), crop.overlap(1)
    part = np.moveaxis(volume[..., x, y, slice(*crop.z)], (-1, -3, -2), (0, 1, 2))
    slices = np.zeros((part.shape[0], *crop.window, *part.shape[3:]), volume.dtype)
    slices[:, wx, wy] = part
    return slices


def paste(masks: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """Return masks (Z', window X, window Y) as a volume (X, Y, Z): the inverse of `cut`."""
    (x, wx), (y, wy) = crop.overlap(0), crop.overlap(1)
    volume = np.zeros(crop.shape, masks.dtype)
    volume[x, y, slice(*crop.z)] = np.moveaxis(masks[:, wx, wy], 0, -1)
    return volume


def quantise(slices: NDArray[np.float32], scale: float, zero_point: int) -> NDArray[np.int8]:
    """Return round(x / scale) + zero point as int8, ties to even: TFLite's QUANTIZE of an input."""
    steps = np.rint(slices / np.float32(scale)) + np.float32(zero_point)
    quantised: NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
    return quantised
