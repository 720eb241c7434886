"""Geometric augmentation: rotation, scaling, mirroring, elastic deformation and cropping at once.

One resampling does it all, on the device of the batch. All random numbers derive from one CPU
generator (`BatchRandom`), so that an interrupted run resumes to the same result.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample, interpolate

MAX_ROTATION = math.radians(20)
MAX_LOG_SCALE = 0.2
"""Largest |log scale| of each axis."""
MAX_ELASTIC, ELASTIC_SHARE, KNOT_SPACING = 4.5, 0.7, 32
"""Elastic deformation: largest standard deviation in voxels, share of crops, pixels per knot."""


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
