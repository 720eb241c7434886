"""Images beside the whole volumes: lesion cubes and single slices, which add patients to a batch.

`cubes.npz` (see the data's README) holds cubes of 32 voxels of z-scores around tumours, 1.875 mm in
plane. Four of their slices, resampled to 1 mm, form a canvas of the size of a crop.

`slices.npz` holds axial slices of 240 x 240 pixels with their own z-scores: over the brain of the
slice, not of the volume, so their level and spread differ a little.

Pixels whose label is unknown, such as those between patches or outside a cube, are not background:
they are labelled IGNORE.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn.functional import pad

from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.labels import ENHANCING
from glioslice.preprocessing import CLIP, WINDOW, extract_slices, find_crop
from training.augment import warp
from training.dataset import IGNORE, CaseSlices, random_index

INT8_STEP = 0.08
"""Standard deviations of the brain per int8 step of the file."""

ZOOM = 1.875
"""Pixels of 1 mm per voxel of a cube."""

PATCHES_PER_SIDE, MARGIN = 2, 2
"""Patches along each side of a canvas, and empty pixels around each patch."""

OUTSIDE = -128
"""The value of pixels outside the brain."""


@dataclass(frozen=True, eq=False)
class LesionCubes:
    """Slices of cubes: images (N, 4, 32, 32) int8, labels (N, 32, 32), ours or IGNORE.

    `patients` maps each patient to the indices of its slices with tumour.
    """

    images: NDArray[np.int8]
    labels: NDArray[np.uint8]
    patients: dict[str, NDArray[np.intp]]
    sha256: str


def load_lesion_cubes(file: Path, left_out: set[str]) -> LesionCubes:
    """Return the cubes of all patients except `left_out`.

    Raises GliosliceError if the file is missing or malformed, or no patient is left.
    """
    images, labels, patient = _load_arrays(file, "lesions", "lesion cubes", "patient")
    # (N, 4, X, Y, Z) to (N * Z, 4, X, Y): every axial slice by itself.
    images = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:4])
    labels = np.moveaxis(labels, -1, 1).reshape(-1, *labels.shape[1:3])
    tumour = ((labels > 0) & (labels != IGNORE)).any(axis=(1, 2))
    owner = np.repeat(patient, len(labels) // len(patient))
    names = (name for name in np.unique(patient) if name not in left_out)
    indices_of = {str(name): np.flatnonzero(tumour & (owner == name)) for name in names}
    patients = {name: indices for name, indices in indices_of.items() if len(indices)}
    if not patients:
        raise GliosliceError(f"{file}: no cube is left without those of held-out patients")
    return LesionCubes(images, labels, patients, sha256(file))


def _load_arrays(file: Path, option: str, what: str, *keys: str) -> list[NDArray[Any]]:
    """Return images, labels (ours, IGNORE where they are not valid) and the arrays `keys`.

    Raises GliosliceError, which names `what` is expected and the option, if the file is missing or
    malformed.
    """
    try:
        with np.load(file) as arrays:
            images, labels, valid, *others = (
                arrays[key] for key in ("images", "labels", "valid", *keys)
            )
    except FileNotFoundError:
        raise GliosliceError(
            f"{file}: no such file; omit --{option} to train without {what}"
        ) from None
    except (KeyError, ValueError, OSError, BadZipFile) as error:
        raise GliosliceError(f"{file}: not a file of {what} ({error})") from None
    labels = np.where(labels == 4, np.uint8(ENHANCING), labels)
    labels[~np.unpackbits(valid, axis=-1).astype(bool)] = IGNORE
    return [images, labels, *others]


def read_lesion_patients(table: Path) -> dict[str, str]:
    """Return a map of case to cube patient, from the columns `case` and `lesion_patient`.

    Raises GliosliceError if the table is missing or lacks a column.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {row["case"]: row["lesion_patient"] for row in rows if row["lesion_patient"]}
    except FileNotFoundError:
        raise GliosliceError(
            f"{table}: no such file; it must map cases to cubes (columns case and lesion_patient), "
            "so that the cubes of held-out patients are left out"
        ) from None
    except KeyError as error:
        raise GliosliceError(f"{table}: the column {error} is missing") from None


