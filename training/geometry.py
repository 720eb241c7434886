"""Geometry of the augmentation: turn, scale, mirror, bend and crop, in one resampling.

On the device of the batch; random numbers come from one CPU generator (`Draw`), or from a seed that
it gives, so that a run can be resumed to the same result.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample, interpolate

TURN = math.radians(20)
STRETCH = 0.2
"""Largest |log scale| of each axis."""
BEND, BENDS, BEND_SPACING = 4.5, 0.7, 32
"""Elastic waves: largest standard deviation in voxels, share of crops, pixels between knots."""


def brain_in(images: Tensor) -> Tensor:
    """Return where images (B, 4, H, W) hold brain, (B, 1, H, W)."""
    return (images != 0).any(dim=1, keepdim=True)


class Draw:
    """Random numbers of shape (B, ...), made on the batch's device from a seed of the generator."""

    def __init__(self, like: Tensor, generator: Generator) -> None:
        self.device, self.count, self.generator = like.device, like.shape[0], generator
        seed = int(torch.randint(2**62, (), generator=generator))
        self.there = Generator(self.device).manual_seed(seed)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return numbers from `low` to `high`."""
        unit = torch.rand(self.count, *shape, generator=self.there, device=self.device)
        return low + (high - low) * unit

    def normal(self, *shape: int) -> Tensor:
        """Return numbers of mean 0 and deviation 1."""
        return torch.randn(self.count, *shape, generator=self.there, device=self.device)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """Return True with `probability`."""
        return self.uniform(0, 1, *shape) < probability

    def some(self, probability: float, each: int) -> tuple[Tensor, Tensor]:
        """Return the indices along B and `each` of what is chosen with `probability`.

        How many they are is known without waiting for a GPU.
        """
        chosen = torch.rand(self.count, each, generator=self.generator) < probability
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

    `centres` (B, 2) are the row and column that a crop is centred on, `zoom` the pixels of a crop
    to a voxel, `outside` the label beyond the image, where the crop is 0. Rows run from right to
    left of the patient: they alone are mirrored.
    """
    height, width = images.shape[-2:]
    grid = _voxels(centres, size, Draw(images, generator), zoom)
    # grid_sample wants (column, row), -1 and 1 at the outer edges of the image.
    edges = torch.tensor([width, height], device=images.device)
    grid = (2 * grid.flip(-1) + 1) / edges - 1
    brain = brain_in(images)
    moved = grid_sample(torch.cat([images, brain.float()], 1), grid, align_corners=False)
    # Beyond the image grid_sample gives 0.
    shifted = labels[:, None].float() - outside
    taken = grid_sample(shifted, grid, mode="nearest", align_corners=False)[:, 0] + outside
    moved, inside = moved[:, :-1], moved[:, -1:]
    return torch.where(inside > 0.5, moved, 0.0), taken.to(torch.uint8)


def _voxels(centres: Tensor, size: tuple[int, int], draw: Draw, zoom: float) -> Tensor:
    """Return the voxel (row, column) that each pixel is taken from, (B, *size, 2)."""
    angle = draw.uniform(-TURN, TURN)
    scale = torch.exp(draw.uniform(-STRETCH, STRETCH, 2)) / zoom
    rows = scale[:, 0] * torch.where(draw.chance(0.5), -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    matrix = torch.stack(
        [
            torch.stack([rows * cos, -rows * sin], 1),
            torch.stack([scale[:, 1] * sin, scale[:, 1] * cos], 1),
        ],
        1,
    )
    axes = [torch.arange(n, device=draw.device) - (n - 1) / 2 for n in size]
    pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 2)
    voxels = (pixels @ matrix.transpose(1, 2) + centres[:, None]).reshape(-1, *size, 2)
    strength = draw.uniform(0, BEND) * draw.chance(BENDS) / zoom
    knots = draw.normal(2, *(max(2, n // BEND_SPACING + 1) for n in size))
    waves = interpolate(
        knots * strength[:, None, None, None], size, mode="bicubic", align_corners=True
    )
    return voxels + waves.permute(0, 2, 3, 1)
