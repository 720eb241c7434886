"""A procedural head with or without a glioma: simulated MR images and their ground truth.

The tumour is a high-grade glioma with its mass effect and edema. The demo, tests, benchmarks and
conversion without cases use phantoms; `glioslice train --phantoms` trains on some, with seeds that
nothing else uses. numpy only, so that a board can make one too. Distances are in mm, positive
inside; fields are float32 on a `VoxelGrid`. The same seed gives the same bytes on the same machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioslice.labels import CORE, EDEMA, ENHANCING
from glioslice.phantom.anatomy import NUCLEI, Head, brain_outline, make_head
from glioslice.phantom.fields import (
    Field,
    VoxelGrid,
    blur,
    grid_for,
    inside,
)

RETENTION = 0.75
"""Share of the edema's water that remains after each step of diffusion in white matter."""

SEEDS: tuple[int, ...] = tuple(range(10))
"""The phantoms that tests and benchmarks use."""

# Intensity of each tissue as a z-score over the brain: (flair, t1, t1ce, t2).
# Medians over the 39 training cases, of eroded tissue classes, positions in the mean image, and the
# ground truth.
CONTRAST = {
    "white": (-0.15, 0.97, 0.60, -0.62),
    "stem": (-0.35, 0.30, 0.25, -0.40),
    "grey": (0.35, -0.35, -0.30, -0.05),
    "striatum": (-0.35, 0.30, 0.25, -0.40),
    "thalamus": (-0.10, 0.40, 0.30, -0.35),
    "pallidum": (-0.55, 0.60, 0.50, -0.80),
    "lining": (0.80, 0.30, 0.20, 0.10),
    "fluid": (-2.30, -2.30, -1.90, 3.60),
    "ventricle": (-2.60, -2.40, -2.10, 4.00),
    "plexus": (-0.50, -0.80, 3.00, 2.00),
    "blood": (-1.20, -0.60, 5.00, -0.60),
    "edema": (1.80, 0.12, -0.12, 0.85),
    "core": (1.10, -1.00, -0.90, 2.00),
    "enhancing": (1.70, 0.05, 2.30, 0.90),
}

# Mean of the raw intensities and noise, both in standard deviations: medians over the same cases.
LEVEL = (3.1, 4.0, 3.7, 2.4)
NOISE = (0.11, 0.09, 0.10, 0.09)


@dataclass(frozen=True)
class TumourSite:
    """Centre (x, y, z), radius and reach of the edema in mm, drawn before the anatomy."""

    centre: tuple[float, float, float]
    radius: float
    reach: float


@dataclass(frozen=True)
class Tumour:
    """The fraction of each voxel that is edema, necrotic core or enhancing tumour.

    `wetness` is the edema weighted by how much it changes the contrast, 1 on average.
    """

    edema: Field
    wetness: Field
    core: Field
    enhancing: Field


def draw_site(rng: np.random.Generator) -> TumourSite:
    """Return a random site in frontal, parietal or temporal white matter."""
    side = rng.choice([-1.0, 1.0])
    lobes = (((32.0, -30.0, 24.0), 7.0), ((33.0, 28.0, 34.0), 7.0), ((43.0, 12.0, -2.0), 4.0))
    lobe, spread = lobes[rng.choice(3, p=[0.4, 0.35, 0.25])]
    x, y, z = rng.normal(lobe, spread).clip(np.subtract(lobe, 9), np.add(lobe, 9))
    # Core and rim of high-grade training cases have a median of 27 mL, a radius of 19 mm.
    return TumourSite(
        (float(side * x), float(y), float(z)), rng.uniform(14, 21), rng.uniform(11, 20)
    )


def displace(points: Field, site: TumourSite, skull: Field) -> Field:
    """Return where the tissue at `points` was before the tumour displaced it (mass effect).

    A third of the tumour's volume displaces tissue, the rest replaces it. The skull does not move.
    """
    offset = points - np.array(site.centre, np.float32)[:, None, None, None]
    r = np.sqrt((offset**2).sum(0)) + np.float32(1e-3)
    before = np.cbrt(np.maximum(r**3 - 0.33 * site.radius**3, 0.05 * r**3))
    compliance = np.exp(-((r / 50) ** 2)) * np.clip(skull / 12, 0, 1)
    return np.asarray(points + offset * (compliance * (before / r - 1)), np.float32)


