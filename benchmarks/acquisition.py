"""What a scanner gives of a head that lies anywhere: slices of any thickness, as volumes.

benchmarks/scanner_studies.py measures with it, and the tests of the scanner write its volumes as
DICOM series.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanner.volumes import Grid, Matrix, Volume, Voxels, resample

MAX_TURN, MAX_MOVE = 8.0, 8.0
"""Degrees and mm by which the patient moves at most before each sequence."""


@dataclass(frozen=True)
class Acquisition:
    """A series as a volume; `pose` maps points of the series to points of the head."""

    volume: Volume
    pose: Matrix


def random_pose(rng: np.random.Generator, turn: float = MAX_TURN, move: float = MAX_MOVE) -> Matrix:
    """Return a rigid transform of at most `turn` degrees and `move` mm."""
    axis, direction = rng.standard_normal((2, 3))
    return rigid(axis, rng.uniform(0.3, 1) * turn, direction, rng.uniform(0.3, 1) * move)


def rigid(
    axis: NDArray[np.float64], degrees: float, direction: NDArray[np.float64], mm: float
) -> Matrix:
    """Return the turn about `axis` by `degrees`, then the shift along `direction` by `mm`."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    matrix = np.eye(4)
    matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix[:3, 3] = mm * direction / np.linalg.norm(direction)
    return matrix


def acquire(
    head: Volume,
    pose: Matrix,
    thickness: float,
    *,
    in_plane: float = 1.0,
    gap: float = 0.0,
    field: tuple[int, int] = (240, 240),
    oblique: Matrix | None = None,
) -> Acquisition:
    """Return what a scanner gives of a head that lies at `pose`: slices of `thickness` mm.

    Each slice is the mean of the tissue in it; between two slices lies a gap. `field` is the number
    of columns and rows, `oblique` turns the planes, which are axial without it.
    """
    length = head.grid.shape[2] * head.grid.spacing[2]
    step = thickness + gap
    count = int(length // step)
    affine = np.diag([-in_plane, -in_plane, step, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array([*field, count]) - 1) / 2)
    if oblique is not None:
        affine = oblique @ affine
    grid = Grid((*field, count), affine)
    parts = max(1, round(thickness))
    # Samples of the slice alone: what lies in the gap between two slices is not measured.
    slab = [
        resample(head, Grid(grid.shape, grid.affine @ _shift(offset / step)), pose)
        for offset in (np.arange(parts) + 0.5) / parts * thickness - thickness / 2
    ]
    return Acquisition(Volume(np.mean(slab, axis=0, dtype=np.float32), grid), pose)


def _shift(voxels: float) -> Matrix:
    """Return the shift along the slice axis."""
    shift = np.eye(4)
    shift[2, 3] = voxels
    return shift


def limb(like: Volume) -> Voxels:
    """Return a limb in cross-section: skin, fat, muscle and two bones along the slice axis."""
    x, y, z = like.grid.shape
    across, front = np.meshgrid(np.arange(x) - x / 2, np.arange(y) - y / 2, indexing="ij")
    radius = np.hypot(across, front * 1.15)
    plane = np.where(radius < 62, 900.0, 5.0)
    plane[radius < 52] = 420.0
    for centre in (-14, 18):
        bone = np.hypot(across - centre, front - centre / 3)
        plane[bone < 14] = 40.0
        plane[bone < 10] = 750.0
    noise = np.random.default_rng(0).normal(0, 12, (x, y, z))
    return np.asarray(np.maximum(plane[..., None] + noise, 0), np.float32)
