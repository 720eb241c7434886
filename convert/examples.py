"""The array that a network which is not ours is calibrated on and judged by.

A file `.npy` holds images (N, C, H, W) as the network takes them, an `.npz` those as `images` and,
where it has them, `masks` (N, K, H', W') of the network's outputs. The first three quarters
calibrate and the last quarter judges: neighbours often come from one patient, and interleaved they
would be on both sides.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.choosing import spread
from convert.onnx_file import Floats, Shape
from glioslice.errors import GliosliceError

FEWEST = 8
"""Images: six calibrate, two judge."""

MOST_USUAL, MOST, MOST_JUDGED = 256, 768, 64
"""Images: at first, on the ladder, and of those that judge; as many as of 32 cases of ours."""

SPLIT = "the first three quarters calibrate, the last quarter judges"


@dataclass(frozen=True, eq=False)
class Examples:
    """Images (N, C, H, W), and masks (N, K, H', W') or None."""

    name: str
    images: Floats
    masks: NDArray[np.bool_] | None

    @property
    def shape(self) -> Shape:
        """Channels, rows and columns of an image."""
        _, channels, rows, columns = self.images.shape
        return channels, rows, columns

    @property
    def calibrating(self) -> Floats:
        """Those of the first three quarters, (N, H, W, C)."""
        return _last(self.images[: self._split])

    @property
    def judging(self) -> NDArray[np.intp]:
        """Which images judge: of the last quarter, evenly spaced."""
        return np.array(spread(range(self._split, len(self.images)), MOST_JUDGED))

    @property
    def judged(self) -> Floats:
        """Those, (N, H, W, C)."""
        return _last(self.images[self.judging])

    @property
    def _split(self) -> int:
        return 3 * len(self.images) // 4


def read_examples(path: Path) -> Examples:
    """Return what a file `.npy` or `.npz` holds.

    Raises GliosliceError if it is none, or its images are too few, not finite or not of four
    dimensions, or its masks are not binary or of another number.
    """
    try:
        found = np.load(path, allow_pickle=False)
        arrays = {"images": found} if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise GliosliceError(f"{path}: no .npy or .npz file of numbers ({error})") from None
    if "images" not in arrays:
        raise GliosliceError(f"{path}: holds {', '.join(arrays) or 'nothing'}, but no 'images'")
    images, masks = arrays["images"], arrays.get("masks")
    if images.ndim != 4 or images.dtype.kind != "f":
        raise GliosliceError(
            f"{path}: images are {images.dtype} of {images.shape}; expected float32 of (number, "
            "channels, rows, columns), normalised as for training"
        )
    if len(images) < FEWEST:
        raise GliosliceError(f"{path}: holds {len(images)} images; at least {FEWEST} are needed")
    if not np.isfinite(images).all():
        raise GliosliceError(f"{path}: holds NaN or infinite values; leave those images out")
    if masks is not None:
        if masks.ndim != 4 or len(masks) != len(images) or not np.isin(masks, (0, 1)).all():
            raise GliosliceError(
                f"{path}: masks are {masks.dtype} of {masks.shape}; expected {len(images)} of "
                "(outputs, rows, columns) that hold 0 and 1"
            )
        masks = masks.astype(bool)
    return Examples(path.name, images.astype(np.float32), masks)


def usual(images: Floats) -> Floats:
    """Return a third of the images (N, H, W, C), evenly spaced, but not fewer than FEWEST."""
    return np.stack(spread(list(images), min(MOST_USUAL, max(FEWEST, len(images) // 3))))


def better(images: Floats) -> Floats:
    """Return up to MOST of the images, a half of them the brightest, as `convert.choosing` does."""
    if len(images) <= MOST:
        return images
    brightness = (images.astype(np.float64) ** 4).sum(axis=(1, 2, 3))
    chosen = set(np.argsort(-brightness, kind="stable")[: MOST // 2].tolist())
    chosen |= set(spread([i for i in range(len(images)) if i not in chosen], MOST - len(chosen)))
    return images[sorted(chosen)]


def _last(images: Floats) -> Floats:
    return np.ascontiguousarray(np.moveaxis(images, 1, -1))
