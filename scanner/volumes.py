"""Volumes of any geometry, and resampling between their grids.

Affines map voxel indices to NIfTI's coordinates (RAS). Rigid transforms are 4 x 4 matrices in
DICOM's patient coordinates (LPS) in mm. They map a point of the case to the same point of the
source, so they are what a resampling of the source onto the case needs.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.nifti import Space, read_any_geometry

logger = logging.getLogger(__name__)

Matrix = NDArray[np.float64]
Voxels = NDArray[np.float32]

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MAX_SHEAR = 0.01
"""Largest cosine between two axes of a grid; a tilted gantry gives 0.1 and more."""

THIN = 1.5
"""Voxels longer than this in mm are sampled at several points when a mask comes back."""

SAME_PLACE = 0.5
"""mm by which the corners of two grids may differ that hold the same voxels."""

MIN_SIDE = 8
"""Fewest voxels along each axis of a volume that can be registered."""

MAX_SIDE = 600.0
"""Longest side in mm; copies in cubes of 1 mm are made, and a damaged header would fill memory."""

INTERPOLATORS = {
    "nearest": sitk.sitkNearestNeighbor,
    "linear": sitk.sitkLinear,
    "bspline": sitk.sitkBSpline,
}


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume are: its shape (X, Y, Z) and its affine to RAS."""

    shape: tuple[int, int, int]
    affine: Matrix

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Length of a voxel along each axis in mm."""
        return np.asarray(np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)))

    @property
    def centre(self) -> NDArray[np.float64]:
        """The centre of the volume in LPS, in mm."""
        middle = np.array([*((n - 1) / 2 for n in self.shape), 1.0])
        return np.asarray((TO_LPS @ self.affine @ middle)[:3])


@dataclass(frozen=True)
class Volume:
    """Voxels (X, Y, Z) float32 and their grid."""

    voxels: Voxels
    grid: Grid


def read_volume(path: Path) -> Volume:
    """Read a NIfTI file of any geometry.

    Raises GliosliceError, naming the file, if it is unusable: see `read_any_geometry`. It is also
    unusable if it has not the size of a head, is constant, or its axes are not perpendicular.
    """
    voxels, space = read_any_geometry(path)
    for problem in placement_problems(space):
        logger.warning("%s: %s", path, problem)
    volume = Volume(voxels, Grid(space.shape, np.asarray(space.affine, np.float64)))
    check_volume(volume, str(path))
    return volume


def placement_problems(space: Space) -> list[str]:
    """Return why the place of a NIfTI file's voxels is uncertain; empty if it is not."""
    qform, sform = space.forms
    if not qform and not sform:
        return ["the header states no orientation, so left and right may be swapped"]
    if qform and sform:
        forms = (space.header.get_qform(), space.header.get_sform())
        distance = corner_distance(*(Grid(space.shape, form) for form in forms))
        if distance > SAME_PLACE:
            return [f"qform and sform differ by {distance:.1f} mm; the sform is used"]
    return []


def check_volume(volume: Volume, name: str) -> None:
    """Raise GliosliceError, naming the volume, if it cannot be registered."""
    grid = volume.grid
    if min(grid.shape) < MIN_SIDE:
        raise GliosliceError(
            f"{name}: {' x '.join(map(str, grid.shape))} voxels are too few for a head; is it a "
            "localiser?"
        )
    if (sides := grid.spacing * grid.shape).max() > MAX_SIDE:
        raise GliosliceError(f"{name}: {sides.max():,.0f} mm along one side are no head")
    axes = grid.affine[:3, :3] / grid.spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > MAX_SHEAR:
        raise GliosliceError(f"{name}: its axes are not perpendicular; resample it first")
    if volume.voxels.min() == volume.voxels.max():
        raise GliosliceError(f"{name}: every voxel has the same value; export the series again")


def corner_distance(one: Grid, other: Grid) -> float:
    """Return how far the corners of a grid are from those of another in mm.

    The axes may point in other directions, as those of a flipped copy; infinite if the sides have
    other numbers of voxels.
    """
    if sorted(one.shape) != sorted(other.shape):
        return np.inf
    first, second = _corners(one), _corners(other)
    return float(np.linalg.norm(first[:, None] - second[None], axis=-1).min(axis=1).max())


