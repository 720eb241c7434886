"""Grids, smooth random fields and signed distances: what the phantom is built from. numpy only.

Fields are float32 on the grid (X, Y, Z) of a `VoxelGrid`. Distances are in mm of the full-size
head and positive inside. Blur and interpolation multiply a field by one small dense matrix per
axis: three matrix products, which BLAS computes faster than numpy gathers neighbours.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError

Field = NDArray[np.float32]

EXTENT = (152.0, 188.0, 150.0)
"""Box in mm that contains every phantom; its first two sides are within `preprocessing.WINDOW`."""

ORIGIN = (76.0, 93.0, 62.5)
"""Position of the origin, the anterior commissure, in the box in mm."""

MAX_VOXEL = 4.0
"""Largest voxel in mm at which ventricles and rim are still more than one voxel wide."""


@dataclass(frozen=True)
class VoxelGrid:
    """Voxels of `voxel` mm over the box; smooth fields are computed on every `stride`-th one."""

    shape: tuple[int, ...]
    voxel: float
    stride: int

    @property
    def coarse(self) -> tuple[int, ...]:
        """Shape of the coarse grid; its last point lies on or beyond the last voxel."""
        return tuple(-(-(size - 1) // self.stride) + 1 for size in self.shape)

    def points(self) -> Field:
        """Return the coordinates of the coarse grid in mm, (3, X, Y, Z)."""
        axes = [
            np.arange(size, dtype=np.float32) * (self.voxel * self.stride) - origin
            for size, origin in zip(self.coarse, ORIGIN, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"))

    def refine(self, field: Field) -> Field:
        """Interpolate a coarse field linearly to all voxels."""
        if self.stride == 1:
            return field
        return along_axes(
            [
                interpolation_matrix(n, self.stride, size)
                for n, size in zip(self.coarse, self.shape, strict=True)
            ],
            field,
        )

    def noise(self, rng: np.random.Generator, scale: float) -> Field:
        """Return smooth noise of `scale` mm on the coarse grid, mean 0 and standard deviation 1."""
        spacing = max(scale / (self.voxel * self.stride), 1.0)
        return spline_noise(rng, self.coarse, spacing)


def grid_for(shape: tuple[int, int, int]) -> VoxelGrid:
    """Return the grid of the largest head that fits `shape`, with voxels of at least 1 mm.

    Raises GliosliceError if its voxels would be larger than `MAX_VOXEL`.
    """
    least = tuple(int(np.ceil(extent / MAX_VOXEL)) for extent in EXTENT)
    if len(shape) != 3 or any(n < low for n, low in zip(shape, least, strict=True)):
        raise GliosliceError(
            f"a phantom of {' x '.join(map(str, shape))} voxels cannot hold a head; "
            f"choose at least {' x '.join(map(str, least))}"
        )
    voxel = max(1.0, *(extent / n for extent, n in zip(EXTENT, shape, strict=True)))
    # With small voxels, smooth fields are computed on every second one: an eighth of the work.
    box = tuple(int(extent / voxel + 1e-6) for extent in EXTENT)
    return VoxelGrid(box, voxel, 2 if voxel < 1.5 else 1)


def along_axes(matrices: list[Field], field: Field) -> Field:
    """Multiply `field` (X, Y, Z) by a matrix (new, old) along each axis."""
    x, y, z = matrices
    field = np.matmul(y, field @ z.T)
    flat: Field = x @ field.reshape(len(field), -1)
    return flat.reshape(-1, *field.shape[1:])


def interpolation_matrix(n: int, stride: int, size: int) -> Field:
    """Return the matrix (size, n) of linear interpolation from every `stride`-th voxel."""
    distance = np.abs(np.arange(size)[:, None] / stride - np.arange(n))
    return np.maximum(0, 1 - distance).astype(np.float32)


def gaussian_matrix(size: int, sigma: float) -> Field:
    """Return the matrix (size, size) of a Gaussian blur of `sigma` voxels, rows of sum 1."""
    steps = np.arange(size, dtype=np.float32)
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / max(sigma, 1e-3)) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def blur(field: Field, sigmas: tuple[float, float, float]) -> Field:
    """Blur `field` by Gaussians of `sigmas` voxels along X, Y and Z."""
    pairs = zip(field.shape, sigmas, strict=True)
    return along_axes([gaussian_matrix(size, sigma) for size, sigma in pairs], field)


def spline_noise(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> Field:
    """Return a cubic B-spline with N(0, 1) knots every `spacing` voxels, of unit variance."""
    matrices = []
    for size in shape:
        knots = int(np.ceil((size - 1) / spacing)) + 3
        t = np.abs(np.arange(size)[:, None] / spacing + 1 - np.arange(knots))
        weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.maximum(0, 2 - t) ** 3 / 6)
        # Rows of norm 1 give variance 1 everywhere, at knots and between them.
        matrices.append((weights / np.sqrt((weights**2).sum(1, keepdims=True))).astype(np.float32))
    knots_shape = [m.shape[1] for m in matrices]
    return along_axes(matrices, rng.standard_normal(knots_shape, np.float32))


def plane_waves(
    rng: np.random.Generator, points: Field, wavelength: float, count: int = 48
) -> Field:
    """Return a sum of random plane waves at `points` (3, X, Y, Z), standard deviation 1.

    All have about the same wavelength, so that the zeros are evenly spaced surfaces, like sulci.
    """
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = wavelength * rng.uniform(0.75, 1.35, (count, 1))
    k = (2 * np.pi * directions / lengths).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
    flat = points.reshape(3, -1)
    total = np.zeros(flat.shape[1], np.float32)
    for direction, phase in zip(k, phases, strict=True):
        total += np.cos(direction @ flat + phase)
    return (total * np.float32(np.sqrt(2 / count))).reshape(points.shape[1:])


def ellipsoid(
    points: Field, centre: tuple[float, ...], axes: tuple[float, ...], tilt: float = 0.0
) -> Field:
    """Return the distance to an ellipsoid, exact to first order at its surface.

    `tilt` is a rotation about the left-right axis in radians. Formula: I. Quilez, "ellipsoid sdf".
    """
    x, y, z = (p - np.float32(c) for p, c in zip(points, centre, strict=True))
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    y, z = cos * y + sin * z, cos * z - sin * y
    a, b, c = (np.float32(axis) for axis in axes)
    near = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + np.float32(1e-6)
    slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2) + np.float32(1e-6)
    return np.asarray(near * (1 - near) / slope)


def capsule(points: Field, path: tuple[tuple[float, float, float, float], ...]) -> Field:
    """Return the distance to a tapered tube through the points (x, y, z, radius) of `path`."""
    found = []
    for (*start, r0), (*stop, r1) in pairwise(path):
        axis = np.subtract(stop, start).astype(np.float32)
        offset = [p - np.float32(s) for p, s in zip(points, start, strict=True)]
        along = sum(o * a for o, a in zip(offset, axis, strict=True)) / np.float32(axis @ axis)
        along = np.clip(along, 0, 1)
        off = sum((o - along * a) ** 2 for o, a in zip(offset, axis, strict=True))
        found.append(np.float32(r0) + along * np.float32(r1 - r0) - np.sqrt(off))
    return reduce(np.maximum, found)


def soft_union(distances: list[Field], width: float) -> Field:
    """Return the distance to the union, smoothed over `width` mm at seams (log-sum-exp)."""
    top = reduce(np.maximum, distances)
    total = sum(np.exp((d - top) / np.float32(width)) for d in distances)
    return np.asarray(top + np.float32(width) * np.log(total), np.float32)


def inside(distance: Field, width: float) -> Field:
    """Return the fraction of each voxel that is inside: 0 to 1 over `width` mm around 0."""
    return np.clip(distance / np.float32(width) + np.float32(0.5), 0, 1)


def sheet(distance: Field, half: Field | float, width: float) -> Field:
    """Return the fraction of each voxel of `width` mm in a sheet of half thickness `half` mm."""
    return inside(distance + half, width) - inside(distance - half, width)
