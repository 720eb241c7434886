"""A patient's case, read from any data set into one orientation and one label scheme."""

import hashlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioslice.dataset_layouts import MODALITIES, CaseFiles, brats_case, decathlon_case, nifti_files
from glioslice.errors import GliosliceError
from glioslice.labels import (
    BRATS_2023,
    DECATHLON,
    SCHEMES,
    LabelScheme,
    check_nesting,
    from_scheme,
)
from glioslice.missing_modalities import drop_modalities, in_order
from glioslice.nifti import Space, read_nifti
from glioslice.phantom.head import make_phantom

logger = logging.getLogger(__name__)

__all__ = [
    "MODALITIES",
    "Case",
    "CaseFiles",
    "case_digest",
    "find_case",
    "find_cases",
    "find_problems",
    "phantom_case",
    "read_case",
]

MAX_BRAIN_ML = 2500
"""Adult brains with their fluid are below 2,000 mL, heads with skull and scalp above 3,000."""


@dataclass(frozen=True)
class Case:
    """A case in memory.

    `images` are (4, X, Y, Z) float32 in the order of MODALITIES, in LPS orientation, 0 outside the
    brain. `labels` (X, Y, Z) are the ground truth in the labels of `glioslice.labels`, or None.
    `scheme` and `space` are those of the files, for writing masks in the same form. The images of
    the modalities `missing` are 0.
    """

    name: str
    scheme: LabelScheme
    images: NDArray[np.float32]
    labels: NDArray[np.uint8] | None
    space: Space
    missing: tuple[str, ...] = ()


def find_case(path: str | Path) -> CaseFiles:
    """Return the files of the case at `path`: a folder, or a 4-D image of the Decathlon.

    Raises GliosliceError if there is no case, or a modality is present twice.
    """
    path = Path(path)
    if path.is_file():
        return decathlon_case(path)
    if not path.is_dir():
        raise GliosliceError(f"{path}: no such folder")
    if (path / "imagesTr").is_dir():
        images = nifti_files(path / "imagesTr")
        if len(images) != 1:
            raise GliosliceError(
                f"{path}: holds {len(images)} Decathlon cases; name one file of imagesTr as CASE"
            )
        return decathlon_case(images[0])
    return brats_case(path)


def find_cases(folder: str | Path) -> list[CaseFiles]:
    """Return the files of all cases in `folder`, sorted by name.

    Folders without NIfTI files are ignored. Raises GliosliceError if there is no case.
    """
    found = [find_case(path) for path in case_paths(Path(folder))]
    return sorted(found, key=lambda files: files.name)


def case_paths(folder: Path) -> list[Path]:
    """Return the path of each case in `folder`, complete or not; `folder` itself if it is a case.

    Raises GliosliceError if there is none.
    """
    if not folder.is_dir():
        raise GliosliceError(f"{folder}: no such folder")
    if (folder / "imagesTr").is_dir():
        paths = nifti_files(folder / "imagesTr")
    elif nifti_files(folder):
        paths = [folder]
    else:
        folders = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
        paths = sorted(p for p in folders if nifti_files(p) or (p / "imagesTr").is_dir())
    if not paths:
        raise GliosliceError(f"{folder}: no case found; a case is a folder with its NIfTI files")
    return paths


def read_case(source: str | Path | CaseFiles, missing: Collection[str] = ()) -> Case:
    """Read a case from its folder, its 4-D Decathlon image, or the files that `find_case` found.

    Files of the modalities `missing` are not read. T1 and T2 may be missing without being named.
    Raises GliosliceError, naming the file, if a file is missing or unusable (see `read_nifti`), if
    modalities differ in shape or affine, if an image is not skull-stripped, or if the mask's
    labels are not those of the data set.
    """
    files = source if isinstance(source, CaseFiles) else find_case(source)
    files = drop_modalities(files, missing)
    images, space = _read_images(files)
    labels = None
    if files.mask is not None:
        mask, mask_space = read_nifti(files.mask)
        _check_same_space(files.mask, mask_space, next(iter(files.images.values())), space)
        labels = _read_labels(files.mask, mask[0], files.scheme)
    logger.info(
        "%s: %s labels, %d x %d x %d voxels, %s ground truth",
        *(files.name, files.scheme.edition, *space.shape, "no" if labels is None else "with"),
    )
    lacking = in_order(set(MODALITIES) - set(files.images))
    return Case(files.name, files.scheme, images, labels, space, lacking)


