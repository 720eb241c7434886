"""A head without tumour: which tissue fills how much of each voxel. numpy only.

Coordinates are mm from the anterior commissure: x to the left, y to the back, z to the head. Most
places are given for one side and mirrored. They were read off the mean of 39 aligned training cases;
no patient's outline is in them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from glioslice.phantom_fields import (
    Field,
    Grid,
    capsule,
    ellipsoid,
    inside,
    sheet,
    soft_union,
    waves,
)

# Ellipsoids whose soft union is the brain's hull: centre (x mirrored), semi-axes, tilt in radians.
# Fitted to the mean mask of the training cases: Dice with it 0.976.
HULL = (
    ((4.9, 1.4, 31.2), (53.1, 73.1, 40.6), 0.06),
    ((6.6, -26.8, 19.8), (49.1, 48.8, 25.5), 0.16),
    ((12.3, 30.6, 17.4), (49.3, 65.3, 46.0), -0.66),
    ((37.2, 12.9, 1.9), (29.8, 55.0, 29.0), 0.45),
    ((19.5, 41.5, -28.2), (32.3, 27.7, 29.4), 0.12),
    ((1.8, 17.8, -31.5), (12.0, 14.7, 28.6), 0.46),
)
SEAM = 4.0

# Cerebellar hemisphere, vermis and brain stem below the tentorium.
INFRATENTORIAL = (
    ((20.0, 44.0, -36.0), (32.0, 28.0, 23.0), 0.25),
    ((0.0, 42.0, -26.0), (9.0, 22.0, 24.0), 0.2),
    ((1.8, 17.8, -31.5), (12.0, 14.7, 28.6), 0.46),
)

# Stations (x, y, z, radius): frontal horn, body, atrium, occipital horn; then the temporal horn.
LATERAL_VENTRICLE = (
    (13.0, -37.0, 11.0, 2.5),
    (9.0, -22.0, 16.0, 6.0),
    (8.5, 0.0, 24.0, 6.0),
    (13.0, 20.0, 26.0, 6.0),
    (22.0, 35.0, 18.0, 7.0),
    (24.0, 39.0, 7.0, 6.0),
    (23.0, 57.0, 6.0, 1.0),
)
TEMPORAL_HORN = ((24.0, 38.0, 4.0, 4.0), (31.0, 18.0, -8.0, 2.0), (30.0, -2.0, -17.0, 1.5))
THIRD_VENTRICLE = ((0.0, -6.0, -4.0, 1.2), (0.0, 16.0, 6.0, 1.5))
FOURTH_VENTRICLE = ((0.0, 25.0, -26.0, 3.0), (0.0, 25.0, -36.0, 4.5))
CISTERNS = (
    ((0.0, 38.0, 2.0, 4.0), (0.0, 43.0, -6.0, 3.0)),  # quadrigeminal
    ((0.0, -10.0, -16.0, 5.0), (0.0, -4.0, -24.0, 5.0)),  # suprasellar, interpeduncular
)
CHOROID_PLEXUS = ((22.5, 34.0, 15.0, 2.8), (23.5, 39.0, 6.0, 2.2))

THALAMUS = ((11.0, 14.0, 10.0), (8.5, 14.0, 9.0))
STRIATUM = (((26.0, -2.0, 6.0), (5.0, 15.0, 10.0)), ((13.0, -17.0, 14.0), (5.0, 9.0, 9.0)))
PALLIDUM = ((19.0, 1.0, 4.0), (3.5, 8.0, 5.0))

# Where both hemispheres join: no fissure inside. The first axis reaches past the head.
CALLOSUM = ((0.0, 3.0, 6.0), (400.0, 40.0, 26.0))

# Between the insulae, above the base: nuclei and capsules, which no sulcus reaches.
CENTRAL = ((0.0, 4.0, 6.0), (36.0, 36.0, 30.0))

SULCUS_SPACING = 10.5
"""mm between sulci at the surface: half the wavelength of the folding."""

CORTEX = 3.0
"""Thickness of the grey ribbon in mm (B. Fischl and A. Dale, PNAS 2000: 1 to 4.5, mean 2.5)."""


@dataclass(frozen=True)
class Head:
    """Tissues as (name, fraction of the voxel) in the order in which each covers those before.

    All fields are (X, Y, Z) on the fine grid. `depth` is the distance below the hull, `across` the
    distance to the left of the midline, `ventricle` the distance into a ventricle, all in mm.
    """

    tissues: tuple[tuple[str, Field], ...]
    brain: Field
    depth: Field
    across: Field
    ventricle: Field

    def fraction(self, name: str) -> Field:
        """Return how much of each voxel the tissue `name` fills, before later ones cover it."""
        return dict(self.tissues)[name]


def mirrored(points: Field) -> Field:
    """Return the points of both sides on the left one: (|x|, y, z)."""
    return np.stack([np.abs(points[0]), points[1], points[2]])


def hull_of(points: Field) -> Field:
    """Return the distance into the brain's hull."""
    half = mirrored(points)
    return soft_union([ellipsoid(half, *shape) for shape in HULL], SEAM)


