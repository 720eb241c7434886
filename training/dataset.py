"""The data set: cases as slices, split by patient, and pools from which batches are sampled.

On disk, a case is a memory-mapped float16 array. A pool holds the slices of all patients in the
memory of the device that trains, as int8, as a network receives them: 60 volumes take 1 GB. A pool
of volumes holds each volume a second time, resampled (`training.augment`), again for each epoch.
"""

import csv
import hashlib
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from glioslice.cases import CaseFiles, case_digest, find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import atomic_path, read_json, write_json
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import CLIP, WINDOW, brain_mask, extract_slices, find_crop, z_scores
from training.augment import random_resampling, resample_volume
from training.config import TrainingConfig

logger = logging.getLogger(__name__)

BRATS_2023_CASE = re.compile(r"(BraTS-[A-Za-z]+-\d+)-\d{3}")


IGNORE = 255
"""The label of pixels whose true label is unknown."""

PHANTOMS = range(9100, 9200)
"""Seeds of the synthetic heads that train; tests use low ones, calibration others."""

LOW, UNKNOWN = "low", "unknown"
"""Grades of a glioma, as in the column `grade` of the patients' table."""

STEP = CLIP / 127
"""Standard deviations of the brain per int8 step, as in the input of a network."""


@dataclass(frozen=True)
class CaseSlices:
    """A memory-mapped case: images (Z, 160, 192, 4) float16, labels (Z, 160, 192) uint8."""

    case: str
    digest: str
    images: NDArray[np.float16]
    labels: NDArray[np.uint8]
    grade: str = UNKNOWN


def patient_name(case: str) -> str:
    """Return the patient of a case; BraTS 2023 appends the visit's number in three digits."""
    match = BRATS_2023_CASE.fullmatch(case)
    return match[1] if match else case


def split_cases(
    cases: list[CaseFiles], hold_out: str, seed: int
) -> tuple[list[CaseFiles], list[CaseFiles]]:
    """Return the training and the held-out cases; no patient is in both.

    `hold_out` is a number of patients, sampled by `seed`, or comma-separated case names. Raises
    GliosliceError if a name is unknown or no patient is left for training.
    """
    patients = sorted({patient_name(files.name) for files in cases})
    if hold_out.isdigit():
        out = set(random.Random(seed).sample(patients, min(int(hold_out), len(patients))))
    else:
        out = {patient_name(name.strip()) for name in hold_out.split(",")}
        if unknown := sorted(out - set(patients)):
            raise GliosliceError(f"--hold-out: not in the data: {', '.join(unknown)}")
    kept = [files for files in cases if patient_name(files.name) not in out]
    if not kept:
        raise GliosliceError(
            f"--hold-out {hold_out}: none of {len(patients)} patients is left for training"
        )
    return kept, [files for files in cases if patient_name(files.name) in out]


def load_slices(files: CaseFiles, cache: Path) -> CaseSlices:
    """Return the slices of a case from `cache`; they are written there first if missing.

    Raises GliosliceError if the case has no ground truth or `read_case` refuses it.
    """
    if files.mask is None:
        raise GliosliceError(f"{files.name}: has no ground truth (seg), which training needs")
    key = _cache_key(files)
    note, images, labels = (cache / f"{key}{end}" for end in (".json", ".npy", "-labels.npy"))
    if not note.is_file():  # it is written last, so the arrays are complete if it exists
        logger.info("preparing the slices of %s", files.name)
        case = read_case(files)
        if case.labels is None:
            raise GliosliceError(f"{case.mask_problem}; training needs it")
        brain = brain_mask(case.images)
        crop = find_crop(brain)
        _save(images, extract_slices(z_scores(case.images, brain), crop).astype(np.float16))
        _save(labels, extract_slices(case.labels, crop))
        write_json(note, {"case": files.name, "digest": case_digest(case)})
    return CaseSlices(
        files.name,
        read_json(note)["digest"],
        np.load(images, mmap_mode="r"),
        np.load(labels, mmap_mode="r"),
    )


def load_phantoms(count: int, cache: Path) -> list[CaseSlices]:
    """Return the slices of `count` synthetic heads from `cache`; three of four are healthy."""
    return [_load_phantom(seed, seed % 4 == 0, cache) for seed in PHANTOMS[:count]]


