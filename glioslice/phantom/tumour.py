"""A high-grade glioma for the phantom: where it lies, how it pushes, how far its edema runs.

Distances are in mm, positive inside; fields are float32 on a `Grid`. numpy only.
"""

from dataclasses import dataclass

import numpy as np

from glioslice.phantom.anatomy import Head
from glioslice.phantom.fields import Field, Grid, blur, inside

KEPT = 0.75
"""Part of edema's water that survives each step of diffusion in white matter."""


@dataclass(frozen=True)
class Seat:
    """Centre (x, y, z), radius and edema's reach in mm, drawn before there is any tissue."""

    centre: tuple[float, float, float]
    radius: float
    reach: float


@dataclass(frozen=True)
class Tumour:
    """How much of each voxel is edema (of white or grey matter), necrotic core, enhancing.

    `wetness` is edema again, times how far it changes the contrast: 1 on average.
    """

    edema: Field
    wetness: Field
    core: Field
    enhancing: Field


def draw_seat(rng: np.random.Generator) -> Seat:
    """Return a seat in the white matter of one hemisphere, frontal, parietal or temporal."""
    side = rng.choice([-1.0, 1.0])
    lobes = (((32.0, -30.0, 24.0), 7.0), ((33.0, 28.0, 34.0), 7.0), ((43.0, 12.0, -2.0), 4.0))
    place, spread = lobes[rng.choice(3, p=[0.4, 0.35, 0.25])]
    x, y, z = rng.normal(place, spread).clip(np.subtract(place, 9), np.add(place, 9))
    # Core and rim of the training cases' high grades: 27 mL at the median, a radius of 19 mm.
    return Seat((float(side * x), float(y), float(z)), rng.uniform(14, 21), rng.uniform(11, 20))


def pushed(points: Field, seat: Seat, skull: Field) -> Field:
    """Return where the tissue now at `points` lay before the tumour grew and pushed it aside.

    A third of the tumour's volume displaces, the rest replaces; the skull does not give way.
    """
    offset = points - np.array(seat.centre, np.float32)[:, None, None, None]
    r = np.sqrt((offset**2).sum(0)) + np.float32(1e-3)
    before = np.cbrt(np.maximum(r**3 - 0.33 * seat.radius**3, 0.05 * r**3))
    give = np.exp(-((r / 50) ** 2)) * np.clip(skull / 12, 0, 1)
    return np.asarray(points + offset * (give * (before / r - 1)), np.float32)


def make_tumour(
    rng: np.random.Generator, grid: Grid, points: Field, seat: Seat, head: Head
) -> Tumour:
    """Return the tumour at `seat` in `head`; `points` are the coarse ones as they lie now."""
    refine = grid.refine
    offset = points - np.array(seat.centre, np.float32)[:, None, None, None]
    stretch = rng.uniform(0.85, 1.18, 3).astype(np.float32)
    r = np.sqrt(((offset / stretch[:, None, None, None]) ** 2).sum(0))
    lobed = seat.radius - r + 3.5 * grid.noise(rng, 20) + 1.6 * grid.noise(rng, 8)
    fluid = np.maximum(head.fraction("fluid"), head.fraction("ventricle"))
    bounds = np.minimum(head.depth - 1.5, float(np.sign(seat.centre[0])) * head.across - 1.5)
    bulk = np.minimum(np.minimum(refine(lobed), bounds), -head.ventricle - 1)

    # The rim: thick and thin, here and there a gap; strands of it run through the core.
    thickness = refine(3.2 + 2.1 * grid.noise(rng, 11))
    strand = refine(np.abs(grid.noise(rng, 10))) < 0.18
    shell = np.where(strand & (bulk < 9), 2.0, thickness - bulk)
    whole = inside(bulk, 1.5)
    enhancing = whole * inside(shell, 2.0) * inside(thickness - 1.2, 0.8)

    spread = refine(spreading(grid, head, fluid, lobed) + 2.0 * grid.noise(rng, 14))
    edema = inside(seat.reach - spread, 4.0) * (bounds > 0) * (1 - whole)
    wetness = edema * refine(1 + 0.15 * grid.noise(rng, 10))
    return Tumour(edema, wetness, whole - enhancing, enhancing)


def spreading(grid: Grid, head: Head, fluid: Field, lobed: Field) -> Field:
    """Return how far in mm edema must run from the tumour through tissue, coarse.

    Water seeps along white matter, enters grey matter badly and stops at fluid. Steady diffusion
    with loss falls off exponentially with the length of the way round (the "heat method" of
    K. Crane et al., ACM TOG 2013), so its logarithm is that length.
    """
    s = grid.stride
    sizes = grid.coarse
    grey = np.maximum(head.fraction("grey"), head.fraction("thalamus"))
    grey = np.maximum(grey, head.fraction("striatum"))
    tissue = np.zeros((2, *sizes), np.float32)
    for field, source in zip(tissue, (fluid, grey), strict=True):
        averaged = blur(source, (0.6, 0.6, 0.6))[::s, ::s, ::s]
        field[tuple(slice(n) for n in averaged.shape)] = averaged
    passing = KEPT * (1 - 0.8 * tissue[1]) * np.clip(1 - 1.6 * tissue[0], 0, 1)
    source = (lobed > -1).astype(np.float32)
    water = source
    for _ in range(int(30 / (grid.voxel * s))):
        water = np.maximum(blur(water, (1.0, 1.0, 1.0)) * passing, source)
    # A blur of one step makes exp(1 / (2 length^2)) of a front exp(-d / length); KEPT undoes it.
    length = grid.voxel * s / np.sqrt(-2 * np.log(KEPT))
    return np.asarray(-np.log(water + np.float32(1e-12)) * np.float32(length), np.float32)
