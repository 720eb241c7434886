"""Reading NIfTI files with all checks that an unknown file needs, and writing masks."""

import gzip
import stat
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.files import NOTICE, atomic_path, is_dicom

# nibabel imports pydicom where it is installed, for NIfTI extensions that nobody needs here. That
# takes as long as reading a case, and 19 MB.
_hidden = "pydicom" not in sys.modules
if _hidden:
    sys.modules["pydicom"] = None  # type: ignore[assignment]
import nibabel as nib  # noqa: E402
from nibabel.imageglobals import LoggingOutputSuppressor  # noqa: E402
from nibabel.orientations import (  # noqa: E402
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from nibabel.volumeutils import apply_read_scaling  # noqa: E402

if _hidden:
    del sys.modules["pydicom"]

GzipFile: type[gzip.GzipFile] = gzip.GzipFile
GZIP_ERRORS: tuple[type[Exception], ...] = (EOFError, OSError, zlib.error)
with suppress(ImportError):  # the same, three times as fast
    from isal import igzip, isal_zlib

    GzipFile = igzip.IGzipFile
    GZIP_ERRORS = (*GZIP_ERRORS, cast(type[Exception], isal_zlib.error))  # the stub is wrong

MAX_VOXELS = 25_000_000
"""Voxels of a volume, 320 x 320 x 240; a head at 1 mm has 9 million in BraTS. Bounds the memory."""

MAX_SOURCE_VOXELS = 4 * MAX_VOXELS
"""Voxels of a volume of any spacing, as scanners give it."""

DEFLATE_RATIO = 1032
"""The highest compression ratio of Deflate (zlib's technical note)."""

SPACING_TOLERANCE = 0.01
"""mm by which the voxel spacing may differ from 1 mm."""

SCANNER = 1
"""NIfTI's code for a qform or sform in scanner coordinates."""

NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
"""Sizes of the two headers; each begins with its own size."""

GZIP_MAGIC = b"\x1f\x8b"

READ_BYTES = 1 << 20
"""Bytes that are read at once; whole volumes would be in memory twice."""

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

    @classmethod
    def of_volume(
        cls, lps_shape: tuple[int, int, int], affine: NDArray[np.float64], forms: tuple[int, int]
    ) -> "Space":
        """Return the space of a file with `affine`, whose volume in LPS has `lps_shape`."""
        x, y, z = (lps_shape[int(axis)] for axis in io_orientation(affine)[:, 0])
        return cls.from_affine((x, y, z), affine, forms)

    @property
    def forms(self) -> tuple[int, int]:
        """NIfTI's codes of the qform and the sform, 0 where the file has none."""
        return int(self.header["qform_code"]), int(self.header["sform_code"])

    @property
    def axes(self) -> str:
        """Where the file's axes point to, such as LPS or RAS."""
        return "".join(aff2axcodes(self.affine))

    @property
    def lps_shape(self) -> tuple[int, int, int]:
        """The shape of the volume in LPS orientation."""
        x, y, z = (self.shape[int(axis)] for axis in np.argsort(self._orientation[:, 0]))
        return x, y, z

    @property
    def lps_affine(self) -> NDArray[np.float64]:
        """The affine of the volume in LPS orientation."""
        turn = inv_ornt_aff(ornt_transform(self._orientation, LPS), self.shape)
        return np.asarray(self.affine @ turn)

    def to_lps(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Reorient the file's voxels to LPS: axes point to the left, the back and the head."""
        return np.asarray(apply_orientation(volume, ornt_transform(self._orientation, LPS)))

    def from_lps(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Reorient an LPS volume to the file's own axes: the inverse of `to_lps`; a view."""
        return np.asarray(apply_orientation(volume, ornt_transform(LPS, self._orientation)))

    def oriented(self, axes: str) -> "Space":
        """Return the space with axes that point to `axes`, such as LPS, centred at 0.

        For a file that does not state its orientation. Raises GliosliceError if `axes` names no
        orientation.
        """
        letters = tuple(check_axes(axes))
        affine = np.eye(4)
        affine[:3, :3] = 0
        spacing = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        for column, (axis, sign) in enumerate(axcodes2ornt(letters)):
            affine[int(axis), column] = sign * spacing[column]
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return replace(self, affine=affine)

    @cached_property
    def _orientation(self) -> NDArray[np.float64]:
        return np.asarray(io_orientation(self.affine))


def check_axes(axes: str) -> str:
    """Return the axes of an orientation, such as LPS; raises GliosliceError for others."""
    pairs = {frozenset(pair) for pair in ("LR", "PA", "IS")}
    if len(axes) != 3 or {p for p in pairs if p & set(axes.upper())} != pairs:
        raise GliosliceError(
            f"'{axes}' is not an orientation; state where the file's axes point with three "
            "letters of L or R, P or A, and I or S, such as LPS or RAS"
        )
    return axes.upper()


def same_space(one: Space, other: Space) -> bool:
    """Return whether two files have their voxels in the same places, in any order of axes."""
    return one.lps_shape == other.lps_shape and np.allclose(
        one.lps_affine, other.lps_affine, atol=1e-2
    )


@dataclass(frozen=True, eq=False)
class NiftiFile:
    """A NIfTI file whose header was checked; the voxels are still on the disk.

    `stored` is the type of the voxels in the file and `dtype` the type in memory: the same for
    integers of at most 16 bits without an intercept, which `scale` multiplies; else float32, of
    which `scale` is 1.
    """

    path: Path
    space: Space
    channels: int
    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    offset: int
    scaling: tuple[np.float32, np.float32]

    @property
    def scale(self) -> np.float32:
        """The factor of voxels that are read."""
        return np.float32(1) if self.dtype == np.float32 else self.scaling[0]

    def oriented(self, axes: str) -> "NiftiFile":
        """Return the file with the orientation that `axes` names (`Space.oriented`)."""
        return replace(self, space=self.space.oriented(axes))

    def read_into(self, volumes: Sequence[NDArray[Any]]) -> None:
        """Fill `volumes`, LPS arrays (X, Y, Z) of `dtype` or wider, with the voxels.

        Raises GliosliceError if the file is cut short or damaged.
        """
        planes = [plane for v in volumes for plane in np.moveaxis(self.space.from_lps(v), -1, 0)]
        plane_bytes = self.stored.itemsize * self.space.shape[0] * self.space.shape[1]
        count = max(1, READ_BYTES // plane_bytes)
        buffer = bytearray(count * plane_bytes)
        try:
            with _open(self.path) as file:
                _skip(file, self.offset)
                for first in range(0, len(planes), count):
                    part = planes[first : first + count]
                    view = memoryview(buffer)[: len(part) * plane_bytes]
                    _read_exactly(file, view)
                    voxels = np.frombuffer(view, self.stored).reshape(
                        (*self.space.shape[:2], len(part)), order="F"
                    )
                    scaled = self._scale(voxels)
                    for index, plane in enumerate(part):
                        plane[...] = scaled[..., index]
                file.read(1)  # beyond the last voxel lies gzip's checksum, which is then verified
        except GZIP_ERRORS as error:
            raise GliosliceError(
                f"{self.path}: the file is cut short or damaged ({error}); copy it again"
            ) from None

    def _scale(self, voxels: NDArray[Any]) -> NDArray[Any]:
        if self.dtype != np.float32:
            return voxels
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is reported as infinite
            return np.asarray(apply_read_scaling(voxels, *self.scaling)).astype(np.float32)


def open_nifti(path: Path, channels: int = 1, *, any_spacing: bool = False) -> NiftiFile:
    """Return the file at `path`, with `channels` volumes of three dimensions; checks its header.

    With `any_spacing` voxels need not be at 1 mm, and there may be four times as many.

    Raises GliosliceError, naming the file, if it is missing, not a NIfTI file, has other
    dimensions, voxels that are not real numbers or not at 1 mm, or claims more than it can hold.
    """
    header = _read_header(path)
    shape = tuple(int(n) for n in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 3 or shape[3:] != ((channels,) if channels > 1 else ()):
        wanted = "three dimensions" if channels == 1 else f"four dimensions, the last of {channels}"
        hint = "; if it is one modality, name the folder of its case" if channels > 1 else ""
        raise GliosliceError(
            f"{path}: expected {wanted}, the header has {header.get_data_shape()}{hint}"
        )
    stored = header.get_data_dtype()
    if stored.kind not in "iuf" or stored.itemsize > 8:
        kind = "colours" if stored.names else f"numbers of the type {stored}"
        raise GliosliceError(
            f"{path}: its voxels are {kind}, not real numbers of up to 64 bits; export the series "
            "again as integers or floats"
        )
    try:
        offset, (slope, intercept) = int(header.get_data_offset()), header.get_slope_inter()
    except Exception as error:  # nibabel documents no list of what a damaged header raises
        raise GliosliceError(
            f"{path}: its header is damaged ({error}); copy the file again"
        ) from None
    claimed = offset + stored.itemsize * int(np.prod(shape, dtype=np.float64))
    capacity = path.stat().st_size * (DEFLATE_RATIO if _is_gzip(path) else 1)
    most = MAX_SOURCE_VOXELS if any_spacing else MAX_VOXELS
    if min(shape) < 1 or np.prod(shape[:3], dtype=np.float64) > most or claimed > capacity:
        raise GliosliceError(
            f"{path}: the header claims {shape} voxels, {claimed:,} bytes, more than the "
            "file can hold or a head has at 1 mm; it is damaged or cut short"
        )
    affine = _affine(path, header)
    if not any_spacing:
        _check_spacing(path, affine)
    space = Space((shape[0], shape[1], shape[2]), affine, header)
    with np.errstate(over="ignore"):
        scaling = np.float32(1 if slope is None else slope), np.float32(intercept or 0)
        plain = stored.kind in "iu" and stored.itemsize <= 2 and scaling[1] == 0
        overflows = plain and not np.isfinite(scaling[0] * np.float32(np.iinfo(stored).max))
    if overflows:
        raise GliosliceError(
            f"{path}: the scale {scaling[0]:g} of its header is damaged; export the series again"
        )
    dtype = stored.newbyteorder("=") if plain else np.dtype(np.float32)
    return NiftiFile(path, space, channels, stored, dtype, offset, scaling)


def read_nifti(path: Path, channels: int = 1) -> tuple[NDArray[Any], Space]:
    """Return the voxels of `path` as (channels, X, Y, Z) in LPS, and their space.

    Integers of at most 16 bits without a scale stay what they are, all else is float32. Raises
    GliosliceError, naming the file, as `open_nifti` does, or if it is cut short or contains NaN or
    infinite voxels.
    """
    file = open_nifti(path, channels)
    return read_voxels(file), file.space


def read_any_geometry(path: Path) -> tuple[NDArray[np.float32], Space]:
    """Return the voxels of `path` as float32 (X, Y, Z) in the file's own order, and their space.

    Any spacing and orientation will do. Raises GliosliceError like `read_nifti` otherwise.
    """
    file = open_nifti(path, any_spacing=True)
    voxels = file.space.from_lps(read_voxels(file)[0])
    return np.asarray(voxels, np.float32), file.space


def read_voxels(file: NiftiFile) -> NDArray[Any]:
    """Return the voxels of a file as `read_nifti` does."""
    voxels = zero_volumes(file.channels, file.space, file.dtype)
    file.read_into(list(voxels))
    check_finite(file.path, voxels)
    return voxels if file.scale == 1 else voxels * file.scale


def zero_volumes(count: int, space: Space, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return LPS volumes (count, X, Y, Z) of zeros; in memory, each slice is contiguous."""
    x, y, z = space.lps_shape
    return np.zeros((count, z, y, x), dtype).transpose(0, 3, 2, 1)


def check_finite(path: Path, voxels: NDArray[Any]) -> None:
    """Raise GliosliceError if `voxels` contain NaN or infinity."""
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise GliosliceError(f"{path}: contains NaN or infinite voxels; export the series again")


def write_mask(path: str | Path, mask: NDArray[np.uint8], space: Space) -> None:
    """Write an LPS mask as a NIfTI uint8 file with the affine, qform and sform of `space`.

    `mask` is (X, Y, Z), or (X, Y, Z, 3) for binary regions. The file is written atomically, and
    equal masks give equal bytes: zlib always compresses it. The header is a new one with the
    geometry and NOTICE alone: no text of the source file gets into the mask, and a space that was
    sent over the serial link gives the same bytes as the source file.

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
    header["descrip"] = NOTICE.encode()
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


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


@contextmanager
def _open(path: Path) -> Iterator[BufferedIOBase]:
    """Open a file that may be compressed, whatever its name says."""
    with path.open("rb") as raw:
        if raw.peek(len(GZIP_MAGIC))[: len(GZIP_MAGIC)] == GZIP_MAGIC:
            with GzipFile(fileobj=raw, mode="rb") as file:
                yield cast(BufferedIOBase, file)
        else:
            yield raw


def _skip(file: BufferedIOBase, count: int) -> None:
    while count > 0:
        count -= len(file.read(min(count, READ_BYTES)) or _end())


def _read_exactly(file: BufferedIOBase, view: memoryview) -> None:
    while view:
        view = view[file.readinto(view) or _end() :]


def _end() -> NoReturn:
    raise EOFError("it ends before its last voxel")


def _check_regular(path: Path) -> None:
    """Raise GliosliceError unless `path` is a file that can be read; a pipe may never end."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            path.open("rb").close()
    except FileNotFoundError:
        what = "a link to a file that is not there" if path.is_symlink() else "no such file"
        raise GliosliceError(f"{path}: {what}") from None
    except OSError as error:  # no permission, or a link that leads to itself
        raise GliosliceError(f"{path}: cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise GliosliceError(f"{path}: is {kind}, not a file; name a NIfTI file")


def _read_header(path: Path) -> nib.Nifti1Header:
    _check_regular(path)
    try:
        with _open(path) as file:
            content = file.read(NIFTI2_BYTES)
    except GZIP_ERRORS as error:
        raise GliosliceError(
            f"{path}: the file is cut short or damaged ({error}); copy it again"
        ) from None
    size = content[:4]
    try:
        with LoggingOutputSuppressor():
            if NIFTI2_BYTES in (int.from_bytes(size, "little"), int.from_bytes(size, "big")):
                return nib.Nifti2Header(content)
            header = nib.Nifti1Header(content[:NIFTI1_BYTES])
    except Exception as error:  # see above
        reason = f"not a NIfTI file ({error}); export the series again"
        if is_dicom(path):
            reason = "a DICOM file; make a case of its series with `glioslice prepare`"
        elif len(content) < NIFTI1_BYTES:
            reason = f"not a NIfTI file, as it holds only {len(content)} bytes; copy it again"
        raise GliosliceError(f"{path}: {reason}") from None
    if header["magic"] != b"n+1":
        kind = "one of a pair of files" if header["magic"] == b"ni1" else "an Analyze image"
        raise GliosliceError(f"{path}: not a NIfTI file but {kind}; convert it to a single .nii.gz")
    return header


def _affine(path: Path, header: nib.Nifti1Header) -> NDArray[np.float64]:
    try:
        affine = np.asarray(header.get_best_affine(), np.float64)
        invertible = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-6
    except Exception as error:  # see above
        raise GliosliceError(
            f"{path}: its affine cannot be read ({error}); export the series again"
        ) from None
    if not invertible:
        raise GliosliceError(f"{path}: the affine is not invertible; export the series again")
    return affine


def _check_spacing(path: Path, affine: NDArray[np.float64]) -> None:
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if np.abs(spacing - 1).max() > SPACING_TOLERANCE:
        sides = " x ".join(f"{s:.2f}" for s in spacing)
        raise GliosliceError(
            f"{path}: voxels of {sides} mm, 1 mm is needed; resample it (docs/from-scanner.md)"
        )