def folding(rng: np.random.Generator, grid: Grid, points: Field) -> Field:
    """Return the distance to the nearest sulcus's middle, coarse, with a sign for its side.

    The folding varies along the surface more than below it, so that sulci go straight down.
    """
    x, y, z = points[0], points[1], points[2] - np.float32(8)
    radius = np.sqrt(x * x + y * y + z * z + np.float32(30**2))  # no whirl at the centre
    surface = np.stack([x, y, z]) * (np.float32(70) / radius) ** np.float32(0.75)
    height = waves(rng, surface, 2 * SULCUS_SPACING)
    slope = np.sqrt(sum(g * g for g in np.gradient(height, grid.voxel * grid.stride)))
    # Around a saddle the slope vanishes and the sulcus would grow into a lake.
    return np.asarray(height / np.maximum(slope, 0.6 * np.pi / SULCUS_SPACING), np.float32)


def ventricles_of(points: Field, size: float) -> Field:
    """Return the distance into the ventricles; `size` scales their width."""
    half = mirrored(points)

    def tube(path: tuple[tuple[float, float, float, float], ...], width: float = size) -> Field:
        return capsule(half, tuple((x, y, z, r * width) for x, y, z, r in path))

    found = [tube(LATERAL_VENTRICLE), tube(TEMPORAL_HORN, min(size, 1.2)), tube(FOURTH_VENTRICLE)]
    slit = half * np.array([1.0, 0.35, 0.35], np.float32)[:, None, None, None]
    third = tuple((x, 0.35 * y, 0.35 * z, r * size) for x, y, z, r in THIRD_VENTRICLE)
    return reduce(np.maximum, [*found, capsule(slit, third)])


def make_head(rng: np.random.Generator, grid: Grid, points: Field, skull: Field) -> Head:
    """Return the head at the coarse `points`, (3, X, Y, Z), which may be warped.

    `skull` is the distance into the hull, coarse: it stays where it is when tissue is pushed.
    """
    refine: Callable[[Field], Field] = grid.refine
    voxel = grid.voxel
    half = mirrored(points)

    def noise(scale: float, mean: float, spread: float) -> Field:
        return refine(np.float32(mean) + np.float32(spread) * grid.noise(rng, scale))

    depth = refine(skull)
    across = refine(points[0])
    hind = refine(soft_union([ellipsoid(half, *shape) for shape in INFRATENTORIAL], 2))
    ventricle = refine(ventricles_of(points, rng.uniform(0.8, 1.3)))
    joined = refine(ellipsoid(points, *CALLOSUM))
    fold = refine(folding(rng, grid, points)) + noise(5, 0, 0.5)

    # Sulci: open at the surface, narrow below, some shallow and some deep.
    bottom = depth - np.clip(noise(22, 16, 6), 4, 26)
    medial = np.maximum(np.abs(across) - np.clip(noise(22, 8, 3), 0, 14), joined + 5)
    bottom = np.maximum(np.minimum(bottom, medial), refine(ellipsoid(points, *CENTRAL)))
    sulcus_half = 0.35 + 1.1 * np.exp(-np.maximum(depth, 0) / 4) * np.clip(
        noise(25, 0.8, 0.4), 0.2, 2
    )
    to_sulcus = np.hypot(np.maximum(np.abs(fold) - sulcus_half, 0), np.maximum(bottom, 0))
    sulcus = sheet(fold, sulcus_half, voxel) * inside(-bottom, 3)
    # The fissure between the hemispheres, and the sheets around insula and brain stem.
    fissure_half = 0.6 + 0.8 * np.exp(-np.maximum(depth, 0) / 6)
    to_fissure = np.hypot(np.maximum(np.abs(across) - fissure_half, 0), np.maximum(joined, 0))
    fissure = sheet(across, fissure_half, voxel) * inside(-joined, 3)
    lateral = refine(sylvian(half, np.float32(2.5) * grid.noise(rng, 16)))
    cistern = refine(reduce(np.maximum, [capsule(half, path) for path in CISTERNS]))
    stem_top = refine(ellipsoid(points, (0.0, 14.0, -10.0), (17.0, 17.0, 14.0)))
    tent = np.where(stem_top > 0, 9, np.abs(hind))
    tentorium = sheet(hind, np.float32(0.45), voxel) * (1 - inside(stem_top, 2))
    rim = np.clip(noise(18, 0.8, 0.9), 0, 3)

    above = 1 - inside(hind, 1)
    clefts = [sulcus * above, fissure * above, tentorium, inside(rim - depth, voxel)]
    fluid = reduce(np.maximum, [*clefts, inside(cistern, voxel), inside(lateral, voxel)])
    to_pia = reduce(np.minimum, [depth - rim, to_sulcus, to_fissure, tent, -lateral, -cistern])
    grey = inside(CORTEX * noise(15, 1, 0.12) - to_pia, voxel) * above
    folia = cerebellar_cortex(grid, refine, half, hind, noise)
    brain = depth > np.clip(noise(20, 1.5, 1.5), 0, 4) * np.minimum(2 * sulcus, 1)

    tissues: list[tuple[str, Field]] = [("grey", np.maximum(grey, folia))]
    deep = noise(8, 0, 0.8)
    for name, shapes in (
        ("striatum", STRIATUM),
        ("thalamus", (THALAMUS,)),
        ("pallidum", (PALLIDUM,)),
    ):
        place = reduce(np.maximum, [ellipsoid(half, *shape) for shape in shapes])
        tissues.append((name, inside(refine(place) + deep, 2)))
    lining = np.clip(1 + ventricle / 2.5, 0, 1) * np.clip(noise(9, 0.6, 0.5), 0, 1.2)
    tissues.append(("lining", lining * (ventricle < 1)))
    tissues += [("fluid", fluid), ("ventricle", inside(ventricle, voxel))]
    tissues += vessels(rng, grid, half, depth, across, fluid, ventricle)
    return Head(tuple(tissues), brain, depth, across, ventricle)


