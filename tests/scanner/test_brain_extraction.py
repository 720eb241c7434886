"""Brain masks of a real whole head, of images without skull, and from a file."""

import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from glioslice.errors import GliosliceError
from scanner.brain_extraction import EDGE, brain_montage, extract_brain, is_stripped
from scanner.volumes import Grid, Volume, read_volume

TEMPLATES = Path("/usr/share/mricron/templates")
"""Debian's mricron-data: a whole head (ch2) and its brain."""


def block(air: float, side: int = 100) -> Volume:
    """A block of `side` voxels of 1 mm in a volume of 180."""
    voxels = np.full((180, 180, 180), air, np.float32)
    voxels[40 : 40 + side, 40 : 40 + side, 40:140] = 500
    return Volume(voxels, Grid((180, 180, 180), np.diag([-1.0, -1.0, 1.0, 1.0])))


@pytest.mark.slow
def test_a_real_whole_head() -> None:
    head, brain = (read_volume(TEMPLATES / name) for name in ("ch2.nii.gz", "ch2bet.nii.gz"))
    assert not is_stripped(head)
    found = extract_brain(head)
    assert found.method == "deepbet"
    expected = brain.voxels > 0
    assert found.mask.shape == expected.shape
    both = 2 * (found.mask & expected).sum() / (found.mask.sum() + expected.sum())
    assert both > 0.9  # the mask that lies beside it leaves more fluid out


def test_a_skull_that_is_off_already_is_left_alone() -> None:
    stripped = block(air=0)
    assert is_stripped(stripped)
    assert extract_brain(stripped).method == "skull-stripped before"
    assert not is_stripped(block(air=3))
    with pytest.raises(GliosliceError, match="still has its skull"):
        extract_brain(block(air=3), "none")


def test_a_mask_from_a_file_is_taken_whatever_its_grid(tmp_path: Path) -> None:
    volume = block(air=3)
    coarse = np.diag([2.0, 2.0, 2.0, 1.0])
    coarse[:3, 3] = [-180, -180, 0]
    mask = np.zeros((90, 90, 90), np.uint8)
    mask[20:70, 20:70, 20:70] = 1
    nib.save(nib.Nifti1Image(mask, coarse), tmp_path / "mask.nii")
    brain = extract_brain(volume, str(tmp_path / "mask.nii"))
    assert brain.mask.shape == volume.voxels.shape
    assert brain.millilitres == pytest.approx(1000, rel=0.05)


def test_a_brain_of_an_impossible_size_is_refused() -> None:
    with pytest.raises(GliosliceError, match="360 mL of brain"):
        extract_brain(block(air=0, side=60))


def test_the_montage_shows_the_outline() -> None:
    volume = block(air=3)
    mask = volume.voxels > 100
    picture = Image.open(io.BytesIO(brain_montage({"T1ce": volume.voxels}, mask)))
    pixels = np.asarray(picture)
    assert (pixels == EDGE).all(axis=-1).any()
    assert picture.size == (6 * 180, 180 + 28)
