"""A head without tumour: which tissue fills how much of each voxel. numpy only.

Distances are in mm, positive inside; places come from `phantom_atlas`.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from glioslice.phantom import atlas as atlas
from glioslice.phantom.fields import Field, Grid, capsule, ellipsoid, inside, sheet, waves

SULCUS_SPACING = 10.5
"""mm between sulci at the surface: half the wavelength of the folding."""

CORTEX = 3.0
"""Thickness of the grey ribbon in mm (B. Fischl and A. Dale, PNAS 2000: 1 to 4.5, mean 2.5)."""

LEAF = 5.5
"""mm between the leaves of the cerebellum: as fine as 1 mm voxels show."""


@dataclass(frozen=True)
class Head:
    """Tissues as (name, fraction of the voxel) in the order in which each covers those before.

    What none covers is white matter. All fields are (X, Y, Z) on the fine grid. `depth` is the
    distance below the hull, `across` to the left of the midline, `ventricle` into a ventricle.
    """

    tissues: tuple[tuple[str, Field], ...]
    brain: NDArray[np.bool_]
    depth: Field
    across: Field
    ventricle: Field

    def fraction(self, name: str) -> Field:
        """Return how much of each voxel the tissue `name` fills, before later ones cover it."""
        return dict(self.tissues)[name]


@dataclass(frozen=True)
class Sketch:
    """What every part of the head is drawn with: the grid, the coarse points, the randomness."""

    rng: np.random.Generator
    grid: Grid
    points: Field
    half: Field

    def noise(self, scale: float, mean: float, spread: float) -> Field:
        """Return fine noise of grains of `scale` mm."""
        coarse = np.float32(mean) + np.float32(spread) * self.grid.noise(self.rng, scale)
        return self.grid.refine(coarse)

    def shape(self, centre: tuple[float, ...], axes: tuple[float, ...], tilt: float = 0.0) -> Field:
        """Return the fine distance into an ellipsoid, mirrored to both sides."""
        return self.grid.refine(ellipsoid(self.half, centre, axes, tilt))


@dataclass(frozen=True)
class Landmarks:
    """Fine distances that the parts are placed by; `hind` is into cerebellum and brain stem."""

    depth: Field
    across: Field
    hind: Field
    ventricle: Field
    joined: Field


@dataclass(frozen=True)
class Cleft:
    """A gap filled with fluid: how much of each voxel it fills, and how far away it is."""

    filled: Field
    away: Field


def make_head(rng: np.random.Generator, grid: Grid, points: Field, skull: Field) -> Head:
    """Return the head at the coarse `points`, (3, X, Y, Z), which may be warped.

    `skull` is the distance into the hull, coarse: it stays where it is when tissue is pushed.
    """
    sketch = Sketch(rng, grid, points, atlas.mirrored(points))
    refine, half, voxel = grid.refine, sketch.half, grid.voxel
    ventricle = refine(atlas.ventricles_of(half, rng.uniform(0.8, 1.3)))
    marks = Landmarks(
        refine(skull),
        refine(points[0]),
        refine(atlas.hindbrain_of(half)),
        ventricle,
        refine(ellipsoid(half, *atlas.CALLOSUM)),
    )
    folds = sulci(sketch, marks)
    clefts = [folds, fissure(marks, voxel), tentorium(sketch, marks), *cisterns(sketch, marks)]
    fluid = reduce(np.maximum, [cleft.filled for cleft in clefts])
    to_pia = reduce(np.minimum, [cleft.away for cleft in clefts])
    above = 1 - inside(marks.hind, 1)
    grey = inside(CORTEX * sketch.noise(15, 1, 0.12) - to_pia, voxel) * above
    stem = sketch.shape(*atlas.STEM)
    leaves, gaps = cerebellar_cortex(sketch, marks.hind, stem)
    # Stripping the skull bites into open sulci.
    bite = np.clip(sketch.noise(20, 1.5, 1.5), 0, 4) * np.minimum(2 * folds.filled, 1)
    tissues = [
        ("stem", inside(stem, 2)),
        ("grey", np.maximum(grey, leaves)),
        *nuclei(sketch),
        ("lining", lining(sketch, ventricle)),
        ("fluid", np.maximum(fluid, gaps)),
        ("ventricle", inside(ventricle, voxel)),
        *vessels(sketch, marks, fluid),
    ]
    return Head(tuple(tissues), marks.depth > bite, marks.depth, marks.across, ventricle)


def folding(sketch: Sketch) -> Field:
    """Return the distance to the nearest sulcus's middle, coarse, with a sign for its side.

    The folding varies along the surface more than below it, so that sulci go straight down.
    """
    x, y, z = sketch.points[0], sketch.points[1], sketch.points[2] - np.float32(8)
    radius = np.sqrt(x * x + y * y + z * z + np.float32(30**2))  # no whirl at the centre
    surface = np.stack([x, y, z]) * (np.float32(70) / radius) ** np.float32(0.75)
    height = waves(sketch.rng, surface, 2 * SULCUS_SPACING)
    spacing = sketch.grid.voxel * sketch.grid.stride
    slope = np.sqrt(sum(g * g for g in np.gradient(height, spacing)))
    # Around a saddle the slope vanishes and the sulcus would grow into a lake.
    return np.asarray(height / np.maximum(slope, 0.6 * np.pi / SULCUS_SPACING), np.float32)


def sulci(sketch: Sketch, marks: Landmarks) -> Cleft:
    """Return the sulci: open at the surface, narrow below, some shallow and some deep."""
    fold = sketch.grid.refine(folding(sketch)) + sketch.noise(5, 0, 0.5)
    below = marks.depth - np.clip(sketch.noise(22, 16, 6), 4, 26)
    reach = np.clip(sketch.noise(22, 8, 3), 0, 14)
    medial = np.maximum(np.abs(marks.across) - reach, marks.joined + 5)
    below = np.maximum(np.minimum(below, medial), sketch.shape(*atlas.CENTRAL))
    wide = np.clip(sketch.noise(25, 0.8, 0.4), 0.2, 2)
    half = 0.35 + 1.1 * np.exp(-np.maximum(marks.depth, 0) / 4) * wide
    filled = sheet(fold, half, sketch.grid.voxel) * inside(-below, 3)
    away = np.hypot(np.maximum(np.abs(fold) - half, 0), np.maximum(below, 0))
    return Cleft(filled * (1 - inside(marks.hind, 1)), away)


def fissure(marks: Landmarks, voxel: float) -> Cleft:
    """Return the gap between the hemispheres, down to where they join."""
    half = 0.6 + 0.8 * np.exp(-np.maximum(marks.depth, 0) / 6)
    filled = sheet(marks.across, half, voxel) * inside(-marks.joined, 3)
    away = np.hypot(np.maximum(np.abs(marks.across) - half, 0), np.maximum(marks.joined, 0))
    return Cleft(filled * (1 - inside(marks.hind, 1)), away)


def tentorium(sketch: Sketch, marks: Landmarks) -> Cleft:
    """Return the gap between cerebellum and cerebrum, open where the stem passes."""
    stem = sketch.grid.refine(ellipsoid(sketch.points, *atlas.MIDBRAIN))
    filled = sheet(marks.hind, 0.45, sketch.grid.voxel) * (1 - inside(stem, 2))
    return Cleft(filled, np.where(stem > 0, np.float32(9), np.abs(marks.hind)))


def cisterns(sketch: Sketch, marks: Landmarks) -> list[Cleft]:
    """Return the lateral fissures, the cisterns at the base and the fluid below the hull."""
    refine = sketch.grid.refine
    bend = np.float32(2.5) * sketch.grid.noise(sketch.rng, 16)
    lateral = refine(atlas.lateral_fissure_of(sketch.half, bend))
    basal = refine(atlas.union([capsule(sketch.half, path) for path in atlas.CISTERNS]))
    rim = np.clip(sketch.noise(18, 0.8, 0.9), 0, 3) - marks.depth
    return [Cleft(inside(d, sketch.grid.voxel), -d) for d in (lateral, basal, rim)]


def cerebellar_cortex(sketch: Sketch, hind: Field, stem: Field) -> tuple[Field, Field]:
    """Return the cerebellum's grey leaves around a white body, and the fluid between them."""
    x, y, z = sketch.half
    arc = sketch.grid.refine(np.sqrt((y - 5) ** 2 + (0.5 * x) ** 2 + (0.7 * (z + 28)) ** 2))
    leaf = 0.5 + 0.5 * np.cos((arc + sketch.noise(11, 0, 1.6)) * np.float32(2 * np.pi / LEAF))
    shell = inside(9 + sketch.noise(9, 0, 3) - hind, 6)
    cortex = inside(hind, 1) * (1 - inside(stem + 2, 3)) * shell
    return cortex * (0.55 + 0.45 * leaf), cortex * np.float32(0.35) * (1 - leaf) ** 4


