"""The files of a prepared case: images, how they were made, and the way back to the sources.

    CASE/CASE_t1ce.nii.gz, CASE_flair.nii.gz, ...   the images, skull-stripped, 1 mm, LPS
    CASE/brain.png                                  the brain mask, to look at
    CASE/scanner.json                               geometry of the sources, transforms, quality
    CASE/study-link.json                            with --keep-link alone: where the study is

All but the last hold no name, no date, no identifier and no UID.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from glioslice import __version__
from glioslice.dataset_layouts import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.files import FOLDER_PREFIX, NOTICE, read_json, write_json
from glioslice.nifti import MAX_SOURCE_VOXELS, SCANNER, Space
from scanner.pipeline import REQUIRED, Prepared, SourceSpace
from scanner.volumes import Grid, Matrix, Voxels

RECORD, LINK, MONTAGE = "scanner.json", "study-link.json", "brain.png"
LINK_WARNING = (
    "This file leads to a patient's study. Do not pass it on with the case; delete it if the case "
    "leaves the hospital."
)


@dataclass(frozen=True)
class StudyLink:
    """The folder of the study, which study of it (from 1), and the number of each series."""

    folder: Path
    study: int
    series: Mapping[str, str]


def write_case(
    folder: Path, prepared: Prepared, link: StudyLink | None = None, *, force: bool = False
) -> None:
    """Write the case as a folder, whole or not at all.

    Raises GliosliceError if the folder exists, unless it is a prepared case and `force` is set.
    """
    check_free(folder, force=force)
    name = folder.resolve().name
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=folder.parent))
    try:
        space = Space.from_affine(prepared.grid.shape, prepared.grid.affine, (SCANNER, SCANNER))
        for modality in MODALITIES:
            if modality in prepared.images:
                path = temporary / f"{name}_{modality}.nii.gz"
                _write_image(path, prepared.images[modality], space)
        (temporary / MONTAGE).write_bytes(prepared.montage)
        write_json(temporary / RECORD, _record(prepared))
        if link:
            record = {
                "warning": LINK_WARNING,
                "notice": NOTICE,
                "folder": str(link.folder.resolve()),
                "study": link.study,
                "series": dict(link.series),
            }
            write_json(temporary / LINK, record)
        temporary.chmod(0o755)
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`, which other processes may be replacing at the same time."""
    while True:
        if folder.exists():
            old = temporary.with_name(f"{temporary.name}-old")
            with suppress(FileNotFoundError):
                os.replace(folder, old)
            shutil.rmtree(old, ignore_errors=True)
        try:
            os.replace(temporary, folder)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def check_free(folder: Path, *, force: bool) -> None:
    """Raise GliosliceError if a case cannot be written to `folder`."""
    if folder.is_file():
        raise GliosliceError(f"{folder}: is a file; name a folder for the case")
    present = _names(folder)
    if not present:
        return
    if RECORD not in present:
        raise GliosliceError(f"{folder}: holds other files; name a new folder for the case")
    if not force:
        raise GliosliceError(f"{folder}: already exists; name another folder, or add --force")
    own = {RECORD, LINK, MONTAGE, *(f"{folder.resolve().name}_{m}.nii.gz" for m in MODALITIES)}
    others = sorted(set(present) - own)
    if others:
        raise GliosliceError(f"{folder}: --force would delete {others[0]}; move it first")


def _names(folder: Path) -> list[str]:
    """Return what is in a folder, which other processes may be replacing; nothing if it is gone."""
    with suppress(FileNotFoundError):
        while True:
            before = folder.stat()
            names = [path.name for path in folder.iterdir()]
            after = folder.stat()  # a folder that was deleted may leave its inode to the next
            if (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
                return names
    return []


def read_spaces(case: Path) -> tuple[Grid, dict[str, SourceSpace]]:
    """Return the case's grid and the space of each source; raises GliosliceError."""
    path = case / RECORD
    if not path.is_file():
        raise GliosliceError(
            f"{case}: has no {RECORD}, so it was not made by `glioslice prepare`; its mask is in "
            "its own space already"
        )
    record = read_json(path)
    try:
        spaces = {
            modality: SourceSpace(_grid(entry), _matrix(entry["case_to_source"]))
            for modality, entry in record["sequences"].items()
        }
        if not set(REQUIRED) <= set(spaces):
            raise ValueError(f"sequences {', '.join(spaces) or 'none'}")
        return _grid(record["case"]), spaces
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GliosliceError(f"{path}: is damaged ({error}); prepare the case again") from None


def read_link(case: Path) -> StudyLink | None:
    """Return the link to the study, None without one."""
    path = case / LINK
    if not path.is_file():
        return None
    record = read_json(path)
    try:
        return StudyLink(Path(record["folder"]), int(record["study"]), dict(record["series"]))
    except (KeyError, TypeError, ValueError) as error:
        raise GliosliceError(f"{path}: is damaged ({error}); use --dicom FOLDER") from None


def _record(prepared: Prepared) -> dict[str, Any]:
    sequences = {}
    for modality, space in prepared.spaces.items():
        quality = prepared.quality.get(modality)
        sequences[modality] = {
            **_geometry(space.grid),
            "case_to_source": space.matrix.tolist(),
            "quality": asdict(quality) if quality else None,
        }
    return {
        "notice": NOTICE,
        "glioslice": __version__,
        "brain_extraction": prepared.brain_method,
        "case": _geometry(prepared.grid),
        "sequences": sequences,
    }


def _geometry(grid: Grid) -> dict[str, Any]:
    return {"shape": list(grid.shape), "affine": grid.affine.tolist()}


def _grid(entry: Mapping[str, Any]) -> Grid:
    x, y, z = (int(n) for n in entry["shape"])
    if min(x, y, z) < 1 or x * y * z > MAX_SOURCE_VOXELS:
        raise ValueError(f"{x} x {y} x {z} voxels")
    return Grid((x, y, z), _matrix(entry["affine"]))


def _matrix(rows: Any) -> Matrix:
    matrix = np.array(rows, np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.linalg.det(matrix):
        raise ValueError("a matrix is not an invertible one of 4 x 4 numbers")
    return matrix


def _write_image(path: Path, image: Voxels, space: Space) -> None:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_xyzt_units("mm")
    header["descrip"] = NOTICE.encode()
    image_file = nib.Nifti1Image(image, space.affine, header)
    image_file.set_qform(space.affine, SCANNER)
    image_file.set_sform(space.affine, SCANNER)
    nib.save(image_file, path)