def _corners(grid: Grid) -> Matrix:
    ends = np.array(np.meshgrid(*([0, n - 1] for n in grid.shape), indexing="ij")).reshape(3, -1)
    return np.asarray((grid.affine @ np.vstack([ends, np.ones(ends.shape[1])]))[:3].T)


def to_itk(volume: Volume) -> sitk.Image:
    """Return a volume as SimpleITK's image, which has its geometry in LPS."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.voxels.T))
    place(image, volume.grid)
    return image


def place(image: sitk.Image, grid: Grid) -> None:
    """Give `image` the geometry of `grid`."""
    affine = TO_LPS @ grid.affine
    # The nearest rotation: a header in float32 is perpendicular to five digits alone.
    left, _, right = np.linalg.svd(affine[:3, :3] / grid.spacing)
    image.SetSpacing(tuple(float(s) for s in grid.spacing))
    image.SetDirection(tuple((left @ right).ravel()))
    image.SetOrigin(tuple(affine[:3, 3]))


def to_transform(matrix: Matrix) -> sitk.AffineTransform:
    """Return a 4 x 4 matrix as SimpleITK's transform."""
    return sitk.AffineTransform(tuple(matrix[:3, :3].ravel()), tuple(matrix[:3, 3]))


def to_matrix(transform: sitk.Transform) -> Matrix:
    """Return a rigid or affine transform of SimpleITK as a 4 x 4 matrix."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - origin for axis in np.eye(3)]
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack(columns, axis=1)
    matrix[:3, 3] = origin
    return matrix


def resample(
    source: Volume | sitk.Image, grid: Grid, matrix: Matrix, interpolation: str = "linear"
) -> Voxels:
    """Return `source` on `grid`; `matrix` maps points of the grid to points of the source.

    Outside of the source it is 0.
    """
    image = to_itk(source) if isinstance(source, Volume) else source
    like = sitk.Image([int(n) for n in grid.shape], sitk.sitkUInt8)
    place(like, grid)
    result = sitk.Resample(
        image, like, to_transform(matrix), INTERPOLATORS[interpolation], 0.0, sitk.sitkFloat32
    )
    return np.asarray(sitk.GetArrayFromImage(result).T)


def region_on_grid(
    region: NDArray[np.bool_], region_grid: Grid, grid: Grid, matrix: Matrix
) -> NDArray[np.bool_]:
    """Return which voxels of `grid` the region fills by at least half.

    `matrix` maps points of `grid` to points of the region's grid. A long voxel, as of a thick
    slice, is sampled at several points along its length.
    """
    parts = [max(1, int(np.ceil(s / 1.0))) if s > THIN else 1 for s in grid.spacing]
    fine = finer(grid, (parts[0], parts[1], parts[2]))
    share = resample(Volume(region.astype(np.float32), region_grid), fine, matrix)
    for axis, count in enumerate(parts):
        shape = [*share.shape[:axis], grid.shape[axis], count, *share.shape[axis + 1 :]]
        share = share.reshape(shape).mean(axis=axis + 1)
    return np.asarray(share >= 0.5)


def finer(grid: Grid, parts: tuple[int, int, int]) -> Grid:
    """Return the grid with each voxel divided into `parts` along the axes."""
    scale = np.diag([*(1 / n for n in parts), 1.0])
    scale[:3, 3] = [(1 / n - 1) / 2 for n in parts]
    x, y, z = (size * n for size, n in zip(grid.shape, parts, strict=True))
    return Grid((x, y, z), grid.affine @ scale)


def isotropic(grid: Grid, voxel: float = 1.0) -> Grid:
    """Return the grid over the same box, along the same axes, with cubes of `voxel` mm."""
    sides = [max(1, round(n * s / voxel)) for n, s in zip(grid.shape, grid.spacing, strict=True)]
    scale = np.diag([*(voxel / grid.spacing), 1.0])
    corner = np.array([-0.5, -0.5, -0.5, 1.0])
    affine = grid.affine @ scale
    affine[:3, 3] += (grid.affine @ corner - affine @ corner)[:3]
    return Grid((sides[0], sides[1], sides[2]), affine)


def rotation_angle(matrix: Matrix) -> float:
    """Return the angle in degrees by which a rigid transform turns."""
    cosine = (np.trace(matrix[:3, :3]) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def displacement(matrix: Matrix, point: NDArray[np.float64]) -> float:
    """Return by how many mm a rigid transform moves `point` (LPS)."""
    return float(np.linalg.norm(matrix[:3, :3] @ point + matrix[:3, 3] - point))