def nuclei(sketch: Sketch) -> list[tuple[str, Field]]:
    """Return the deep grey matter, its borders a little uneven."""
    uneven = sketch.noise(8, 0, 0.8)
    found = []
    for name, shapes in atlas.NUCLEI.items():
        place = atlas.union([ellipsoid(sketch.half, *shape) for shape in shapes])
        found.append((name, inside(sketch.grid.refine(place) + uneven, 2)))
    return found


def lining(sketch: Sketch, ventricle: Field) -> Field:
    """Return the rim, bright in FLAIR, that most adults have around the ventricles."""
    near = np.clip(1 + ventricle / 2.5, 0, 1) * (ventricle < 1)
    return np.asarray(near * np.clip(sketch.noise(9, 0.6, 0.5), 0, 1.2), np.float32)


def vessels(sketch: Sketch, marks: Landmarks, fluid: Field) -> list[tuple[str, Field]]:
    """Return what contrast agent lights up in any head: sinuses, falx, arteries, choroid plexus."""
    refine, depth = sketch.grid.refine, marks.depth

    def speckle(scale: float, above: float) -> Field:
        return np.clip(sketch.noise(scale, -above, 1), 0, 1)

    x, y, z = sketch.half
    top = refine(np.maximum(z - atlas.SAGITTAL_SINUS[0], y - atlas.SAGITTAL_SINUS[1]))
    sagittal = inside(2.5 - np.abs(marks.across), 2) * inside(4.5 - depth, 2) * inside(top, 4)
    low = refine(reduce(np.minimum, [8 - np.abs(z + 14), y - 15, x - 12]))
    transverse = inside(3.5 - depth, 2) * inside(low, 4) * speckle(9, -0.3)
    falx = sheet(marks.across, 0.5, sketch.grid.voxel) * fluid * speckle(14, -0.2)
    surface = np.minimum(speckle(3.5, 1.3) * 1.5, 1) * fluid
    trunk = refine(atlas.union([capsule(sketch.half, path) for path in atlas.ARTERIES]))
    blood = atlas.union([sagittal, transverse, 0.8 * falx, surface, inside(trunk, 1.5)])
    plexus = inside(refine(capsule(sketch.half, atlas.CHOROID_PLEXUS)), 2) * speckle(4, -0.8)
    return [("plexus", plexus * inside(marks.ventricle, 2)), ("blood", blood)]
