"""Patches of the lesion cubes: tumours of hundreds of patients of whom no whole slice is at hand.

`cubes.npz` (the data's README) holds 32-voxel cubes of z-scores around tumours, of 1.875 mm in
plane. Four of their slices, resampled to 1 mm, make a canvas as large as a crop. What lies between
them or past a cube's own crop is no background: it bears IGNORE and the loss leaves it out.
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
from training.dataset import pick
from training.geometry import warp
from training.loss import IGNORE

STEP = 0.08
"""Standard deviations of the brain to a step of the cubes' int8."""

ZOOM = 1.875
"""Pixels of 1 mm to a voxel of a cube."""

ACROSS, GAP = 2, 2
"""Patches along each side of a canvas, and the pixels that each leaves free around it."""


@dataclass(frozen=True, eq=False)
class Lesions:
    """Slices of cubes: images (N, 4, 32, 32) int8, labels (N, 32, 32) of the kit or IGNORE.

    `patients` holds for each patient the indices of its slices; all of them hold tumour.
    """

    images: NDArray[np.int8]
    labels: NDArray[np.uint8]
    patients: dict[str, NDArray[np.intp]]
    sha256: str


def load_lesions(file: Path, left_out: set[str]) -> Lesions:
    """Return the cubes of everyone but `left_out`.

    Raises GliosliceError if the file is missing or not what the data's README describes, or nobody
    is left.
    """
    try:
        with np.load(file) as held:
            images, labels, valid, patient = (
                held[key] for key in ("images", "labels", "valid", "patient")
            )
    except FileNotFoundError:
        raise GliosliceError(
            f"{file}: no such file; leave out --lesions to train without"
        ) from None
    except (KeyError, ValueError, OSError, BadZipFile) as error:
        raise GliosliceError(f"{file}: not a file of lesion cubes ({error})") from None
    labels = np.where(labels == 4, np.uint8(ENHANCING), labels)
    labels[~np.unpackbits(valid, axis=-1).astype(bool)] = IGNORE
    # Slices along the last axis, feet to head, become the first.
    images = np.moveaxis(images, -1, 1).reshape(-1, *images.shape[1:4])
    labels = np.moveaxis(labels, -1, 1).reshape(-1, *labels.shape[1:3])
    tumour = ((labels > 0) & (labels != IGNORE)).any(axis=(1, 2))
    owner = np.repeat(patient, len(labels) // len(patient))
    names = (name for name in np.unique(patient) if name not in left_out)
    found = {str(name): np.flatnonzero(tumour & (owner == name)) for name in names}
    patients = {name: indices for name, indices in found.items() if len(indices)}
    if not patients:
        raise GliosliceError(f"{file}: no cube is left once the held-out patients' are out")
    return Lesions(images, labels, patients, sha256(file))


def lesion_patients(table: Path) -> dict[str, str]:
    """Return case to patient among the cubes, from the columns `case` and `lesion_patient`.

    Raises GliosliceError if the table is missing or lacks a column.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {row["case"]: row["lesion_patient"] for row in rows if row["lesion_patient"]}
    except FileNotFoundError:
        raise GliosliceError(
            f"{table}: no such file; it must tell which cubes are of which case (columns case and "
            "lesion_patient), so that those held out leave with their cubes"
        ) from None
    except KeyError as error:
        raise GliosliceError(f"{table}: lacks the column {error}") from None


def canvases(
    lesions: Lesions, count: int, size: int, generator: Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return `count` canvases (B, 4, size, size) and labels (B, size, size).

    IGNORE lies between patches.
    """
    patch = size // ACROSS - 2 * GAP
    images, labels = _patches(lesions, count * ACROSS**2, patch, generator, device)
    images = pad(images, (GAP,) * 4)
    labels = pad(labels, (GAP,) * 4, value=IGNORE)
    return _tiled(images), _tiled(labels[:, None])[:, 0]


def _patches(
    lesions: Lesions, count: int, size: int, generator: Generator, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return `count` moved patches (B, 4, size, size) of 1 mm, labels (B, size, size).

    A patient is drawn first, then one of its slices. What its cube does not hold is IGNORE.
    """
    names = list(lesions.patients)
    chosen = []
    for _ in range(count):
        pool = lesions.patients[names[pick(len(names), generator)]]
        chosen.append(int(pool[pick(len(pool), generator)]))
    images = torch.from_numpy(lesions.images[chosen]).to(device).float() * STEP
    labels = torch.from_numpy(lesions.labels[chosen]).to(device)
    middle = torch.full((len(chosen), 2), (images.shape[-1] - 1) / 2, device=device)
    return warp(images, labels, middle, (size, size), generator, zoom=ZOOM, outside=IGNORE)


def _tiled(patches: Tensor) -> Tensor:
    """Return (B * ACROSS ** 2, C, h, w) as (B, C, ACROSS * h, ACROSS * w)."""
    _, channels, height, width = patches.shape
    grid = patches.reshape(-1, ACROSS, ACROSS, channels, height, width)
    whole = grid.permute(0, 3, 1, 4, 2, 5)  # (B, C, across, h, across, w)
    return whole.reshape(-1, channels, ACROSS * height, ACROSS * width)