def phantom_case(seed: int, missing: Collection[str] = ()) -> Case:
    """Return the synthetic head of `seed`, without `missing`, as a case with its ground truth."""
    phantom = make_phantom(seed)
    for modality in missing:
        phantom.images[MODALITIES.index(modality)] = 0
    x, y, z = phantom.labels.shape
    name = f"phantom-{seed}"
    space = Space.lps((x, y, z))
    return Case(name, BRATS_2023, phantom.images, phantom.labels, space, in_order(missing))


def find_problems(files: CaseFiles, missing: Collection[str] = ()) -> list[str]:
    """Return a line for each unusable file; if all are usable, what is wrong with the case."""
    images = [path for modality, path in files.images.items() if modality not in missing]
    channels = {path: _channels(files) for path in images}
    channels |= {files.mask: 1} if files.mask is not None else {}
    problems = []
    for path, count in channels.items():
        try:
            read_nifti(path, count)
        except GliosliceError as error:
            problems.append(str(error))
    if not problems:
        try:
            read_case(files, missing)
        except GliosliceError as error:
            problems.append(str(error))
    return problems


def case_digest(case: Case) -> str:
    """Return the SHA-256 of the images, which does not depend on file names or compression."""
    digest = hashlib.sha256(repr(case.images.shape).encode())
    digest.update(np.ascontiguousarray(case.images, "<f4").data)
    return digest.hexdigest()


def _channels(files: CaseFiles) -> int:
    """Return how many modalities each file of a case holds: all of them, or one."""
    return len(MODALITIES) if files.scheme is DECATHLON else 1


def _read_images(files: CaseFiles) -> tuple[NDArray[np.float32], Space]:
    first_path = next(files.images[m] for m in MODALITIES if m in files.images)
    first, space = read_nifti(first_path, channels=_channels(files))
    if len(first) == len(MODALITIES):
        images = first
        images[[m not in files.images for m in MODALITIES]] = 0
    else:
        images = np.zeros((len(MODALITIES), *first.shape[1:]), np.float32)
        for index, modality in enumerate(MODALITIES):  # in place: a second copy takes 140 MB
            path = files.images.get(modality)
            if path == first_path:
                images[index] = first[0]
            elif path is not None:
                image, image_space = read_nifti(path)
                _check_same_space(path, image_space, first_path, space)
                images[index] = image[0]
    for modality, image in zip(MODALITIES, images, strict=True):
        millilitres = np.count_nonzero(image) / 1000
        if millilitres > MAX_BRAIN_ML:
            raise GliosliceError(
                f"{files.images[modality]}: {millilitres:,.0f} mL of {modality} are not 0, more "
                "than a brain; the image is probably not skull-stripped (docs/from-scanner.md)"
            )
    return images, space


def _check_same_space(path: Path, space: Space, first_path: Path, first: Space) -> None:
    if space.shape != first.shape:
        raise GliosliceError(f"{path}: shape {space.shape}, but {first_path} has {first.shape}")
    if not np.allclose(space.affine, first.affine, atol=1e-2):
        raise GliosliceError(f"{path}: its affine differs from that of {first_path}; register them")


def _read_labels(path: Path, mask: NDArray[np.float32], scheme: LabelScheme) -> NDArray[np.uint8]:
    found = {float(value) for value in np.unique(mask)} - {0.0}
    if not found <= set(scheme.values):
        fitting = [s.edition for s in SCHEMES if found <= set(s.values)]
        others = f"they are those of {' and '.join(fitting)}" if fitting else "no data set has them"
        raise GliosliceError(
            f"{path}: has the labels {_join(found)}, but {scheme.edition} (by the file names) has "
            f"{_join(scheme.values)}; {others}"
        )
    labels = from_scheme(mask.astype(np.uint8), scheme)
    try:
        check_nesting(labels)
    except GliosliceError as error:
        raise GliosliceError(
            f"{path}: read as {scheme.edition}, labels {_join(found)}, {error}"
        ) from None
    return labels


def _join(values: set[float] | tuple[int, ...]) -> str:
    return " ".join(f"{value:g}" for value in sorted(values))
