"""A mask has the geometry of its source file and nothing else of it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from glioslice.nifti import Space, read_nifti, write_mask

AFFINE = np.array([[0, 0, -1, 9.5], [1, 0, 0, -40], [0, 1, 0, 7.25], [0, 0, 0, 1.0]])
MASK = np.random.default_rng(0).integers(0, 4, (10, 11, 12), dtype=np.uint8)


def source(path: Path, forms: tuple[int, int], qform: NDArray[np.float64] = AFFINE) -> Path:
    image = nib.Nifti1Image(np.ones((11, 12, 10), np.int16), None)
    image.header.set_qform(qform, forms[0])
    image.header.set_sform(AFFINE, forms[1])
    image.header["descrip"] = b"Jane Doe 1970-01-01"
    image.header["cal_max"] = 7
    nib.save(image, path)
    return path


@pytest.mark.parametrize("forms", [(1, 1), (2, 1), (1, 0), (0, 2)])
def test_forms_are_kept_and_texts_removed(forms: tuple[int, int], tmp_path: Path) -> None:
    _, space = read_nifti(source(tmp_path / "source.nii.gz", forms))
    write_mask(tmp_path / "mask.nii.gz", MASK, space)
    written = nib.Nifti1Image.from_filename(tmp_path / "mask.nii.gz")
    own = nib.Nifti1Image.from_filename(tmp_path / "source.nii.gz")
    assert (written.header["qform_code"], written.header["sform_code"]) == forms
    np.testing.assert_allclose(written.affine, own.affine, atol=1e-6)
    np.testing.assert_array_equal(space.to_lps(np.asarray(written.dataobj)), MASK)
    assert b"Jane" not in written.header.binaryblock
    assert written.header["cal_max"] == 0


@pytest.mark.parametrize("forms", [(1, 1), (2, 1), (1, 0), (0, 2)])
def test_a_space_without_its_file_gives_the_same_bytes(
    forms: tuple[int, int], tmp_path: Path
) -> None:
    """When a board streams its own case, only shape, affine and two codes cross the link."""
    _, space = read_nifti(source(tmp_path / "source.nii.gz", forms))
    write_mask(tmp_path / "one.nii.gz", MASK, space)
    received = Space.from_affine(space.shape, space.affine, space.forms)
    write_mask(tmp_path / "other.nii.gz", MASK, received)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "other.nii.gz").read_bytes()


def test_a_qform_that_differs_is_kept(tmp_path: Path) -> None:
    moved = AFFINE.copy()
    moved[:3, 3] += 20
    _, space = read_nifti(source(tmp_path / "source.nii.gz", (1, 2), moved))
    write_mask(tmp_path / "mask.nii.gz", MASK, space)
    written = nib.Nifti1Image.from_filename(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.header.get_qform(), moved, atol=1e-4)
    np.testing.assert_allclose(written.header.get_sform(), AFFINE, atol=1e-6)
