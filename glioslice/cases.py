"""A patient's case: read into one orientation and one label scheme, whatever its edition."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioslice.dataset_layouts import MODALITIES, CaseFiles, brats_case, decathlon_case, niftis
from glioslice.errors import GliosliceError
from glioslice.labels import BRATS_2023, SCHEMES, LabelScheme, check_nesting, from_scheme
from glioslice.nifti import Space, read_nifti
from glioslice.phantom.head import make_phantom

__all__ = [
    "MODALITIES",
    "Case",
    "CaseFiles",
    "digest",
    "find_case",
    "find_cases",
    "phantom_case",
    "problems_of",
    "read_case",
]

MAX_BRAIN_ML = 2500
"""Adult brains with their fluid stay under 2,000 mL, heads with skull and scalp over 3,000."""


@dataclass(frozen=True)
class Case:
    """A case in memory: `images` (4, X, Y, Z) in the order of MODALITIES, LPS, background 0.

    `labels` (X, Y, Z) holds the kit's labels, or is None where there is no expert mask.
    """

    name: str
    scheme: LabelScheme
    images: NDArray[np.float32]
    labels: NDArray[np.uint8] | None
    space: Space


def find_case(path: Path) -> CaseFiles:
    """Return the files of the case at `path`: a folder, or a Decathlon image.

    Raises GliosliceError if it is none, or a modality is missing or there twice.
    """
    if path.is_file():
        return decathlon_case(path)
    if not path.is_dir():
        raise GliosliceError(f"{path}: no such folder")
    if (path / "imagesTr").is_dir():
        images = niftis(path / "imagesTr")
        if len(images) != 1:
            raise GliosliceError(
                f"{path}: holds {len(images)} Decathlon cases; name one file of imagesTr as CASE"
            )
        return decathlon_case(images[0])
    return brats_case(path)


def find_cases(folder: Path) -> list[CaseFiles]:
    """Return all cases of `folder`, sorted by name; folders without NIfTI files are passed over.

    Raises GliosliceError if there is none, or one is incomplete.
    """
    if not folder.is_dir():
        raise GliosliceError(f"{folder}: no such folder")
    if (folder / "imagesTr").is_dir():
        found = [decathlon_case(image) for image in niftis(folder / "imagesTr")]
    elif niftis(folder):
        found = [brats_case(folder)]
    else:
        inside = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
        found = [find_case(p) for p in inside if niftis(p) or (p / "imagesTr").is_dir()]
    if not found:
        raise GliosliceError(f"{folder}: no case found; a case is a folder with its NIfTI files")
    return sorted(found, key=lambda files: files.name)


def read_case(files: CaseFiles) -> Case:
    """Return the case in memory.

    Raises GliosliceError, naming the file: what `read_nifti` refuses, modalities of different
    shape or affine, an image that looks not skull-stripped, a mask that fits no edition.
    """
    images, space = _read_images(files)
    labels = None
    if files.mask is not None:
        mask, mask_space = read_nifti(files.mask)
        _check_same_space(files.mask, mask_space, next(iter(files.images.values())), space)
        labels = _to_labels(files.mask, mask[0], files.scheme)
    return Case(files.name, files.scheme, images, labels, space)


def phantom_case(seed: int) -> Case:
    """Return the phantom of `seed` as a case with its truth."""
    phantom = make_phantom(seed)
    x, y, z = phantom.labels.shape
    name = f"phantom-{seed}"
    return Case(name, BRATS_2023, phantom.images, phantom.labels, Space.lps((x, y, z)))


def problems_of(files: CaseFiles) -> list[str]:
    """Return a line for each file that is refused by itself, else what refuses the whole case."""
    channels = {path: 1 for path in (*files.images.values(), files.mask) if path is not None}
    if len(set(files.images.values())) == 1:
        channels[files.images[MODALITIES[0]]] = len(MODALITIES)
    problems = []
    for path, count in channels.items():
        try:
            read_nifti(path, count)
        except GliosliceError as error:
            problems.append(str(error))
    if not problems:
        try:
            read_case(files)
        except GliosliceError as error:
            problems.append(str(error))
    return problems


def digest(case: Case) -> str:
    """Return the SHA-256 of the case's images: whatever its files are called or packed like."""
    running = hashlib.sha256(repr(case.images.shape).encode())
    running.update(np.ascontiguousarray(case.images, "<f4").data)
    return running.hexdigest()


def _read_images(files: CaseFiles) -> tuple[NDArray[np.float32], Space]:
    paths = list(dict.fromkeys(files.images[m] for m in MODALITIES))
    if len(paths) == 1:
        images, space = read_nifti(paths[0], channels=len(MODALITIES))
    else:
        first, space = read_nifti(paths[0])
        images = np.empty((len(paths), *first.shape[1:]), np.float32)
        images[0] = first[0]
        for place, path in enumerate(paths[1:], 1):  # each into its place: two copies take 280 MB
            image, own = read_nifti(path)
            _check_same_space(path, own, paths[0], space)
            images[place] = image[0]
    for modality, image in zip(MODALITIES, images, strict=True):
        millilitres = np.count_nonzero(image) / 1000
        if millilitres > MAX_BRAIN_ML:
            raise GliosliceError(
                f"{files.images[modality]}: {millilitres:,.0f} mL of {modality} are not 0, more "
                "than a brain; it looks not skull-stripped (docs/from-scanner.md)"
            )
    return images, space


def _check_same_space(path: Path, own: Space, first_path: Path, first: Space) -> None:
    if own.shape != first.shape:
        raise GliosliceError(f"{path}: shape {own.shape}, but {first_path} has {first.shape}")
    if not np.allclose(own.affine, first.affine, atol=1e-2):
        raise GliosliceError(f"{path}: its affine differs from that of {first_path}; register them")


def _to_labels(path: Path, mask: NDArray[np.float32], scheme: LabelScheme) -> NDArray[np.uint8]:
    found = {float(value) for value in np.unique(mask)} - {0.0}
    if not found <= set(scheme.values):
        fitting = [s.edition for s in SCHEMES if found <= set(s.values)]
        others = f"they fit {' and '.join(fitting)}" if fitting else "they fit no edition"
        raise GliosliceError(
            f"{path}: holds the labels {_listed(found)}, {scheme.edition} (told by the file names) "
            f"has {_listed(scheme.values)}; {others}"
        )
    labels = from_scheme(mask.astype(np.uint8), scheme)
    try:
        check_nesting(labels)
    except GliosliceError as error:
        raise GliosliceError(
            f"{path}: read as {scheme.edition}, labels {_listed(found)}, {error}"
        ) from None
    return labels


def _listed(values: set[float] | tuple[int, ...]) -> str:
    return " ".join(f"{value:g}" for value in sorted(values))
