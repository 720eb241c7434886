"""One NIfTI file, read with every check that a stranger's file needs, and written whole."""

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
from glioslice.files import whole

MAX_SIDE = 1024
"""A head at 1 mm is a quarter of it; a header that claims more is damaged."""

DEFLATE_LIMIT = 1032
"""Deflate packs at most 1032 bytes into one (zlib's own technical note)."""

SPACING_TOLERANCE = 0.01

SCANNER = 1
"""NIfTI's code of a qform or sform in scanner coordinates."""


@dataclass(frozen=True)
class Space:
    """Where a file's voxels lie: its shape, affine and header, kept for the way back."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    header: nib.Nifti1Header

    @classmethod
    def lps(cls, shape: tuple[int, int, int]) -> "Space":
        """Return the space of an LPS volume that came from no file, 1 mm, its centre at 0."""
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        return cls.of_affine(shape, affine, (SCANNER, SCANNER))

    @classmethod
    def of_affine(
        cls, shape: tuple[int, int, int], affine: NDArray[np.float64], forms: tuple[int, int]
    ) -> "Space":
        """Return the space whose qform and sform are `affine`, with these codes (0: not set)."""
        header = nib.Nifti1Header()
        header.set_qform(affine, forms[0])
        header.set_sform(affine, forms[1])
        return cls(shape, affine, header)

    @property
    def forms(self) -> tuple[int, int]:
        """NIfTI's codes of the qform and the sform; 0 where the file has none."""
        return int(self.header["qform_code"]), int(self.header["sform_code"])

    def to_lps(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return the file's voxels with axes that grow to the left, the back and the head."""
        return np.asarray(apply_orientation(volume, self._turn(back=False)))

    def from_lps(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return an LPS volume in the file's own order: the inverse of `to_lps`."""
        return np.asarray(apply_orientation(volume, self._turn(back=True)))

    def _turn(self, back: bool) -> NDArray[np.float64]:
        own, lps = io_orientation(self.affine), axcodes2ornt(("L", "P", "S"))
        turn: NDArray[np.float64] = ornt_transform(lps, own) if back else ornt_transform(own, lps)
        return turn


def read_nifti(path: Path, channels: int = 1) -> tuple[NDArray[np.float32], Space]:
    """Return the voxels of `path` as float32 (channels, X, Y, Z), LPS, and their space.

    Raises GliosliceError, naming the file, if it is missing, no NIfTI, truncated, larger than its
    header may claim, of other dimensions, not at 1 mm, or holds NaN or infinite voxels.
    """
    image = _open(path)
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    wanted = "three dimensions" if channels == 1 else f"four dimensions, the last of {channels}"
    if (shape[3:] != (channels,) if channels > 1 else len(shape) != 3) or len(shape) < 3:
        raise GliosliceError(f"{path}: {wanted} were expected, the header says {image.shape}")
    _check_size(path, image)
    space = Space((shape[0], shape[1], shape[2]), image.affine, image.header)
    _check_affine(path, space.affine)
    voxels = _voxels(path, image).reshape(*space.shape, channels)
    if not np.isfinite(voxels).all():
        raise GliosliceError(f"{path}: holds NaN or infinite voxels; export the series again")
    return np.stack([space.to_lps(voxels[..., c]) for c in range(channels)]), space


def write_mask(path: Path, mask: NDArray[np.uint8], space: Space) -> None:
    """Write an LPS mask (X, Y, Z) as NIfTI uint8 with the affine, qform and sform of `space`.

    A fourth axis may hold regions, (X, Y, Z, 3).
    The file appears whole or not at all; the same mask gives the same bytes. The header is made
    anew: no text of the source gets into the mask, and a board that sends the numbers of a space
    over a line gives the same bytes as the source's own file.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        raise GliosliceError(f"{path}: a mask is written as .nii or .nii.gz")
    header = _mask_header(space, mask.shape[3:])
    with whole(path) as temporary:
        nib.save(nib.Nifti1Image(space.from_lps(mask), None, header), temporary)


def _mask_header(space: Space, more: tuple[int, ...]) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((*space.shape, *more))
    header.set_xyzt_units("mm")
    header.set_zooms((*np.sqrt((space.affine[:3, :3] ** 2).sum(axis=0)), *(1.0 for _ in more)))
    qform, sform = space.forms
    if qform:
        header.set_qform(_either(space.header.get_qform(), space.affine), qform)
    if sform:
        header.set_sform(_either(space.header.get_sform(), space.affine), sform)
    return header


def _either(form: NDArray[np.float64], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `affine` where the form is the same but for its own rounding, else the form."""
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
    """Compare what the header claims with what the file can hold, before memory is taken."""
    claimed = int(image.header.get_data_offset()) + image.header.get_data_dtype().itemsize * int(
        np.prod(image.shape, dtype=np.int64)
    )
    held = path.stat().st_size * (DEFLATE_LIMIT if path.name.lower().endswith(".gz") else 1)
    if max(image.shape) > MAX_SIDE or min(image.shape) < 1 or claimed > held:
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