def make_tumour(
    rng: np.random.Generator, grid: VoxelGrid, points: Field, site: TumourSite, head: Head
) -> Tumour:
    """Return the tumour at `site` in `head`; `points` are the coarse, undisplaced points."""
    refine = grid.refine
    offset = points - np.array(site.centre, np.float32)[:, None, None, None]
    stretch = rng.uniform(0.85, 1.18, 3).astype(np.float32)
    r = np.sqrt(((offset / stretch[:, None, None, None]) ** 2).sum(0))
    lobed = site.radius - r + 3.5 * grid.noise(rng, 20) + 1.6 * grid.noise(rng, 8)
    fluid = np.maximum(head.fraction("fluid"), head.fraction("ventricle"))
    bounds = np.minimum(head.depth - 1.5, float(np.sign(site.centre[0])) * head.across - 1.5)
    bulk = np.minimum(np.minimum(refine(lobed), bounds), -head.ventricle - 1)

    # An enhancing rim of varying thickness with gaps; strands of it run through the core.
    thickness = refine(3.2 + 2.1 * grid.noise(rng, 11))
    strand = refine(np.abs(grid.noise(rng, 10))) < 0.18
    shell = np.where(strand & (bulk < 9), 2.0, thickness - bulk)
    solid = inside(bulk, 1.5)
    enhancing = solid * inside(shell, 2.0) * inside(thickness - 1.2, 0.8)

    spread = refine(edema_distance(grid, head, fluid, lobed) + 2.0 * grid.noise(rng, 14))
    edema = inside(site.reach - spread, 4.0) * (bounds > 0) * (1 - solid)
    wetness = edema * refine(1 + 0.15 * grid.noise(rng, 10))
    return Tumour(edema, wetness, solid - enhancing, enhancing)


def edema_distance(grid: VoxelGrid, head: Head, fluid: Field, lobed: Field) -> Field:
    """Return the distance in mm from the tumour through tissue, on the coarse grid.

    Water spreads along white matter, hardly enters grey matter and stops at fluid. Steady diffusion
    with loss decays exponentially with the length of the shortest path (the "heat method" of
    K. Crane et al., ACM TOG 2013), so its logarithm gives that length.
    """
    s = grid.stride
    sizes = grid.coarse
    grey = np.maximum(head.fraction("grey"), head.fraction("thalamus"))
    grey = np.maximum(grey, head.fraction("striatum"))
    tissue = np.zeros((2, *sizes), np.float32)
    for field, source in zip(tissue, (fluid, grey), strict=True):
        averaged = blur(source, (0.6, 0.6, 0.6))[::s, ::s, ::s]
        field[tuple(slice(n) for n in averaged.shape)] = averaged
    passing = RETENTION * (1 - 0.8 * tissue[1]) * np.clip(1 - 1.6 * tissue[0], 0, 1)
    source = (lobed > -1).astype(np.float32)
    water = source
    for _ in range(int(30 / (grid.voxel * s))):
        water = np.maximum(blur(water, (1.0, 1.0, 1.0)) * passing, source)
    # A blur step scales a front exp(-d / length) by exp(1 / (2 length^2)), which RETENTION cancels.
    length = grid.voxel * s / np.sqrt(-2 * np.log(RETENTION))
    return np.asarray(-np.log(water + np.float32(1e-12)) * np.float32(length), np.float32)


