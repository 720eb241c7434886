"""Resampling augmentation: volumes as scanners and registration make them, not as BraTS has them.

BraTS volumes have voxels of 1 mm in a common space. A hospital's series have slices of several
millimetres, are interpolated once or twice on their way to a common space, and are not registered
perfectly. This module makes such a volume from a BraTS volume: through-plane averaging and
interpolation, and in-plane misregistration, separately for each modality.

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
    """How each modality of a volume is resampled; all fields but the last are (4,) or (4, 2).

    `thickness` in mm; `phase` is the position of one slice centre of the series, in voxels;
    `z_shift`, `shift` (voxels) and `angle` (radians) are the error of registration. `brain_first`:
    the brain was extracted before resampling, not after it.
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


def series_weights(
    thickness: float, phase: float, count: int, shift: float = 0.0
) -> NDArray[np.float32]:
    """Return weights (count, count) that make each slice of a resampled series from a volume's.

    The series has slices of `thickness` voxels centred at phase + k * thickness, each the mean over
    its thickness. Row z is the value at z + shift, interpolated linearly between the two nearest. A
    thickness of 1 with a phase between voxels is what two linear interpolations do: there and back
    again. Rows of slices near the ends sum to less than 1: beyond the volume lies air.
    """
    position = np.arange(count) + shift
    below = phase + thickness * np.floor((position - phase) / thickness)
    upper = (position - below) / thickness
    voxels = np.arange(count)

    def mean_over(centre: NDArray[np.float64]) -> NDArray[np.float64]:
        high = np.minimum(voxels + 0.5, centre[:, None] + thickness / 2)
        low = np.maximum(voxels - 0.5, centre[:, None] - thickness / 2)
        overlap: NDArray[np.float64] = np.maximum(high - low, 0.0) / thickness
        return overlap

    weights = (1 - upper)[:, None] * mean_over(below) + upper[:, None] * mean_over(
        below + thickness
    )
    made: NDArray[np.float32] = weights.astype(np.float32)
    return made


def resample_volume(volume: Tensor, resampling: Resampling) -> Tensor:
    """Return a volume of z-scores (Z, X, Y, 4) float32 after resampling, on its device.

    Beyond the volume lies air. A modality that is 0 in the whole brain stays 0, but for rounding.
    """
    count, (height, width) = len(volume), volume.shape[1:3]
    brain = (volume != 0).any(-1)  # (Z, X, Y)
    # Intensity, and coverage by brain.
    raw = torch.empty(volume.shape[-1], 2, count, height, width, device=volume.device)
    inside = brain.float().reshape(count, -1)
    for i, (thickness, phase, shift) in enumerate(
        zip(resampling.thickness, resampling.phase, resampling.z_shift, strict=True)
    ):
        weights = torch.from_numpy(series_weights(thickness, phase, count, shift)).to(volume.device)
        raw[i, 0] = (weights @ volume[..., i].reshape(count, -1)).reshape(count, height, width)
        raw[i, 1] = (weights @ inside).reshape(count, height, width)
    raw[:, 0] += RAW_ZERO * raw[:, 1]
    _misregister(raw, resampling)
    if resampling.brain_first:
        mask = raw[:, 1].amax(0) > LEAST_COVERAGE
    else:  # air was no part of the images, so it is taken out of the mean
        mask = brain
        raw[:, 0] /= raw[:, 1].clamp(min=0.25)
    scores = torch.where(mask, (raw[:, 0] - RAW_ZERO).clamp(-CLIP, CLIP), 0.0)
    return scores.permute(1, 2, 3, 0)


def _misregister(raw: Tensor, resampling: Resampling) -> None:
    """Turn and shift modalities of `raw` (4, 2, Z, X, Y) in plane, in place."""
    moved = np.flatnonzero(resampling.shift.any(axis=1) | (resampling.angle != 0))
    if not len(moved):
        return
    height, width = raw.shape[-2:]
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
    slices = raw[moved].flatten(1, 2)  # (M, 2 * Z, X, Y)
    grid = affine_grid(
        torch.from_numpy(matrix).float().to(raw.device), list(slices.shape), align_corners=False
    )
    raw[moved] = grid_sample(slices, grid, align_corners=False).reshape(-1, *raw.shape[1:])
