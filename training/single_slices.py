"""Single slices: axial slices of patients without whole volumes, which add patients to a batch.

`slices.npz` (see the data's README) holds slices of 240 x 240 pixels with their own z-scores: over
the brain of the slice, not of the volume, so their level and spread differ a little. Pixels whose
label is unknown (`valid` is false) are labelled IGNORE.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.labels import ENHANCING
from glioslice.preprocessing import CLIP, WINDOW, extract_slices, find_crop
from training.dataset import IGNORE
from training.lesion_patches import INT8_STEP

OUTSIDE = -128
"""The value of pixels outside the brain."""


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
    try:
        with np.load(file) as arrays:
            given, labels, valid, patient, grade = (
                arrays[key] for key in ("images", "labels", "valid", "patient", "grade")
            )
    except FileNotFoundError:
        raise GliosliceError(
            f"{file}: no such file; omit --slices to train without single slices"
        ) from None
    except (KeyError, ValueError, OSError, BadZipFile) as error:
        raise GliosliceError(f"{file}: not a file of single slices ({error})") from None
    labels = np.where(labels == 4, np.uint8(ENHANCING), labels)
    labels[~np.unpackbits(valid, axis=-1).astype(bool)] = IGNORE
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
