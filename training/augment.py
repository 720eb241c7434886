"""Augmentation: geometry and intensities of crops, and resampling of whole volumes.

- `warp` rotates, scales, mirrors, deforms and crops images and labels at once, by one resampling
  on the device of the batch.
- `augment` changes the intensities of z-scored crops as they differ between scanners; without it 30
  patients are memorised within minutes. Values stay z-scores: 0 outside the brain, clipped to
  +-CLIP.
- `resample_volume` makes of a BraTS volume, with voxels of 1 mm in a common space, what hospitals
  have: series with slices of several millimetres, interpolated once or twice on their way to a
  common space and not registered perfectly. It averages and interpolates through plane and
  misregisters in plane, separately for each modality. Intensities are mixed as raw values are, with
  air `RAW_ZERO` standard deviations below the mean of the brain: at the brain's edge, tissue is
  mixed with air.

All random numbers of a batch derive from one CPU generator (`BatchRandom`), so that an interrupted
run resumes to the same result.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, interpolate

from glioslice.cases import MODALITIES
from glioslice.preprocessing import CLIP
from training.config import TrainingConfig

MAX_ROTATION = math.radians(20)
MAX_LOG_SCALE = 0.2
"""Largest |log scale| of each axis."""
MAX_ELASTIC, ELASTIC_SHARE, KNOT_SPACING = 4.5, 0.7, 32
"""Elastic deformation: largest standard deviation in voxels, share of crops, pixels per knot."""

RAW_ZERO = 4.0
"""Air lies about this many standard deviations below the brain's mean: z + RAW_ZERO resembles a raw
intensity."""

MISSING = {
    "t1 t2": 0.30, "t1": 0.11, "t2": 0.14,
    "flair": 0.17, "flair t1": 0.05, "flair t2": 0.05, "flair t1 t2": 0.06,
    "t1ce": 0.04, "t1 t1ce": 0.02, "t1ce t2": 0.02, "t1 t1ce t2": 0.04,
}  # fmt: skip
"""Subsets of modalities that may be missing, and their shares among crops that lack any.

Each of these leaves T1ce or FLAIR. Many hospitals have T1ce and FLAIR alone. FLAIR is missing more
often than T1ce, because the enhancing tumour cannot be seen without T1ce.
"""

REFERENCE = MODALITIES.index("t1ce")
"""The modality that the others are registered to. It stays in place, as the ground truth does."""

LEAST_COVERAGE = 0.05
"""Smallest share of brain in a voxel that still counts as brain if air was mixed into it."""


def brain_pixels(images: Tensor) -> Tensor:
    """Return where images (B, 4, H, W) hold brain, (B, 1, H, W)."""
    return (images != 0).any(dim=1, keepdim=True)


class BatchRandom:
    """Random numbers of shape (B, ...), drawn on the batch's device, seeded by the generator."""

    def __init__(self, batch: Tensor, generator: Generator) -> None:
        self.device, self.count, self.generator = batch.device, batch.shape[0], generator
        seed = int(torch.randint(2**62, (), generator=generator))
        self.device_generator = Generator(self.device).manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return numbers from `low` to `high`."""
        unit = torch.rand(self.count, *shape, generator=self.device_generator, device=self.device)
        return low + (high - low) * unit

    def normal(self, *shape: int) -> Tensor:
        """Return numbers of mean 0 and standard deviation 1."""
        return torch.randn(self.count, *shape, generator=self.device_generator, device=self.device)

    def bernoulli(self, probability: float, *shape: int) -> Tensor:
        """Return booleans that are True with `probability`."""
        return self.uniform(0, 1, *shape) < probability

    def choose(self, probability: float, per_item: int) -> tuple[Tensor, Tensor]:
        """Return indices into (B, per_item) of elements chosen with `probability`.

        The choice is made on the CPU: how many there are is known without waiting for a GPU.
        """
        chosen = torch.rand(self.count, per_item, generator=self.generator) < probability
        row, column = torch.nonzero(chosen, as_tuple=True)
        return row.to(self.device), column.to(self.device)


def warp(
    images: Tensor,
    labels: Tensor,
    centres: Tensor,
    size: tuple[int, int],
    generator: Generator,
    *,
    zoom: float = 1.0,
    outside: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return crops (B, C, *size) and labels (B, *size) of images (B, C, H, W), labels (B, H, W).

    `centres` (B, 2) are the row and column at the middle of each crop, `zoom` is the number of
    pixels per voxel, `outside` is the label beyond the image, where crops are 0. Rows run from the
    patient's right to left, so only they are mirrored.
    """
    height, width = images.shape[-2:]
    grid = _source_voxels(centres, size, BatchRandom(images, generator), zoom)
    # grid_sample expects (column, row), with -1 and 1 at the outer edges of the image.
    edges = torch.tensor([width, height], device=images.device)
    grid = (2 * grid.flip(-1) + 1) / edges - 1
    brain = brain_pixels(images)
    moved = grid_sample(torch.cat([images, brain.float()], 1), grid, align_corners=False)
    # grid_sample pads with 0, so labels are shifted to make `outside` the padding.
    shifted = labels[:, None].float() - outside
    moved_labels = grid_sample(shifted, grid, mode="nearest", align_corners=False)[:, 0] + outside
    moved, inside = moved[:, :-1], moved[:, -1:]
    return torch.where(inside > 0.5, moved, 0.0), moved_labels.to(torch.uint8)


