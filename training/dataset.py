"""The data set: cases as memory-mapped float16 slices, split by patient."""

import csv
import hashlib
import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from glioslice.cases import CaseFiles, case_digest, find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import atomic_path, read_json, write_json
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import CLIP, WINDOW, brain_mask, extract_slices, find_crop, z_scores

logger = logging.getLogger(__name__)

BRATS_2023_CASE = re.compile(r"(BraTS-[A-Za-z]+-\d+)-\d{3}")


IGNORE = 255
"""The label of pixels whose true label is unknown."""

PHANTOMS = range(9100, 9200)
"""Seeds of the synthetic heads that train; tests use low ones, calibration others."""

LOW, UNKNOWN = "low", "unknown"
"""Grades of a glioma, as in the column `grade` of the patients' table."""


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
