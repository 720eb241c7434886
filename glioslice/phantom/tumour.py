"""A high-grade glioma for the phantom: position, mass effect and edema. numpy only.

Distances are in mm, positive inside; fields are float32 on a `Grid`.
"""

from dataclasses import dataclass

import numpy as np

from glioslice.phantom.anatomy import Head
from glioslice.phantom.fields import Field, VoxelGrid, blur, inside

RETENTION = 0.75
"""Share of the edema's water that remains after each step of diffusion in white matter."""


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
