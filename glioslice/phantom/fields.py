"""Grids, smooth random fields and soft shapes, the stuff that the phantom is made of. numpy only.

Fields are float32 on the grid (X, Y, Z) of a `Grid`; distances are in mm of the full-size head and
positive inside. Along each axis a field is blurred or interpolated by one small dense matrix: three
matrix products a field, which BLAS does faster than any gathering of neighbours.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError

Field = NDArray[np.float32]

EXTENT = (152.0, 188.0, 150.0)
"""Box in mm that holds any of our heads; its first two sides stay within `slices.WINDOW`."""

BELOW = (76.0, 93.0, 62.5)
"""How much of the box lies to the right of, in front of and below the origin, the AC-PC line."""

COARSEST = 4.0
"""Largest voxel in mm in which ventricles and rim are still more than one voxel wide."""


@dataclass(frozen=True)
class Grid:
    """Voxels of `voxel` mm over the box; anatomy is computed on every `stride`-th and refined."""

    shape: tuple[int, ...]
    voxel: float
    stride: int

    @property
    def coarse(self) -> tuple[int, ...]:
        """Shape of the coarse grid; its last point lies on or past the last voxel."""
        return tuple(-(-(size - 1) // self.stride) + 1 for size in self.shape)

    def points(self) -> Field:
        """Return the coarse points in mm, (3, X, Y, Z)."""
        axes = [
            np.arange(size, dtype=np.float32) * (self.voxel * self.stride) - below
            for size, below in zip(self.coarse, BELOW, strict=True)
        ]
        return np.stack(np.meshgrid(*axes, indexing="ij"))

    def refine(self, field: Field) -> Field:
        """Return a coarse field on all voxels, linearly interpolated."""
        if self.stride == 1:
            return field
        return along_axes(
            [linear(n, self.stride, size) for n, size in zip(self.coarse, self.shape, strict=True)],
            field,
        )

    def noise(self, rng: np.random.Generator, scale: float) -> Field:
        """Return smooth noise on the coarse grid: mean 0, deviation 1, grains of `scale` mm."""
        spacing = max(scale / (self.voxel * self.stride), 1.0)
        return spline_noise(rng, self.coarse, spacing)


def grid_for(shape: tuple[int, int, int]) -> Grid:
    """Return the grid of a head as large as `shape` admits, 1 mm where it has the room.

    Raises GliosliceError if voxels would be larger than `COARSEST`.
    """
    least = tuple(int(np.ceil(extent / COARSEST)) for extent in EXTENT)
    if len(shape) != 3 or any(n < low for n, low in zip(shape, least, strict=True)):
        raise GliosliceError(
            f"a phantom of {' x '.join(map(str, shape))} voxels cannot hold a head; "
            f"ask for at least {' x '.join(map(str, least))}"
        )
    voxel = max(1.0, *(extent / n for extent, n in zip(EXTENT, shape, strict=True)))
    # Where a voxel is small, what is smooth is computed on every second one: an eighth of the work.
    box = tuple(int(extent / voxel + 1e-6) for extent in EXTENT)
    return Grid(box, voxel, 2 if voxel < 1.5 else 1)


def along_axes(matrices: list[Field], field: Field) -> Field:
    """Return `field` (X, Y, Z) with a matrix (new, old) applied along each axis."""
    x, y, z = matrices
    field = np.matmul(y, field @ z.T)
    flat: Field = x @ field.reshape(len(field), -1)
    return flat.reshape(-1, *field.shape[1:])


def linear(n: int, stride: int, size: int) -> Field:
    """Return the (size, n) matrix of linear interpolation from every `stride`-th voxel."""
    distance = np.abs(np.arange(size)[:, None] / stride - np.arange(n))
    return np.maximum(0, 1 - distance).astype(np.float32)


def gaussian(size: int, sigma: float) -> Field:
    """Return the (size, size) matrix of a Gaussian blur, `sigma` in voxels, ends renormalised."""
    steps = np.arange(size, dtype=np.float32)
    weights = np.exp(-0.5 * ((steps[:, None] - steps) / max(sigma, 1e-3)) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def blur(field: Field, sigmas: tuple[float, float, float]) -> Field:
    """Return `field` blurred by Gaussians of `sigmas` voxels along X, Y and Z."""
    pairs = zip(field.shape, sigmas, strict=True)
    return along_axes([gaussian(size, sigma) for size, sigma in pairs], field)


def spline_noise(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> Field:
    """Return a cubic B-spline through N(0, 1) knots every `spacing` voxels, of unit variance."""
    matrices = []
    for size in shape:
        knots = int(np.ceil((size - 1) / spacing)) + 3
        t = np.abs(np.arange(size)[:, None] / spacing + 1 - np.arange(knots))
        weights = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.maximum(0, 2 - t) ** 3 / 6)
        # A row of norm 1 gives variance 1 everywhere, on knots and between them.
        matrices.append((weights / np.sqrt((weights**2).sum(1, keepdims=True))).astype(np.float32))
    knots_shape = [m.shape[1] for m in matrices]
    return along_axes(matrices, rng.standard_normal(knots_shape, np.float32))


def waves(rng: np.random.Generator, points: Field, wavelength: float, count: int = 48) -> Field:
    """Return a sum of plane waves at `points` (3, X, Y, Z), deviation 1: noise of one wavelength.

    Its zeros are a labyrinth of evenly spaced walls, as sulci are.
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

    `tilt` turns it about the left-right axis, in radians. Formula: I. Quilez, "ellipsoid sdf".
    """
    x, y, z = (p - np.float32(c) for p, c in zip(points, centre, strict=True))
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    y, z = cos * y + sin * z, cos * z - sin * y
    a, b, c = (np.float32(axis) for axis in axes)
    near = np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) + np.float32(1e-6)
    slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2 + (z / c**2) ** 2) + np.float32(1e-6)
    return np.asarray(near * (1 - near) / slope)


def capsule(points: Field, path: tuple[tuple[float, float, float, float], ...]) -> Field:
    """Return the distance to a tube through the stations (x, y, z, radius) of `path`, tapering."""
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
    """Return the distance to the union, its seams filled over `width` mm (log-sum-exp)."""
    top = reduce(np.maximum, distances)
    total = sum(np.exp((d - top) / np.float32(width)) for d in distances)
    return np.asarray(top + np.float32(width) * np.log(total), np.float32)


def inside(distance: Field, width: float) -> Field:
    """Return how much of each voxel is inside: 0 to 1 over `width` mm around distance 0."""
    return np.clip(distance / np.float32(width) + np.float32(0.5), 0, 1)


def sheet(distance: Field, half: Field | float, width: float) -> Field:
    """Return how much of each voxel of `width` mm a sheet of half thickness `half` mm fills."""
    return inside(distance + half, width) - inside(distance - half, width)
