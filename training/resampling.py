"""Resampling augmentation: slices as scanners and registration make them, not as BraTS has them.

BraTS volumes have voxels of 1 mm in a common space. A hospital's series have slices of several
millimetres, are interpolated once or twice on their way to a common space, and are not registered
perfectly. This module makes such a slice from neighbouring slices of a BraTS volume: through-plane
averaging and interpolation, and in-plane misregistration, separately for each modality.

Intensities are mixed as raw values are, with air `RAW_ZERO` standard deviations below the mean of
the brain: at the brain's edge, tissue is mixed with air.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from glioslice.cases import MODALITIES
from glioslice.preprocessing import CLIP
from training.augment import RAW_ZERO
from training.config import TrainingConfig

REFERENCE = MODALITIES.index("t1ce")
"""The modality that the others are registered to. It stays in place, as the ground truth does."""

LEAST_COVERAGE = 0.05
"""Smallest share of brain in a voxel that still counts as brain if air was mixed into it."""


@dataclass(frozen=True)
class Resampling:
    """How each modality of a slice is resampled; all fields but the last are (4,) or (4, 2).

    `thickness` in mm; `phase` is the position of one slice centre of the series relative to the
    slice that is made; `z_shift` (voxels), `shift` (voxels) and `angle` (radians) are the error of
    registration. `brain_first`: the brain was extracted before resampling, not after it.
    """

    thickness: NDArray[np.float64]
    phase: NDArray[np.float64]
    z_shift: NDArray[np.float64]
    shift: NDArray[np.float64]
    angle: NDArray[np.float64]
    brain_first: bool


def random_resampling(config: TrainingConfig, generator: torch.Generator) -> Resampling:
    """Return a random resampling: one to four thick series or none, three of them misregistered."""

    def uniform(low: float, high: float, *shape: int) -> NDArray[np.float64]:
        unit = torch.rand(*shape, generator=generator, dtype=torch.float64).numpy()
        scaled: NDArray[np.float64] = low + (high - low) * unit
        return scaled

    count = len(MODALITIES)
    thickness = np.ones(count)
    if uniform(0, 1, 1)[0] < config.thick:
        chosen = torch.randperm(count, generator=generator).numpy()
        chosen = chosen[: 1 + int(torch.randint(count, (), generator=generator))]
        thickness[chosen] = uniform(config.thick_from, config.thick_to, len(chosen))
    error = uniform(0, 1, count) < config.misregistered
    error[REFERENCE] = False
    return Resampling(
        thickness=thickness,
        phase=uniform(0, 1, count) * thickness,
        z_shift=uniform(-0.5, 0.5, count) * error,
        shift=uniform(-1, 1, count, 2) * error[:, None] * config.misregistered_shift,
        angle=uniform(-1, 1, count) * error * math.radians(config.misregistered_turn),
        brain_first=bool(uniform(0, 1, 1)[0] < 0.5),
    )


def slice_profile(
    thickness: float, phase: float, position: float = 0.0
) -> tuple[int, NDArray[np.float32]]:
    """Return offset of the first voxel and weights (n,) that make the value at `position`.

    A series has slices of `thickness` voxels centred at phase + k * thickness, each the mean over
    its thickness. The value is interpolated linearly between the two nearest. A thickness of 1 with
    a phase between voxels is what two linear interpolations do: there and back again.
    """
    below = phase + thickness * math.floor((position - phase) / thickness)
    upper = (position - below) / thickness
    first = math.floor(below - thickness / 2 + 0.5)
    voxels = np.arange(first, math.ceil(below + 1.5 * thickness - 0.5) + 1)

    def mean_over(centre: float) -> NDArray[np.float64]:
        high = np.minimum(voxels + 0.5, centre + thickness / 2)
        low = np.maximum(voxels - 0.5, centre - thickness / 2)
        overlap: NDArray[np.float64] = np.maximum(high - low, 0.0) / thickness
        return overlap

    weights = (1 - upper) * mean_over(below) + upper * mean_over(below + thickness)
    used = np.flatnonzero(weights > 1e-6)
    return first + int(used[0]), weights[used[0] : used[-1] + 1].astype(np.float32)


def resample_slice(volume: NDArray[np.float16], z: int, resampling: Resampling) -> Tensor:
    """Return slice `z` (X, Y, 4) float16 of a volume of z-scores (Z, X, Y, 4) after resampling.

    Beyond the volume lies air. A modality that is 0 in the whole brain stays 0.
    """
    profiles = [
        slice_profile(thickness, phase, shift)
        for thickness, phase, shift in zip(
            resampling.thickness, resampling.phase, resampling.z_shift, strict=True
        )
    ]
    low = max(z + min(first for first, _ in profiles), 0)
    high = min(z + max(first + len(weights) for first, weights in profiles), len(volume))
    brain = _slices(volume, low, high, REFERENCE) != 0
    inside = brain.float()
    raw = torch.empty(len(profiles), 2, *volume.shape[1:3])  # intensity, and coverage by brain
    for i, (first, profile) in enumerate(profiles):
        start, stop = max(z + first, 0), min(z + first + len(profile), len(volume))
        weights = torch.from_numpy(profile[start - z - first : stop - z - first])
        raw[i, 0] = torch.tensordot(weights, _slices(volume, start, stop, i).float(), 1)
        raw[i, 1] = torch.tensordot(weights, inside[start - low : stop - low], 1)
    raw[:, 0] += RAW_ZERO * raw[:, 1]
    _misregister(raw, resampling)
    if resampling.brain_first:
        mask = raw[:, 1].amax(0) > LEAST_COVERAGE
    else:  # air was no part of the images, so it is taken out of the mean
        mask = brain[z - low]
        raw[:, 0] /= raw[:, 1].clamp(min=0.25)
    scores = torch.where(mask, (raw[:, 0] - RAW_ZERO).clamp(-CLIP, CLIP), 0.0)
    return scores.half().permute(1, 2, 0)


def _slices(volume: NDArray[np.float16], start: int, stop: int, modality: int) -> Tensor:
    """Return slices of one modality; torch converts float16 much faster than numpy."""
    return torch.from_numpy(np.ascontiguousarray(volume[start:stop, :, :, modality]))


def _misregister(raw: Tensor, resampling: Resampling) -> None:
    """Turn and shift modalities of `raw` (4, 2, X, Y) in plane, in place."""
    moved = np.flatnonzero(resampling.shift.any(axis=1) | (resampling.angle != 0))
    if not len(moved):
        return
    height, width = raw.shape[2:]
    cos, sin = np.cos(resampling.angle[moved]), np.sin(resampling.angle[moved])
    down, right = resampling.shift[moved].T
    # affine_grid expects (column, row), with -1 and 1 at the outer edges of the image.
    matrix = np.stack(
        [
            np.stack([cos, -sin * height / width, 2 * right / width], 1),
            np.stack([sin * width / height, cos, 2 * down / height], 1),
        ],
        1,
    )
    size = [len(moved), *raw.shape[1:]]
    grid = affine_grid(torch.from_numpy(matrix).float(), size, align_corners=False)
    raw[moved] = grid_sample(raw[moved], grid, align_corners=False)
