"""The brain mask of a T1ce image, by deepbet or by what the user chooses, and its montage.

deepbet (L. Fisch et al., 2024) was trained on T1 images of healthy adults: a mask may cut into a
tumour at the surface. The montage shows where it ends.
"""

import io
import logging
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from glioslice.cases import MAX_BRAIN_ML
from glioslice.errors import GliosliceError
from scanner import NOTICE
from scanner.volumes import Grid, Volume, isotropic, read_volume, resample

logger = logging.getLogger(__name__)

DEEPBET, NONE = "deepbet", "none"
NEEDS = ("deepbet", "torch", "cc3d", "fill_voids", "pandas")

BRAIN_ML = 700, 2300
"""Volumes of the brain that are believed: adults have 930 to 2,080 mL with a margin of a fifth
(glioslice/sanity_checks.py), and masks of thick slices err by a tenth more."""

STRIPPED_ZEROS = 0.3
"""Least share of zeros in an image without skull; the air of a whole head is rarely exactly 0."""

COLUMNS = 6
EDGE = (240, 228, 66)


@dataclass(frozen=True)
class Brain:
    """A brain mask on its own grid, and the method that it was made by."""

    mask: NDArray[np.bool_]
    grid: Grid
    method: str

    @property
    def millilitres(self) -> float:
        """The volume of the mask."""
        return float(self.mask.sum() * self.grid.spacing.prod() / 1000)


def is_stripped(volume: Volume) -> bool:
    """Return whether the skull is off already: what is not 0 has the size of a brain."""
    filled = np.count_nonzero(volume.voxels)
    millilitres = filled * volume.grid.spacing.prod() / 1000
    zeros = 1 - filled / volume.voxels.size
    return bool(zeros > STRIPPED_ZEROS and millilitres < MAX_BRAIN_ML)


def extract_brain(t1ce: Volume, method: str = DEEPBET) -> Brain:
    """Return the brain mask of T1ce; `method` is deepbet, none, or a NIfTI mask's file.

    Where the skull is off already, the mask is what is not 0, whatever the method. Raises
    GliosliceError if no brain of a plausible size is found.
    """
    if method not in (DEEPBET, NONE):
        brain = _from_file(Path(method), t1ce)
    elif is_stripped(t1ce):
        brain = Brain(t1ce.voxels != 0, t1ce.grid, "skull-stripped before")
    elif method == NONE:
        raise GliosliceError(
            "T1ce still has its skull, so --brain-extraction none leaves no brain mask; "
            "use deepbet or name a mask's file"
        )
    else:
        brain = _deepbet(t1ce)
    low, high = BRAIN_ML
    if not low <= brain.millilitres <= high:
        raise GliosliceError(
            f"T1ce: {brain.millilitres:,.0f} mL of brain found by {brain.method}, a brain has "
            f"{low:,} to {high:,} mL; is it a whole head? --brain-extraction FILE takes a mask"
        )
    return brain


def _from_file(path: Path, t1ce: Volume) -> Brain:
    mask = read_volume(path)
    found = resample(mask, t1ce.grid, np.eye(4), "nearest") > 0.5
    return Brain(found, t1ce.grid, "mask from a file")


def _deepbet(t1ce: Volume) -> Brain:
    """Run deepbet on a copy with cubes of 1 mm."""
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise GliosliceError(
            f"{', '.join(missing)} is not installed; run: pip install 'glioslice[scanner]', or "
            "name a brain mask: --brain-extraction FILE"
        )
    from deepbet.bet import BrainExtraction

    grid = isotropic(t1ce.grid)
    image = nib.Nifti1Image(resample(t1ce, grid, np.eye(4)), grid.affine)
    try:
        _, mask, _ = BrainExtraction(no_gpu=True).run(image)
    except (AssertionError, ValueError, IndexError, RuntimeError):  # an empty first mask
        raise GliosliceError(
            "T1ce: deepbet found no brain; is it a whole head? --brain-extraction FILE takes a mask"
        ) from None
    return Brain(np.asarray(mask.dataobj) > 0, grid, DEEPBET)


def brain_montage(images: dict[str, NDArray[np.float32]], brain: NDArray[np.bool_]) -> bytes:
    """Return a PNG file that shows axial slices of each image with the outline of the mask.

    `images` are (X, Y, Z) in LPS by title, not yet cut by the mask.
    """
    filled = np.flatnonzero(brain.any(axis=(0, 1)))
    chosen = np.rint(np.linspace(filled[0], filled[-1], COLUMNS + 2)[1:-1]).astype(int)
    rows = []
    for image in images.values():
        bright = float(np.percentile(image[brain], 99.5)) or 1.0
        tiles = [_tile(image[..., z], brain[..., z], bright) for z in chosen]
        rows.append(np.concatenate(tiles, axis=1))
    pixels = np.concatenate(rows)
    picture = Image.fromarray(np.pad(pixels, ((0, 28), (0, 0), (0, 0))))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(16)
    height = brain.shape[1]
    for row, title in enumerate(images):
        draw.text((6, row * height + 4), title, (255, 255, 255), font)
    text = f"Outline: the brain mask. What lies outside of it is not in the case. {NOTICE}"
    draw.text((6, len(images) * height + 4), text, EDGE, font)
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _tile(image: NDArray[np.float32], brain: NDArray[np.bool_], bright: float) -> NDArray[np.uint8]:
    """Draw one slice (X, Y), front up, with the inner edge of the mask."""
    grey = (np.clip(image.T / bright, 0, 1) * 255).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=2)
    mask = np.pad(brain.T, 1)
    inner = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    pixels[brain.T & ~inner] = EDGE
    return pixels
