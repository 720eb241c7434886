"""Patches of lesion cubes: tumours of hundreds of patients without whole slices.

`cubes.npz` (see the data's README) holds cubes of 32 voxels of z-scores around tumours, 1.875 mm in
plane. Four of their slices, resampled to 1 mm, form a canvas of the size of a crop. Pixels between
patches or outside a cube are unknown, not background: they are labelled IGNORE.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn.functional import pad

from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.labels import ENHANCING
from training.dataset import IGNORE, random_index
from training.geometry import warp

INT8_STEP = 0.08
"""Standard deviations of the brain per int8 step of the file."""

ZOOM = 1.875
"""Pixels of 1 mm per voxel of a cube."""

PATCHES_PER_SIDE, MARGIN = 2, 2
"""Patches along each side of a canvas, and empty pixels around each patch."""


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
    try:
        with np.load(file) as arrays:
            images, labels, valid, patient = (
                arrays[key] for key in ("images", "labels", "valid", "patient")
            )
    except FileNotFoundError:
        raise GliosliceError(
            f"{file}: no such file; omit --lesions to train without cubes"
        ) from None
    except (KeyError, ValueError, OSError, BadZipFile) as error:
        raise GliosliceError(f"{file}: not a file of lesion cubes ({error})") from None
    labels = np.where(labels == 4, np.uint8(ENHANCING), labels)
    labels[~np.unpackbits(valid, axis=-1).astype(bool)] = IGNORE
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
