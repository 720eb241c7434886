"""Rigid registration by mutual information: a sequence to T1ce, and T1ce to a standard pose.

Every transform maps points of the fixed image to points of the moving one (`scanner.volumes`).
Nothing is resampled here but coarse copies for the search: the sequences are interpolated once, at
the end, by the transforms composed.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from glioslice.nifti import Space
from glioslice.phantom.head import make_reference
from scanner.volumes import (
    TO_LPS,
    Grid,
    Matrix,
    Volume,
    displacement,
    isotropic,
    resample,
    rotation_angle,
    to_itk,
    to_matrix,
)

BINS = 32
"""Bins of the joint histogram along each axis."""

LEVELS = (4.0, 0.5), (2.0, 0.08)
"""Voxels in mm of each level of the search, and the share of them that is sampled."""

MARGIN = 12.0
"""Width in mm around the brain that is compared too. The edges of skull and scalp fix the rotation:
without them, errors were ten times as large."""

ITERATIONS = 200
MIN_STEP = 0.01
"""Step in mm at which the search ends."""

PEAK_VOXEL = 3.0
PEAK_STEP = 2.0
"""mm and degrees from the found position at which the mutual information has to be lower. On voxels
of 3 mm a search that ended 2 mm and 2 degrees off is told from one that ended 0.5 mm off."""

SEED = 1

CASE_SHAPE = (240, 240, 155)
"""Voxels of a case at 1 mm, as in BraTS."""

REFERENCE_SHAPE = (120, 120, 78)
"""Voxels of the reference head, which are then 1.9 mm."""


@dataclass(frozen=True)
class Level:
    """A fixed image, blurred and coarse, where to compare it, and how densely."""

    image: sitk.Image
    mask: sitk.Image
    voxel: float
    share: float


@dataclass(frozen=True)
class Target:
    """What every sequence of a study is registered to, made once: a fixed image on each level.

    `near` is the brain and what is near it, on `grid`.
    """

    grid: Grid
    near: NDArray[np.bool_]
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Registration:
    """The transform from the fixed to the moving image, and the mutual information in nats.

    `before` belongs to the position that the headers give, `after` to `matrix`. `angle` in degrees
    and `shift` in mm, at the centre of the fixed image, are how far the two differ.
    """

    matrix: Matrix
    before: float
    after: float
    angle: float
    shift: float


def make_target(fixed: Volume, brain: NDArray[np.bool_]) -> Target:
    """Return what sequences are registered to: the brain of the fixed image and what is near it."""
    near = within(brain, fixed.grid, MARGIN)
    return Target(fixed.grid, near, tuple(_level(fixed, near, *level) for level in LEVELS))


def register(target: Target, moving: Volume) -> Registration:
    """Register `moving` rigidly to the target.

    The position of the headers is one start, the middle of the heads another; the better one leads
    to the search on two levels.
    """
    first, last = target.levels[0], target.levels[-1]
    images = [_coarse(moving, level.voxel) for level in target.levels]
    starts = [np.eye(4), _centring(target, moving)]
    best = starts[int(np.argmax([_information(first, images[0], start) for start in starts]))]
    for level, image in zip(target.levels, images, strict=True):
        best = _optimise(level, image, best)
    before, after = (_information(last, images[-1], matrix) for matrix in (np.eye(4), best))
    shift = displacement(best, target.grid.centre)
    return Registration(best, before, after, rotation_angle(best), shift)


def peak_margin(fixed: Volume, moving: Volume, near: NDArray[np.bool_], matrix: Matrix) -> float:
    """Return how much lower the mutual information is around a transform, as a share.

    Each of the six shifts and turns by PEAK_STEP is tried in both directions; the smallest loss
    counts. It is above 0 at a maximum, below 0 if a better position lies that near.
    """
    level, image = _level(fixed, near, PEAK_VOXEL, 1.0), _coarse(moving, PEAK_VOXEL)
    here = _information(level, image, matrix)
    if here <= 0:
        return -1.0
    centre = fixed.grid.centre
    around = max(
        _information(level, image, matrix @ _small_motion(axis, sign * PEAK_STEP, centre))
        for axis in range(6)
        for sign in (-1, 1)
    )
    return 1 - around / here


def align_to_reference(t1ce: Volume, brain: NDArray[np.bool_]) -> tuple[Matrix, Grid]:
    """Return the transform from the case's grid to T1ce, and the case's grid.

    The reference is the phantom's healthy head in a neutral pose: its coordinates were measured on
    the training cases, so the axial planes of the case are those that the network knows. The middle
    of the grid keeps its place in T1ce, so that the grids of two patients differ.
    """
    reference = reference_volume()
    stripped = Volume(np.where(brain, t1ce.voxels, np.float32(0)), t1ce.grid)
    inside = reference.voxels > 0
    near = within(inside, reference.grid, MARGIN)
    best = np.eye(4)
    best[:3, 3] = _middle(brain, t1ce.grid) - _middle(inside, reference.grid)
    level = _level(reference, near, *LEVELS[0])
    best = _optimise(level, _coarse(stripped, level.voxel), best)
    middle = best[:3, 3].copy()
    affine = np.asarray(Space.lps(CASE_SHAPE).affine, np.float64)
    affine[:3, 3] += TO_LPS[:3, :3] @ middle
    best[:3, 3] -= best[:3, :3] @ middle
    return best, Grid(CASE_SHAPE, affine)


def within(region: NDArray[np.bool_], grid: Grid, distance: float) -> NDArray[np.bool_]:
    """Return which voxels are at most `distance` mm from a region."""
    from scipy.ndimage import distance_transform_edt, find_objects

    result = np.zeros_like(region)
    for filled in find_objects(region.astype(np.uint8)):  # one box, or none
        box = tuple(
            slice(max(0, part.start - margin), part.stop + margin)
            for part, margin in zip(
                filled, np.ceil(distance / grid.spacing).astype(int), strict=True
            )
        )
        result[box] = distance_transform_edt(~region[box], sampling=grid.spacing) <= distance
    return result


def reference_volume() -> Volume:
    """Return the T1ce image of the reference head, at about 2 mm, centred at the origin."""
    image, voxel = make_reference(REFERENCE_SHAPE)
    affine = np.diag([-voxel, -voxel, voxel, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(REFERENCE_SHAPE) - 1) / 2)
    return Volume(image, Grid(REFERENCE_SHAPE, affine))


def _level(fixed: Volume, near: NDArray[np.bool_], voxel: float, share: float) -> Level:
    grid = isotropic(fixed.grid, voxel)
    region = resample(Volume(near.astype(np.float32), fixed.grid), grid, np.eye(4), "nearest")
    mask = sitk.Cast(to_itk(Volume(region, grid)), sitk.sitkUInt8)
    return Level(_coarse(fixed, voxel), mask, voxel, share)


def _coarse(volume: Volume, voxel: float) -> sitk.Image:
    """Return a volume in cubes of `voxel` mm; shorter axes are blurred against aliasing."""
    grid = isotropic(volume.grid, voxel)
    sigmas = [
        0.5 * max(new**2 - old**2, 0.01) ** 0.5
        for old, new in zip(volume.grid.spacing, grid.spacing, strict=True)
    ]
    blurred = sitk.SmoothingRecursiveGaussian(to_itk(volume), sigmas)
    return to_itk(Volume(resample(blurred, grid, np.eye(4)), grid))


def _centring(target: Target, moving: Volume) -> Matrix:
    """Return the shift from the middle of the fixed brain to that of the moving head."""
    bright = moving.voxels > 0.2 * float(np.percentile(moving.voxels, 99))
    matrix = np.eye(4)
    matrix[:3, 3] = _middle(bright, moving.grid) - _middle(target.near, target.grid)
    return matrix


def _middle(inside: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """Return the centre of mass of a region in LPS, in mm."""
    index = [
        float(np.average(np.arange(n), weights=inside.sum(axis=tuple({0, 1, 2} - {axis}))))
        for axis, n in enumerate(inside.shape)
    ]
    return np.asarray((TO_LPS @ grid.affine @ np.array([*index, 1.0]))[:3])


def _method(level: Level, share: float) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricFixedMask(level.mask)
    method.SetInterpolator(sitk.sitkLinear)
    if share < 1:
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(share, SEED)
    return method


def _euler(matrix: Matrix, centre: NDArray[np.float64]) -> sitk.Euler3DTransform:
    """Return a rigid matrix as angles about `centre` and a shift."""
    transform = sitk.Euler3DTransform()
    transform.SetCenter(tuple(centre))
    transform.SetMatrix(tuple(matrix[:3, :3].ravel()), 1e-4)
    transform.SetTranslation(tuple(matrix[:3, :3] @ centre + matrix[:3, 3] - centre))
    return transform


def _small_motion(axis: int, size: float, centre: NDArray[np.float64]) -> Matrix:
    """Return a shift in mm along one axis (0 to 2), or a turn in degrees about it (3 to 5)."""
    values = np.zeros(6)
    values[axis] = size
    turn = np.radians(values[3:])
    return to_matrix(sitk.Euler3DTransform(tuple(centre), *turn, tuple(values[:3])))


def _information(level: Level, moving: sitk.Image, matrix: Matrix) -> float:
    """Return the mutual information at `matrix`; 0 if the images hardly overlap."""
    method = _method(level, 1.0)
    method.SetInitialTransform(_euler(matrix, np.zeros(3)), inPlace=False)
    try:
        return -float(method.MetricEvaluate(level.image, moving))
    except RuntimeError:
        return 0.0


def _optimise(level: Level, moving: sitk.Image, start: Matrix) -> Matrix:
    """Return the best rigid transform near `start`; `start` itself if nothing overlaps there."""
    middle = [(n - 1) / 2 for n in level.image.GetSize()]
    centre = np.array(level.image.TransformContinuousIndexToPhysicalPoint(middle))
    method = _method(level, level.share)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=level.voxel / 2, minStep=MIN_STEP, numberOfIterations=ITERATIONS,
        relaxationFactor=0.7, gradientMagnitudeTolerance=1e-8,
    )  # fmt: skip
    method.SetOptimizerScalesFromPhysicalShift()
    transform = _euler(start, centre)
    method.SetInitialTransform(transform, inPlace=True)
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    # Several threads add up the gradient in any order, so a case differed from run to run.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        method.Execute(level.image, moving)
    except RuntimeError:
        return start
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return to_matrix(transform)
