"""The images that an external network is calibrated on and evaluated with.

A `.npy` file holds images (N, C, H, W) as the network takes them. An `.npz` file holds them as
`images` and may hold `masks` (N, K, H', W'), the ground truth of the network's outputs. The first
three quarters calibrate and the last quarter evaluates: neighbours often come from one patient, and
interleaved they would be on both sides.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convert.calibration import spread
from convert.onnx_model import Floats, Shape
from glioslice.errors import GliosliceError

MIN_IMAGES = 8
"""Six calibrate, two evaluate."""

MAX_USUAL, MAX_EXTENDED, MAX_EVALUATED = 256, 768, 64
"""Images of the first attempt, of later ones and for evaluation; 32 cases give as many slices."""

SPLIT = "the first three quarters calibrate, the last quarter judges"
"""The split, as `report.json` describes it."""


@dataclass(frozen=True, eq=False)
class SampleImages:
    """Images (N, C, H, W) and their masks (N, K, H', W'), None if there are none."""

    name: str
    images: Floats
    masks: NDArray[np.bool_] | None

    @property
    def shape(self) -> Shape:
        """Channels, rows and columns of an image."""
        _, channels, rows, columns = self.images.shape
        return channels, rows, columns

    @property
    def calibration(self) -> Floats:
        """The images of the first three quarters, (N, H, W, C)."""
        return _channels_last(self.images[: self._split])

    @property
    def evaluation_indices(self) -> NDArray[np.intp]:
        """The indices of the images that evaluate: of the last quarter, evenly spaced."""
        return np.array(spread(range(self._split, len(self.images)), MAX_EVALUATED))

    @property
    def evaluation(self) -> Floats:
        """The images that evaluate, (N, H, W, C)."""
        return _channels_last(self.images[self.evaluation_indices])

    @property
    def _split(self) -> int:
        return 3 * len(self.images) // 4


def read_images(path: Path) -> SampleImages:
    """Return the images, and masks if there are any, of a `.npy` or `.npz` file.

    Raises GliosliceError if it is no such file, or as `check_images` does.
    """
    try:
        found = np.load(path, allow_pickle=False)
        arrays = {"images": found} if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise GliosliceError(f"{path}: not a .npy or .npz file of numbers ({error})") from None
    if "images" not in arrays:
        raise GliosliceError(f"{path}: holds {', '.join(arrays) or 'nothing'}, but no 'images'")
    return check_images(arrays["images"], arrays.get("masks"), str(path))


def check_images(images: NDArray[Any], masks: NDArray[Any] | None, name: str) -> SampleImages:
    """Return images (N, C, H, W) and masks (N, K, H', W') once they are known to be usable.

    `name` is what they are called in messages and, without its folder, in the report. Raises
    GliosliceError if there are too few images, they are not finite or not of four dimensions, or
    the masks are not binary or of another number.
    """
    if images.ndim != 4 or images.dtype.kind != "f":
        raise GliosliceError(
            f"{name}: images are {images.dtype} of {images.shape}; expected float32 of (number, "
            "channels, rows, columns), normalised as for training"
        )
    if len(images) < MIN_IMAGES:
        raise GliosliceError(
            f"{name}: holds {len(images)} images; at least {MIN_IMAGES} are needed"
        )
    if not np.isfinite(images).all():
        raise GliosliceError(f"{name}: holds NaN or infinite values; leave those images out")
    if masks is not None:
        if masks.ndim != 4 or len(masks) != len(images) or not np.isin(masks, (0, 1)).all():
            raise GliosliceError(
                f"{name}: masks are {masks.dtype} of {masks.shape}; expected {len(images)} of "
                "(outputs, rows, columns) that hold 0 and 1"
            )
        masks = masks.astype(bool)
    return SampleImages(Path(name).name, images.astype(np.float32), masks)


def usual_images(images: Floats) -> Floats:
    """Return a third of the images (N, H, W, C), evenly spaced, but at least MIN_IMAGES."""
    return np.stack(spread(list(images), min(MAX_USUAL, max(MIN_IMAGES, len(images) // 3))))


def extended_images(images: Floats) -> Floats:
    """Return up to MAX_EXTENDED of the images (N, H, W, C), half of them the brightest.

    Brightness is the sum of fourth powers, as in `convert.calibration.extended_choice`.
    """
    if len(images) <= MAX_EXTENDED:
        return images
    brightness = (images.astype(np.float64) ** 4).sum(axis=(1, 2, 3))
    chosen = set(np.argsort(-brightness, kind="stable")[: MAX_EXTENDED // 2].tolist())
    others = [i for i in range(len(images)) if i not in chosen]
    chosen |= set(spread(others, MAX_EXTENDED - len(chosen)))
    return images[sorted(chosen)]


def _channels_last(images: Floats) -> Floats:
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))