def same_patients(table: Path | None, held_out: Sequence[CaseSlices]) -> set[str]:
    """Return the names that held-out patients have among lesion cubes and single slices.

    Raises GliosliceError if there is no table of their patients.
    """
    if table is None:
        raise GliosliceError(
            "--lesions and --slices need --patients CSV to leave out held-out patients"
        )
    name_of = read_lesion_patients(table)
    return {name_of[case.case] for case in held_out if case.case in name_of}


def make_canvases(
    lesions: LesionCubes, count: int, size: int, generator: Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return `count` canvases (B, 4, size, size) and labels (B, size, size)."""
    patch = size // PATCHES_PER_SIDE - 2 * MARGIN
    images, labels = _patches(lesions, count * PATCHES_PER_SIDE**2, patch, generator, device)
    images = pad(images, (MARGIN,) * 4)
    labels = pad(labels, (MARGIN,) * 4, value=IGNORE)
    return _tile(images), _tile(labels[:, None])[:, 0]


def _patches(
    lesions: LesionCubes, count: int, size: int, generator: Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return `count` augmented patches (B, 4, size, size) of 1 mm and labels (B, size, size).

    The patient is sampled first, then one of its slices. Pixels outside a cube are IGNORE.
    """
    names = list(lesions.patients)
    chosen = []
    for _ in range(count):
        pool = lesions.patients[names[random_index(len(names), generator)]]
        chosen.append(int(pool[random_index(len(pool), generator)]))
    images = torch.from_numpy(lesions.images[chosen]).to(device).float() * INT8_STEP
    labels = torch.from_numpy(lesions.labels[chosen]).to(device)
    middle = torch.full((len(chosen), 2), (images.shape[-1] - 1) / 2, device=device)
    return warp(images, labels, middle, (size, size), generator, zoom=ZOOM, outside=IGNORE)


def _tile(patches: Tensor) -> Tensor:
    """Return (B * n * n, C, h, w) as (B, C, n * h, n * w), n patches along each side."""
    n, (_, channels, height, width) = PATCHES_PER_SIDE, patches.shape
    grid = patches.reshape(-1, n, n, channels, height, width)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(-1, channels, n * height, n * width)


@dataclass(frozen=True, eq=False)
class SingleSlices:
    """Each patient's images (N, 160, 192, 4) float16 and labels (N, 160, 192), ours or IGNORE."""

    patients: tuple[str, ...]
    images: tuple[NDArray[np.float16], ...]
    labels: tuple[NDArray[np.uint8], ...]
    grades: tuple[str, ...]
    sha256: str


def load_single_slices(file: Path, left_out: set[str]) -> SingleSlices:
    """Return the slices of all patients except `left_out`, cut to the window as volumes are.

    Raises GliosliceError if the file is missing or malformed, or no patient is left.
    """
    given, labels, patient, grade = _load_arrays(
        file, "slices", "single slices", "patient", "grade"
    )
    brain = given != OUTSIDE
    scores = np.clip(given * np.float32(INT8_STEP), -CLIP, CLIP) * brain
    images = np.empty((len(given), *WINDOW, given.shape[1]), np.float16)
    windows = np.empty((len(given), *WINDOW), np.uint8)
    for i in range(len(given)):
        crop = find_crop(brain[i].any(axis=0)[..., None])
        images[i] = extract_slices(scores[i, ..., None], crop)[0]
        windows[i] = extract_slices(labels[i, ..., None], crop)[0]
    names = [name for name in np.unique(patient) if name not in left_out]
    if not names:
        raise GliosliceError(f"{file}: no slice is left without those of held-out patients")
    indices = [np.flatnonzero(patient == name) for name in names]
    return SingleSlices(
        tuple(str(name) for name in names),
        tuple(images[i] for i in indices),
        tuple(windows[i] for i in indices),
        tuple(str(grade[i[0]]) for i in indices),
        sha256(file),
    )


def extra_entry(
    extra: LesionCubes | SingleSlices | None, left_out: set[str]
) -> dict[str, Any] | None:
    """Return the entry of lesion cubes or single slices in the card."""
    if extra is None:
        return None
    entry = {"patients": len(extra.patients), "left_out": sorted(left_out)}
    return entry | {"sha256": extra.sha256}