def load_split(
    data: Path, hold_out: str, seed: int, cache: Path
) -> tuple[list[CaseSlices], list[CaseSlices]]:
    """Return the training and the held-out cases of the folder `data`."""
    kept, held_out = split_cases(find_cases(data), hold_out, seed)
    slices = [load_slices(f, cache) for f in track(kept + held_out, f"reading the cases of {data}")]
    return slices[: len(kept)], slices[len(kept) :]


def read_grades(table: Path) -> dict[str, str]:
    """Return a map of case to grade, from the columns `case` and `grade`.

    Without a column `grade`, all are unknown. Raises GliosliceError if there is no such table.
    """
    try:
        with table.open(newline="", encoding="utf-8") as file:
            return {row["case"]: row.get("grade", UNKNOWN) for row in csv.DictReader(file)}
    except FileNotFoundError:
        raise GliosliceError(f"{table}: no such file; it must map cases to grades") from None
    except KeyError as error:
        raise GliosliceError(f"{table}: the column {error} is missing") from None


def with_grades(cases: Sequence[CaseSlices], grades: dict[str, str]) -> list[CaseSlices]:
    """Return the cases with their grades; a case that is not in the table has an unknown one."""
    return [replace(case, grade=grades.get(case.case, UNKNOWN)) for case in cases]


def random_index(below: int, generator: torch.Generator) -> int:
    """Return a random index from 0 to `below` - 1."""
    return int(torch.randint(below, (), generator=generator))


def _load_phantom(seed: int, tumour: bool, cache: Path) -> CaseSlices:
    name = f"phantom-{seed}" if tumour else f"phantom-{seed}-healthy"
    images, labels = (cache / f"{name}{end}" for end in (".npy", "-labels.npy"))
    if not labels.is_file():  # it is written last
        logger.info("preparing the slices of %s", name)
        phantom = make_phantom(seed, tumour=tumour)
        brain = brain_mask(phantom.images)
        crop = find_crop(brain)
        _save(images, extract_slices(z_scores(phantom.images, brain), crop).astype(np.float16))
        _save(labels, extract_slices(phantom.labels, crop))
    return CaseSlices(name, "", np.load(images, mmap_mode="r"), np.load(labels, mmap_mode="r"))


def _cache_key(files: CaseFiles) -> str:
    """Return a name that changes if the files or the preparation change."""
    fingerprint = hashlib.sha256(f"{WINDOW} {CLIP} {files.scheme}".encode())
    for path in (*dict.fromkeys(files.images.values()), files.mask):
        assert path is not None
        state = path.stat()
        fingerprint.update(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}".encode())
    return f"{files.name}-{fingerprint.hexdigest()[:16]}"


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, array)


@dataclass(frozen=True, eq=False)
class SlicePool:
    """Images (N, 160, 192, 4) int8 and labels (N, 160, 192) uint8 on the device that trains.

    `patients` and `with_tumour` are the indices of each patient's slices, all and those that hold
    tumour. The tumour voxels of slice n are `voxels[first_voxel[n] : first_voxel[n + 1]]`, each
    row * 192 + column. `resampled` are the images after resampling, or None. `jitter` is the
    largest change of the slices' level and log spread.
    """

    images: Tensor
    labels: Tensor
    patients: tuple[NDArray[np.intp], ...]
    with_tumour: tuple[NDArray[np.intp], ...]
    grades: tuple[str, ...]
    first_voxel: NDArray[np.intp]
    voxels: NDArray[np.int64]
    resampled: Tensor | None = None
    jitter: float = 0.0


def to_int8(scores: Tensor) -> Tensor:
    """Return z-scores as int8 steps."""
    return (scores.float().clamp(-CLIP, CLIP) / STEP).round().to(torch.int8)


