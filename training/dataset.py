"""Cases as slices on disk (float16, memory-mapped), split by patient, drawn by a seed."""

import hashlib
import random
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glioslice.cases import MODALITIES, CaseFiles, digest, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.files import read_json, whole, write_json
from glioslice.preprocessing import CLIP, WINDOW, brain_of, crop_of, cut, z_scores
from training.config import Recipe

BRATS_2023_NAME = re.compile(r"(BraTS-[A-Za-z]+-\d+)-\d{3}")


@dataclass(frozen=True)
class Slices:
    """One case, memory-mapped: images (Z, 160, 192, 4) float16, labels (Z, 160, 192) uint8."""

    case: str
    digest: str
    images: NDArray[np.float16]
    labels: NDArray[np.uint8]

    @cached_property
    def with_tumour(self) -> NDArray[np.intp]:
        """The indices of the slices that hold tumour."""
        return np.flatnonzero(self.labels.any(axis=(1, 2)))


def patient_of(case: str) -> str:
    """Return whose case it is: BraTS 2023 numbers a patient's visits in the last three digits."""
    match = BRATS_2023_NAME.fullmatch(case)
    return match[1] if match else case


def split(
    cases: list[CaseFiles], hold_out: str, seed: int
) -> tuple[list[CaseFiles], list[CaseFiles]]:
    """Return training and held-out cases, no patient in both.

    `hold_out` is a number of patients, drawn by `seed`, or names of cases with commas between.
    Raises GliosliceError if a name is unknown or nobody would be left to train on.
    """
    patients = sorted({patient_of(files.name) for files in cases})
    if hold_out.isdigit():
        out = set(random.Random(seed).sample(patients, min(int(hold_out), len(patients))))
    else:
        out = {patient_of(name.strip()) for name in hold_out.split(",")}
        if unknown := sorted(out - set(patients)):
            raise GliosliceError(f"--hold-out: no such case in the data: {', '.join(unknown)}")
    kept = [files for files in cases if patient_of(files.name) not in out]
    if not kept:
        raise GliosliceError(
            f"--hold-out {hold_out}: no patient of {len(patients)} is left to train"
        )
    return kept, [files for files in cases if patient_of(files.name) in out]


def prepare(files: CaseFiles, cache: Path) -> Slices:
    """Return a case's slices from `cache`, made there first where they are missing.

    Raises GliosliceError if the case has no expert mask, or is refused by `read_case`.
    """
    if files.mask is None:
        raise GliosliceError(f"{files.name}: no expert mask (seg), which training needs")
    key = _key(files)
    note, images, labels = (cache / f"{key}{end}" for end in (".json", ".npy", "-labels.npy"))
    if not note.is_file():  # written last: where it stands, the arrays are whole
        case = read_case(files)
        assert case.labels is not None
        brain = brain_of(case.images)
        crop = crop_of(brain)
        _save(images, cut(z_scores(case.images, brain), crop).astype(np.float16))
        _save(labels, cut(case.labels, crop))
        write_json(note, {"case": files.name, "digest": digest(case)})
    return Slices(
        files.name,
        read_json(note)["digest"],
        np.load(images, mmap_mode="r"),
        np.load(labels, mmap_mode="r"),
    )


def load_split(
    data: Path, hold_out: str, seed: int, cache: Path
) -> tuple[list[Slices], list[Slices]]:
    """Return the prepared training and held-out cases of the folder `data`."""
    kept, held_out = split(find_cases(data), hold_out, seed)
    return [prepare(f, cache) for f in kept], [prepare(f, cache) for f in held_out]


def draw_slices(
    cases: list[Slices], count: int, recipe: Recipe, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (B, 160, 192, 4) float16, labels (B, 160, 192), crop centres (B, 2).

    A patient is drawn first, then one of its slices, so that large tumours do not count twice. A
    crop does not reach past the window.
    """
    images = np.empty((count, *WINDOW, len(MODALITIES)), np.float16)
    labels = np.empty((count, *WINDOW), np.uint8)
    centres = np.empty((count, 2), np.float32)
    for i in range(count):
        case = cases[pick(len(cases), generator)]
        pool = case.with_tumour
        if len(pool) and float(torch.rand((), generator=generator)) < recipe.tumour:
            z = int(pool[pick(len(pool), generator)])
        else:
            z = pick(len(case.labels), generator)
        images[i], labels[i] = case.images[z], case.labels[z]
        near = float(torch.rand((), generator=generator)) < recipe.centred
        centres[i] = _centre(labels[i] if near else None, recipe.crop, generator)
    return (
        torch.from_numpy(images),
        torch.from_numpy(labels),
        torch.from_numpy(centres),
    )


def _centre(
    labels: NDArray[np.uint8] | None, crop: int, generator: torch.Generator
) -> NDArray[np.float64]:
    """Return the row and column to centre a crop on: anywhere, or near a voxel of tumour.

    Near is within a quarter of the crop, for slices whose `labels` are given and hold any.
    """
    room = np.maximum(np.array(WINDOW) - crop, 0) / 2  # how far the centre may move either way
    middle = (np.array(WINDOW) - 1) / 2
    shift = torch.rand(2, generator=generator, dtype=torch.float64).numpy() * 2 - 1
    tumour = np.flatnonzero(labels) if labels is not None else ()
    if not len(tumour):
        return middle + shift * room
    voxel = np.array(divmod(int(tumour[pick(len(tumour), generator)]), WINDOW[1]))
    centre: NDArray[np.float64] = np.clip(voxel + shift * crop / 4, middle - room, middle + room)
    return centre


def pick(below: int, generator: torch.Generator) -> int:
    """Return an index from 0 to `below` - 1."""
    return int(torch.randint(below, (), generator=generator))


def _key(files: CaseFiles) -> str:
    """Return a name that changes with the files or with what is made of them."""
    running = hashlib.sha256(f"{WINDOW} {CLIP} {files.scheme}".encode())
    for path in (*dict.fromkeys(files.images.values()), files.mask):
        assert path is not None
        state = path.stat()
        running.update(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
    return f"{files.name}-{running.hexdigest()[:16]}"


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with whole(path) as temporary:
        np.save(temporary, array)