def sylvian(half: Field, bend: Field) -> Field:
    """Return the distance into the lateral fissure: a cleft from the side, and the insula's sheet."""
    x, y, z = half
    plane = z - np.float32(5) - np.float32(0.45) * y + bend
    cleft = np.minimum(0.8 - np.abs(plane), ellipsoid(half, (58.0, 0.0, 5.0), (24.0, 30.0, 24.0)))
    bowl = x - np.float32(40) + ((y + 2) ** 2 + (z - 5) ** 2) / np.float32(70) + bend
    insula = np.minimum(1.0 - np.abs(bowl), ellipsoid(half, (40.0, -2.0, 5.0), (16.0, 22.0, 15.0)))
    return np.maximum(cleft, insula)


def cerebellar_cortex(
    grid: Grid,
    refine: Callable[[Field], Field],
    half: Field,
    hind: Field,
    noise: Callable[[float, float, float], Field],
) -> Field:
    """Return the grey of the cerebellum: fine leaves around a white body, none in the stem."""
    x, y, z = half
    arc = refine(np.sqrt((y - 5) ** 2 + (0.5 * x) ** 2 + (0.7 * (z + 28)) ** 2))
    leaf = 0.5 + 0.5 * np.cos((arc + noise(11, 0, 1.6)) * np.float32(2 * np.pi / 5.5))
    stem = refine(ellipsoid(half, *INFRATENTORIAL[2]))
    shell = inside(9 + noise(9, 0, 3) - hind, 6)
    return np.asarray(inside(hind, 1) * (1 - inside(stem + 2, 3)) * shell * (0.55 + 0.45 * leaf))


def vessels(
    rng: np.random.Generator,
    grid: Grid,
    half: Field,
    depth: Field,
    across: Field,
    fluid: Field,
    ventricle: Field,
) -> list[tuple[str, Field]]:
    """Return what contrast agent lights up in any head: sinuses, falx, arteries, choroid plexus."""
    refine = grid.refine

    def speckle(scale: float, above: float) -> Field:
        return np.clip(refine(grid.noise(rng, scale)) - np.float32(above), 0, 1)

    x, y, z = half
    top = refine(np.maximum(z - 15, y - 62))
    sagittal = inside(2.5 - np.abs(across), 2) * inside(4.5 - depth, 2) * inside(top, 4)
    low = refine(reduce(np.minimum, [8 - np.abs(z + 14), y - 15, x - 12]))
    transverse = inside(3.5 - depth, 2) * inside(low, 4) * speckle(9, -0.3)
    falx = sheet(across, np.float32(0.5), grid.voxel) * fluid * speckle(14, -0.2)
    surface = np.minimum(speckle(3.5, 1.3) * 1.5, 1) * fluid
    arteries = ((2.0, -13.0, -16.0, 1.6), (20.0, -17.0, -13.0, 1.5), (40.0, -14.0, -6.0, 1.0))
    basilar = ((0.0, 0.0, -38.0, 1.7), (0.0, -1.0, -20.0, 1.5))
    trunk = refine(np.maximum(capsule(half, arteries), capsule(half, basilar)))
    blood = reduce(np.maximum, [sagittal, transverse, 0.8 * falx, surface, inside(trunk, 1.5)])
    plexus = inside(refine(capsule(half, CHOROID_PLEXUS)), 2) * speckle(4, -0.8)
    return [("plexus", plexus * inside(ventricle, 2)), ("blood", blood)]