def make_pool(
    images: Sequence[NDArray[np.float16]],
    labels: Sequence[NDArray[np.uint8]],
    grades: Sequence[str],
    device: torch.device,
    *,
    jitter: float = 0.0,
    resampled: bool = False,
) -> SlicePool:
    """Return the pool of each patient's images (Z, 160, 192, 4), z-scores, and labels."""
    last = np.cumsum([0, *(len(part) for part in labels)])
    patients = tuple(np.arange(start, stop) for start, stop in pairwise(last))
    tumour = [np.flatnonzero((part > 0) & (part != IGNORE)) for part in labels]
    area = WINDOW[0] * WINDOW[1]
    per_slice = np.concatenate(
        [np.bincount(t // area, minlength=len(p)) for t, p in zip(tumour, labels, strict=True)]
    )
    pool = torch.cat([to_int8(torch.from_numpy(np.array(part)).to(device)) for part in images])
    return SlicePool(
        pool,
        torch.from_numpy(np.concatenate(labels)).to(device),
        patients,
        tuple(indices[per_slice[indices] > 0] for indices in patients),
        tuple(grades),
        np.concatenate([[0], np.cumsum(per_slice)]),
        np.concatenate(tumour).astype(np.int64) % area,
        pool.clone() if resampled else None,
        jitter,
    )


def pool_of_cases(cases: Sequence[CaseSlices], device: torch.device, resampled: bool) -> SlicePool:
    """Return the pool of the volumes; `resampled` volumes start as they are."""
    return make_pool(
        [case.images for case in cases],
        [case.labels for case in cases],
        [case.grade for case in cases],
        device,
        resampled=resampled,
    )


def resample_volumes(pool: SlicePool, config: TrainingConfig, generator: Generator) -> None:
    """Resample each volume of the pool again, each in its own way."""
    if pool.resampled is None:
        return
    for indices in pool.patients:
        part = slice(indices[0], indices[-1] + 1)
        scores = resample_volume(
            pool.images[part].float() * STEP, random_resampling(config, generator)
        )
        pool.resampled[part] = to_int8(scores)


def sample_slices(
    pool: SlicePool, count: int, config: TrainingConfig, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (B, 4, 160, 192) of z-scores, labels (B, 160, 192) and crop centres (B, 2).

    The patient is sampled first, then one of its slices, so that patients with large tumours do not
    count more. Crops stay inside the window.
    """
    uniform = torch.rand(count, 9, generator=generator, dtype=torch.float64).numpy()
    chosen = np.empty(count, np.int64)
    centres = np.empty((count, 2), np.float32)
    for i, numbers in enumerate(uniform):
        grade, which, tumour, index, centred, voxel, *shift, _ = numbers
        patient = random_patient(pool.grades, config.low_grade, grade, which)
        slices = pool.with_tumour[patient]
        if not len(slices) or tumour >= config.tumour:
            slices = pool.patients[patient]
        n = chosen[i] = slices[int(index * len(slices))]
        voxels = pool.voxels[pool.first_voxel[n] : pool.first_voxel[n + 1]]
        on = int(voxels[int(voxel * len(voxels))]) if len(voxels) else None
        centres[i] = crop_centre(on if centred < config.centred else None, config.crop, shift)
    device = pool.images.device
    where = torch.from_numpy(chosen).to(device)
    images = pool.images[where]
    if pool.resampled is not None:
        use = torch.from_numpy(uniform[:, -1] < config.resampled).to(device)
        images = torch.where(use[:, None, None, None], pool.resampled[where], images)
    images = images.permute(0, 3, 1, 2).float() * STEP  # (B, 4, 160, 192)
    if pool.jitter:
        change = 2 * torch.rand(2, count, images.shape[1], 1, 1, generator=generator) - 1
        factor, level = (change * pool.jitter).to(device)
        images = (images * torch.exp(factor) + level) * (images != 0)
    return images, pool.labels[where], torch.from_numpy(centres).to(device)


def random_patient(grades: Sequence[str], low_grade: float, grade: float, which: float) -> int:
    """Return the index of a patient, of low grade with probability `low_grade`.

    `grade` and `which` are random numbers from 0 to 1. With a probability of 0, or if there are no
    patients of low grade or no others, all patients are equally probable.
    """
    low = [i for i, name in enumerate(grades) if name == LOW]
    if low_grade == 0 or len(low) in (0, len(grades)):
        return int(which * len(grades))
    others = [i for i, name in enumerate(grades) if name != LOW]
    some = low if grade < low_grade else others
    return some[int(which * len(some))]


def crop_centre(voxel: int | None, crop: int, shift: Sequence[float]) -> NDArray[np.float64]:
    """Return row and column of a crop's centre; `shift` are two random numbers from 0 to 1.

    If a tumour `voxel` is given, it lies within a quarter of the crop around it, else anywhere.
    """
    room = np.maximum(np.array(WINDOW) - crop, 0) / 2  # largest shift in each direction
    middle = (np.array(WINDOW) - 1) / 2
    unit = 2 * np.asarray(shift) - 1
    if voxel is None:
        return middle + unit * room
    place = np.array(divmod(voxel, WINDOW[1]))
    centre: NDArray[np.float64] = np.clip(place + unit * crop / 4, middle - room, middle + room)
    return centre
