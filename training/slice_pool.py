"""Slices in the memory of the device that trains, from which batches are sampled by a seed.

A pool holds the slices of all patients as int8, as a network receives them: 60 volumes take 1 GB. A
pool of volumes holds each volume a second time, resampled (`training.resampling`), again
for each epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from glioslice.preprocessing import CLIP, WINDOW
from training.config import TrainingConfig
from training.dataset import IGNORE, LOW, CaseSlices
from training.resampling import random_resampling, resample_volume

STEP = CLIP / 127
"""Standard deviations of the brain per int8 step, as in the input of a network."""


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