@dataclass(frozen=True)
class Phantom:
    """A skull-stripped case in LPS orientation.

    `images` (4, X, Y, Z) float32 are flair, t1, t1ce, t2 in raw units: positive in the brain, 0
    outside. `labels` (X, Y, Z) uint8 are 1 core, 2 edema, 3 enhancing tumour.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]


def make_phantom(
    seed: int, *, tumour: bool = True, shape: tuple[int, int, int] = (240, 240, 155)
) -> Phantom:
    """Return the phantom of `seed` in a volume of `shape`, at 1 mm if it fits, else smaller.

    With `tumour` False it is the same head, healthy. Raises GliosliceError if `shape` is too small.
    """
    grid = grid_for(shape)
    # One random generator per part, so that a head without tumour has the same anatomy.
    anatomy, growth, scanner = (np.random.default_rng([seed, part]) for part in range(3))
    undisplaced = draw_pose(anatomy, grid)
    skull = brain_outline(undisplaced) + np.float32(0.8) * grid.noise(anatomy, 12)
    if tumour:
        site = draw_site(growth)
        head = make_head(anatomy, grid, displace(undisplaced, site, skull), skull)
        lesion = make_tumour(growth, grid, undisplaced, site, head)
    else:
        head, lesion = make_head(anatomy, grid, undisplaced, skull), None
    images = simulate_images(scanner, grid, head, lesion)
    labels = np.zeros(grid.shape, np.uint8) if lesion is None else ground_truth(head, lesion)
    box = tuple(
        slice((n - size) // 2, (n - size) // 2 + size)
        for n, size in zip(shape, grid.shape, strict=True)
    )
    phantom = Phantom(np.zeros((4, *shape), np.float32), np.zeros(shape, np.uint8))
    phantom.images[(slice(None), *box)] = images
    phantom.labels[box] = labels
    return phantom


def make_reference(shape: tuple[int, int, int]) -> tuple[Field, float]:
    """Return the T1ce image of a healthy head in the pose of the atlas, and its voxel in mm.

    The atlas was measured on cases registered to SRI24, so an image that is aligned to this one
    has the orientation of BraTS. Raises GliosliceError if `shape` is too small.
    """
    grid = grid_for(shape)
    rng = np.random.default_rng(0)
    points = grid.points()
    outline = brain_outline(points)
    head = make_head(rng, grid, points, outline)
    image = np.zeros(shape, np.float32)
    box = tuple(
        slice((n - size) // 2, (n - size) // 2 + size)
        for n, size in zip(shape, grid.shape, strict=True)
    )
    image[box] = simulate_images(rng, grid, head, None)[2]
    return image, grid.voxel


def draw_pose(rng: np.random.Generator, grid: VoxelGrid) -> Field:
    """Return the coarse points in a head of random size, pose and shape, (3, X, Y, Z) in mm."""
    points = grid.points()
    size = rng.uniform(0.95, 1.03, 3)
    angles = rng.normal(0, 0.025, 3)  # as after registration
    rotation = np.eye(3)
    for (i, j), angle in zip(((0, 1), (0, 2), (1, 2)), angles, strict=True):
        plane = np.eye(3)
        plane[[i, j], [i, j]] = np.cos(angle)
        plane[i, j], plane[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ plane
    matrix = (rotation / size[:, None]).astype(np.float32)
    moved = (matrix @ points.reshape(3, -1)).reshape(points.shape)
    bend = np.stack([grid.noise(rng, 45) for _ in range(3)])
    return np.asarray(moved + np.float32(1.5) * bend, np.float32)


def ground_truth(head: Head, tumour: Tumour) -> NDArray[np.uint8]:
    """Return the labels: the largest fraction of each voxel, and edema only in tissue."""
    labels = np.zeros(head.depth.shape, np.uint8)
    fluid = np.maximum(head.fraction("fluid"), head.fraction("ventricle"))
    labels[(tumour.edema > 0.5) & (fluid < 0.6)] = EDEMA
    solid = tumour.core + tumour.enhancing
    labels[solid > 0.5] = CORE
    labels[(solid > 0.5) & (tumour.enhancing > tumour.core)] = ENHANCING
    labels[~head.brain] = 0
    return labels


def simulate_images(
    rng: np.random.Generator, grid: VoxelGrid, head: Head, tumour: Tumour | None
) -> Field:
    """Return the raw images (4, X, Y, Z) with contrast, texture, blur, bias field and noise."""
    images = np.empty((4, *grid.shape), np.float32)
    layers = list(head.tissues)
    uneven: Field | float = 0.15
    if tumour is not None:
        uneven = 0.15 + 0.2 * tumour.edema + 0.3 * (tumour.core + tumour.enhancing)
        wet = next(i for i, (name, _) in enumerate(layers) if name == "fluid")
        layers.insert(wet, ("edema", tumour.wetness))
        layers += [("core", tumour.core), ("enhancing", tumour.enhancing)]
    shift = {name: rng.normal(0, 0.12, 4) for name in CONTRAST}
    for name in NUCLEI:  # grey matter with many fibres: between white and grey
        shift[name] = (shift["white"] + shift["grey"]) / 2
    for modality, image in enumerate(images):
        image[:] = CONTRAST["white"][modality] + shift["white"][modality]
        for name, fraction in layers:
            value = np.float32(CONTRAST[name][modality] + shift[name][modality])
            image += fraction * (value - image)
        image += uneven * grid.refine(grid.noise(rng, 6))
        through = rng.uniform(0.4, 1.2) / grid.voxel  # many scans have thick slices
        sharp = 0.6 / grid.voxel
        image[:] = blur(image, (sharp, sharp, through))
        image += np.float32(LEVEL[modality])
        image *= 1 + 0.06 * grid.refine(grid.noise(rng, 60))
        noise = blur(rng.standard_normal(grid.shape, np.float32), (0.45, 0.45, 0.8))
        image += noise * np.float32(NOISE[modality] / noise.std())
        np.maximum(image, 0.02, out=image)
        image *= np.float32(rng.lognormal(np.log(600), 0.5) / LEVEL[modality])
        image *= head.brain
    return images