def _source_voxels(
    centres: Tensor, size: tuple[int, int], random: BatchRandom, zoom: float
) -> Tensor:
    """Return the voxel (row, column) that each pixel is sampled from, (B, *size, 2)."""
    angle = random.uniform(-MAX_ROTATION, MAX_ROTATION)
    scale = torch.exp(random.uniform(-MAX_LOG_SCALE, MAX_LOG_SCALE, 2)) / zoom
    rows = scale[:, 0] * torch.where(random.bernoulli(0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    matrix = torch.stack(
        [
            torch.stack([rows * cos, -rows * sin], 1),
            torch.stack([scale[:, 1] * sin, scale[:, 1] * cos], 1),
        ],
        1,
    )
    axes = [torch.arange(n, device=random.device) - (n - 1) / 2 for n in size]
    pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 2)
    voxels = (pixels @ matrix.transpose(1, 2) + centres[:, None]).reshape(-1, *size, 2)
    strength = random.uniform(0, MAX_ELASTIC) * random.bernoulli(ELASTIC_SHARE) / zoom
    knots = random.normal(2, *(max(2, n // KNOT_SPACING + 1) for n in size))
    displacement = interpolate(
        knots * strength[:, None, None, None], size, mode="bicubic", align_corners=True
    )
    return voxels + displacement.permute(0, 2, 3, 1)


def augment(images: Tensor, missing: float, generator: Generator) -> Tensor:
    """Return an augmented copy of images (B, 4, H, W); a share `missing` lacks modalities."""
    brain = brain_pixels(images)
    images = _blur_and_noise(_change_intensities(images, generator), generator)
    images = torch.where(brain, images, 0.0).clamp(-CLIP, CLIP)
    return _drop_modalities(images, missing, generator)


def _change_intensities(images: Tensor, generator: Generator) -> Tensor:
    """Change contrast, brightness and gamma and add a bias field, for each modality separately."""
    random, (_, channels, height, width) = BatchRandom(images, generator), images.shape
    knots = random.normal(channels, 4, 4) * random.uniform(0, 0.12, channels, 1, 1)
    chosen = random.choose(0.5, channels)  # interpolation is slow, so only half get a bias field
    raw = (images + RAW_ZERO).clamp(min=0)
    field = interpolate(knots[chosen][:, None], (height, width), mode="bicubic", align_corners=True)
    raw[chosen] *= torch.exp(field)[:, 0]
    each = (channels, 1, 1)
    gamma = torch.exp(random.uniform(-0.3, 0.3, *each) * random.bernoulli(0.5, *each))
    # Gamma pivots on the brain's mean: z = 0 stays 0.
    images = RAW_ZERO * (raw / RAW_ZERO).clamp(min=1e-3) ** gamma - RAW_ZERO
    contrast = torch.exp(random.uniform(-0.25, 0.25, *each))
    return images * contrast + random.uniform(-0.3, 0.3, *each)


def _blur_and_noise(images: Tensor, generator: Generator) -> Tensor:
    """Blur some modalities in plane, as motion does, then add noise to some."""
    random, channels = BatchRandom(images, generator), images.shape[1]
    offsets = torch.arange(-3, 4, device=images.device)
    sigma = float(torch.rand((), generator=generator)) * 1.0 + 0.3
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).reshape(1, 1, 1, 7)
    chosen = random.choose(0.2, channels)
    sharp = images[chosen]
    blurred = conv2d(sharp[:, None], kernel, padding=(0, 3))
    images[chosen] = conv2d(blurred, kernel.transpose(2, 3), padding=(3, 0))[:, 0]
    level = random.uniform(0, 0.3, channels, 1, 1) * random.bernoulli(0.3, channels, 1, 1)
    return images + level * random.normal(*images.shape[1:])


def _drop_modalities(images: Tensor, missing: float, generator: Generator) -> Tensor:
    """Set the modalities of one of MISSING to 0 in a share `missing` of the crops."""
    shares = torch.tensor(list(MISSING.values()), device=images.device)
    starts = 1 - missing * (1 - (shares.cumsum(0) - shares) / shares.sum())  # below all: complete
    subset = BatchRandom(images, generator).uniform(0, 1)[:, None] >= starts[None]
    present = torch.ones(len(MISSING) + 1, len(MODALITIES), device=images.device)
    for i, names in enumerate(MISSING, 1):
        present[i, [MODALITIES.index(name) for name in names.split()]] = 0.0
    return images * present[subset.sum(1)][:, :, None, None]


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
    else:  # air was not part of the images, so it is taken out of the mean
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
