"""Reading NIfTI files with all checks that an unknown file needs, and writing masks."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.files import atomic_path

MAX_SIDE = 1024
"""Voxels along an axis; a head at 1 mm has a quarter of it, a header with more is damaged."""

DEFLATE_RATIO = 1032
"""The highest compression ratio of Deflate (zlib's technical note)."""

SPACING_TOLERANCE = 0.01
"""mm by which the voxel spacing may differ from 1 mm."""

SCANNER = 1
"""NIfTI's code for a qform or sform in scanner coordinates."""

LPS = axcodes2ornt(("L", "P", "S"))


@dataclass(frozen=True)
class Space:
    """The geometry of a file, needed to write a mask in the same voxel grid."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    header: nib.Nifti1Header

    @classmethod
    def lps(cls, shape: tuple[int, int, int]) -> "Space":
        """Return the space of an LPS volume without a file: 1 mm voxels, its centre at 0."""
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        return cls.from_affine(shape, affine, (SCANNER, SCANNER))

    @classmethod
    def from_affine(
        cls, shape: tuple[int, int, int], affine: NDArray[np.float64], forms: tuple[int, int]
    ) -> "Space":
        """Return the space with `affine` as qform and sform; `forms` are their codes, or 0."""
        header = nib.Nifti1Header()
        header.set_qform(affine, forms[0])
        header.set_sform(affine, forms[1])
        return cls(shape, affine, header)

    @property
    def forms(self) -> tuple[int, int]:
        """NIfTI's codes of the qform and the sform, 0 where the file has none."""
        return int(self.header["qform_code"]), int(self.header["sform_code"])

    def to_lps(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Reorient the file's voxels to LPS: axes point to the left, the back and the head."""
        return np.asarray(apply_orientation(volume, ornt_transform(self._orientation(), LPS)))

    def from_lps(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Reorient an LPS volume to the file's own axes: the inverse of `to_lps`."""
        return np.asarray(apply_orientation(volume, ornt_transform(LPS, self._orientation())))

    def _orientation(self) -> NDArray[np.float64]:
        return np.asarray(io_orientation(self.affine))


def read_nifti(path: Path, channels: int = 1) -> tuple[NDArray[np.float32], Space]:
    """Return the voxels of `path` as float32 (channels, X, Y, Z) in LPS, and their space.

    Raises GliosliceError, naming the file, if it is missing, not a NIfTI file, truncated or
    damaged, has other dimensions, is not at 1 mm, or contains NaN or infinite voxels.
    """
    image = _open(path)
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 3 or shape[3:] != ((channels,) if channels > 1 else ()):
        wanted = "three dimensions" if channels == 1 else f"four dimensions, the last of {channels}"
        raise GliosliceError(f"{path}: expected {wanted}, the header has {image.shape}")
    _check_size(path, image)
    space = Space((shape[0], shape[1], shape[2]), image.affine, image.header)
    _check_affine(path, space.affine)
    voxels = _voxels(path, image).reshape(*space.shape, channels)
    if not np.isfinite(voxels).all():
        raise GliosliceError(f"{path}: contains NaN or infinite voxels; export the series again")
    return np.stack([space.to_lps(voxels[..., c]) for c in range(channels)]), space


def write_mask(path: str | Path, mask: NDArray[np.uint8], space: Space) -> None:
    """Write an LPS mask as a NIfTI uint8 file with the affine, qform and sform of `space`.

    `mask` is (X, Y, Z), or (X, Y, Z, 3) for binary regions. The file is written atomically, and
    equal masks give equal bytes. The header is a new one with the geometry alone: no text of the
    source file gets into the mask, and a space that was sent over the serial link gives the same
    bytes as the source file.

    Raises GliosliceError if `path` does not end in .nii or .nii.gz.
    """
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise GliosliceError(f"{path}: masks are written as .nii or .nii.gz")
    header = _mask_header(space, mask.shape[3:])
    with atomic_path(path) as temporary:
        nib.save(nib.Nifti1Image(space.from_lps(mask), None, header), temporary)


def _mask_header(space: Space, extra_axes: tuple[int, ...]) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((*space.shape, *extra_axes))
    header.set_xyzt_units("mm")
    header.set_zooms(
        (*np.sqrt((space.affine[:3, :3] ** 2).sum(axis=0)), *(1.0 for _ in extra_axes))
    )
    qform, sform = space.forms
    if qform:
        header.set_qform(_exact_form(space.header.get_qform(), space.affine), qform)
    if sform:
        header.set_sform(_exact_form(space.header.get_sform(), space.affine), sform)
    return header


def _exact_form(form: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `affine` if the form is equal to it up to its float32 rounding, else the form."""
    return affine if np.allclose(form, affine, atol=1e-3) else form


def _open(path: Path) -> nib.Nifti1Image:
    try:
        image = nib.load(path)
    except FileNotFoundError:
        raise GliosliceError(f"{path}: no such file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise GliosliceError(f"{path}: the gzip stream is cut short or damaged ({error})") from None
    except (ImageFileError, HeaderDataError, ValueError) as error:
        raise GliosliceError(f"{path}: not a NIfTI file ({error})") from None
    if not isinstance(image, nib.Nifti1Image):
        raise GliosliceError(f"{path}: not a NIfTI file but {type(image).__name__}")
    return image


def _check_size(path: Path, image: nib.Nifti1Image) -> None:
    """Compare the size in the header with that of the file before any memory is allocated."""
    claimed = int(image.header.get_data_offset()) + image.header.get_data_dtype().itemsize * int(
        np.prod(image.shape, dtype=np.int64)
    )
    capacity = path.stat().st_size * (DEFLATE_RATIO if path.name.lower().endswith(".gz") else 1)
    if max(image.shape) > MAX_SIDE or min(image.shape) < 1 or claimed > capacity:
        raise GliosliceError(
            f"{path}: the header claims {image.shape} voxels, {claimed:,} bytes, more than the "
            "file can hold; it is damaged or cut short"
        )


def _check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise GliosliceError(f"{path}: the affine is not invertible; export the series again")
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if np.abs(spacing - 1).max() > SPACING_TOLERANCE:
        sides = " x ".join(f"{s:.2f}" for s in spacing)
        raise GliosliceError(
            f"{path}: voxels of {sides} mm, 1 mm is needed; resample it (docs/from-scanner.md)"
        )


def _voxels(path: Path, image: nib.Nifti1Image) -> NDArray[np.float32]:
    try:
        return np.asarray(image.get_fdata(dtype=np.float32, caching="unchanged"))
    except (EOFError, OSError, zlib.error, ValueError) as error:
        raise GliosliceError(f"{path}: the file is cut short or damaged ({error})") from None
