"""A patient's case: found by its file names, read into one orientation and one label scheme.

    BraTS 2018-2021   CASE/CASE_{flair,t1,t1ce,t2,seg}.nii.gz        labels 1, 2, 4
    BraTS 2023+       CASE/CASE-{t2f,t1n,t1c,t2w,seg}.nii.gz         labels 1, 2, 3
    Decathlon Task01  imagesTr/CASE.nii.gz (4-D), labelsTr/, dataset.json   labels 2, 1, 3

Letters of the suffixes may be of any case, files `.nii` or `.nii.gz`, the mask may be missing.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.labels import (
    BRATS_2018,
    BRATS_2023,
    DECATHLON,
    SCHEMES,
    LabelScheme,
    check_nesting,
    from_scheme,
)
from glioslice.nifti import Space, read_nifti
from glioslice.phantom import make_phantom

MODALITIES = ("flair", "t1", "t1ce", "t2")
MASK = "seg"

SUFFIXES: Mapping[str, tuple[str, LabelScheme]] = {
    "_flair": ("flair", BRATS_2018),
    "_t1": ("t1", BRATS_2018),
    "_t1ce": ("t1ce", BRATS_2018),
    "_t2": ("t2", BRATS_2018),
    "_seg": (MASK, BRATS_2018),
    "-t2f": ("flair", BRATS_2023),
    "-t1n": ("t1", BRATS_2023),
    "-t1c": ("t1ce", BRATS_2023),
    "-t2w": ("t2", BRATS_2023),
    "-seg": (MASK, BRATS_2023),
}
FILE_NAME = re.compile(rf"(?P<case>.+)(?P<suffix>{'|'.join(SUFFIXES)})\.nii(\.gz)?", re.IGNORECASE)
NIFTI_ENDINGS = (".nii", ".nii.gz")

MAX_BRAIN_ML = 2500
"""Adult brains with their fluid stay under 2,000 mL, heads with skull and scalp over 3,000."""


@dataclass(frozen=True)
class CaseFiles:
    """Where a case lies: one file a modality, or one 4-D file for all; `mask` may be None."""

    name: str
    scheme: LabelScheme
    images: Mapping[str, Path]
    mask: Path | None


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
        return _decathlon_case(path)
    if not path.is_dir():
        raise GliosliceError(f"{path}: no such folder")
    if (path / "imagesTr").is_dir():
        images = _niftis(path / "imagesTr")
        if len(images) != 1:
            raise GliosliceError(
                f"{path}: holds {len(images)} Decathlon cases; name one file of imagesTr as CASE"
            )
        return _decathlon_case(images[0])
    return _brats_case(path)


def find_cases(folder: Path) -> list[CaseFiles]:
    """Return all cases of `folder`, sorted by name; folders without NIfTI files are passed over.

    Raises GliosliceError if there is none, or one is incomplete.
    """
    if not folder.is_dir():
        raise GliosliceError(f"{folder}: no such folder")
    if (folder / "imagesTr").is_dir():
        found = [_decathlon_case(image) for image in _niftis(folder / "imagesTr")]
    elif _niftis(folder):
        found = [_brats_case(folder)]
    else:
        inside = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
        found = [find_case(p) for p in inside if _niftis(p) or (p / "imagesTr").is_dir()]
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
        parts, spaces = zip(*(read_nifti(path) for path in paths), strict=True)
        for path, own in zip(paths, spaces, strict=True):
            _check_same_space(path, own, paths[0], spaces[0])
        images, space = np.concatenate(parts), spaces[0]
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


def _niftis(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(NIFTI_ENDINGS) and not path.name.startswith(".")
    )


def _brats_case(folder: Path) -> CaseFiles:
    found: dict[LabelScheme, dict[str, Path]] = {}
    for path in _niftis(folder):
        if match := FILE_NAME.fullmatch(path.name):
            what, scheme = SUFFIXES[match["suffix"].lower()]
            files = found.setdefault(scheme, {})
            if what in files:
                raise GliosliceError(f"{path}: {what} is there twice, also as {files[what].name}")
            files[what] = path
    if not found:
        raise GliosliceError(
            f"{folder}: no case; expected CASE_flair, _t1, _t1ce, _t2 (BraTS 2018-2021) or "
            "CASE-t2f, -t1n, -t1c, -t2w (BraTS 2023 and later) as .nii or .nii.gz"
        )
    if len(found) > 1:
        raise GliosliceError(f"{folder}: mixes the file names of BraTS 2018-2021 and BraTS 2023")
    [(scheme, files)] = found.items()
    mask = files.pop(MASK, None)
    missing = [
        suffix
        for suffix, (what, s) in SUFFIXES.items()
        if s is scheme and what != MASK and what not in files
    ]
    if missing:
        raise GliosliceError(f"{folder}: the modality {', '.join(missing)} is missing")
    return CaseFiles(folder.resolve().name, scheme, files, mask)


def _decathlon_case(image: Path) -> CaseFiles:
    if not image.name.lower().endswith(NIFTI_ENDINGS):
        raise GliosliceError(f"{image}: a case is a folder, or a 4-D NIfTI file of the Decathlon")
    _check_decathlon(image.parent.parent / "dataset.json")
    mask = image.parent.parent / "labelsTr" / image.name
    return CaseFiles(
        name=re.sub(r"\.nii(\.gz)?$", "", image.name, flags=re.IGNORECASE),
        scheme=DECATHLON,
        images=dict.fromkeys(MODALITIES, image),
        mask=mask if mask.is_file() else None,
    )


def _check_decathlon(description: Path) -> None:
    """Compare `dataset.json`, where there is one, with what Task01 means by its numbers."""
    if not description.is_file():
        return
    content = read_json(description)
    order = [str(m).lower() for _, m in sorted(content.get("modality", {}).items())]
    if order != ["flair", "t1w", "t1gd", "t2w"]:
        raise GliosliceError(f"{description}: modalities {order}, Task01 has FLAIR, T1w, T1gd, T2w")
    if str(content.get("labels", {}).get("1", "")).lower() not in ("edema", "oedema"):
        raise GliosliceError(f"{description}: label 1 is not edema, as it is in Task01")
