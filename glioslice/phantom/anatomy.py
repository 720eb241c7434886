"""The anatomy of a head without tumour: the fraction of each voxel that a tissue fills. numpy only.

Distances are in mm, positive inside. Positions come from `glioslice.phantom.atlas`.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from glioslice.phantom import atlas
from glioslice.phantom.fields import (
    Field,
    VoxelGrid,
    capsule,
    ellipsoid,
    inside,
    plane_waves,
    sheet,
)

SULCUS_SPACING = 10.5
"""mm between sulci at the surface: half the wavelength of the folding."""

CORTEX = 3.0
"""Thickness of the grey ribbon in mm (B. Fischl and A. Dale, PNAS 2000: 1 to 4.5, mean 2.5)."""

FOLIUM_SPACING = 5.5
"""mm between the folia of the cerebellum, as fine as 1 mm voxels can show."""


@dataclass(frozen=True)
class Head:
    """Tissues as (name, fraction of the voxel); each covers those before it.

    The rest is white matter. All fields are (X, Y, Z) on the fine grid. `depth` is the distance
    below the brain's outline, `across` to the left of the midline, `ventricle` into a ventricle.
    """

    tissues: tuple[tuple[str, Field], ...]
    brain: NDArray[np.bool_]
    depth: Field
    across: Field
    ventricle: Field

    def fraction(self, name: str) -> Field:
        """Return the fraction of each voxel of the tissue `name`, before later ones cover it."""
        return dict(self.tissues)[name]


@dataclass(frozen=True)
class Canvas:
    """Random generator, grid and its coarse points; `half` are those mirrored to one side."""

    rng: np.random.Generator
    grid: VoxelGrid
    points: Field
    half: Field

    def noise(self, scale: float, mean: float, spread: float) -> Field:
        """Return smooth noise of `scale` mm on the fine grid."""
        coarse = np.float32(mean) + np.float32(spread) * self.grid.noise(self.rng, scale)
        return self.grid.refine(coarse)

    def shape(self, centre: tuple[float, ...], axes: tuple[float, ...], tilt: float = 0.0) -> Field:
        """Return the distance into an ellipsoid and its mirror image, on the fine grid."""
        return self.grid.refine(ellipsoid(self.half, centre, axes, tilt))


@dataclass(frozen=True)
class Landmarks:
    """Distances on the fine grid that place the structures; `hind` is into the hindbrain."""

    depth: Field
    across: Field
    hind: Field
    ventricle: Field
    joined: Field


@dataclass(frozen=True)
class FluidSpace:
    """A space filled with fluid: the fraction of each voxel, and the distance to it."""

    filled: Field
    away: Field


def make_head(rng: np.random.Generator, grid: VoxelGrid, points: Field, skull: Field) -> Head:
    """Return the head at the coarse `points` (3, X, Y, Z), which may be warped.

    `skull` is the coarse distance into the brain's outline. It does not move when a tumour
    displaces tissue.
    """
    canvas = Canvas(rng, grid, points, atlas.mirrored(points))
    refine, half, voxel = grid.refine, canvas.half, grid.voxel
    ventricle = refine(atlas.ventricles(half, rng.uniform(0.8, 1.3)))
    marks = Landmarks(
        refine(skull),
        refine(points[0]),
        refine(atlas.hindbrain(half)),
        ventricle,
        refine(ellipsoid(half, *atlas.CALLOSUM)),
    )
    folds = sulci(canvas, marks)
    spaces = [folds, fissure(marks, voxel), tentorium(canvas, marks), *cisterns(canvas, marks)]
    fluid = reduce(np.maximum, [space.filled for space in spaces])
    to_pia = reduce(np.minimum, [space.away for space in spaces])
    above = 1 - inside(marks.hind, 1)
    grey = inside(CORTEX * canvas.noise(15, 1, 0.12) - to_pia, voxel) * above
    stem = canvas.shape(*atlas.STEM)
    folia, gaps = cerebellar_cortex(canvas, marks.hind, stem)
    # Skull stripping removes some tissue at open sulci.
    stripped = np.clip(canvas.noise(20, 1.5, 1.5), 0, 4) * np.minimum(2 * folds.filled, 1)
    tissues = [
        ("stem", inside(stem, 2)),
        ("grey", np.maximum(grey, folia)),
        *nuclei(canvas),
        ("lining", lining(canvas, ventricle)),
        ("fluid", np.maximum(fluid, gaps)),
        ("ventricle", inside(ventricle, voxel)),
        *vessels(canvas, marks, fluid),
    ]
    return Head(tuple(tissues), marks.depth > stripped, marks.depth, marks.across, ventricle)


def folding(canvas: Canvas) -> Field:
    """Return the signed distance to the middle of the nearest sulcus, on the coarse grid.

    The folding varies along the surface more than with depth, so that sulci run straight inwards.
    """
    x, y, z = canvas.points[0], canvas.points[1], canvas.points[2] - np.float32(8)
    radius = np.sqrt(
        x * x + y * y + z * z + np.float32(30**2)
    )  # avoids a singularity at the centre
    surface = np.stack([x, y, z]) * (np.float32(70) / radius) ** np.float32(0.75)
    height = plane_waves(canvas.rng, surface, 2 * SULCUS_SPACING)
    spacing = canvas.grid.voxel * canvas.grid.stride
    slope = np.sqrt(sum(g * g for g in np.gradient(height, spacing)))
    # At a saddle point the slope vanishes and the sulcus would become too wide.
    return np.asarray(height / np.maximum(slope, 0.6 * np.pi / SULCUS_SPACING), np.float32)


def sulci(canvas: Canvas, marks: Landmarks) -> FluidSpace:
    """Return the sulci: wide at the surface, narrow below, of different depth."""
    fold = canvas.grid.refine(folding(canvas)) + canvas.noise(5, 0, 0.5)
    below = marks.depth - np.clip(canvas.noise(22, 16, 6), 4, 26)
    reach = np.clip(canvas.noise(22, 8, 3), 0, 14)
    medial = np.maximum(np.abs(marks.across) - reach, marks.joined + 5)
    below = np.maximum(np.minimum(below, medial), canvas.shape(*atlas.CENTRAL))
    wide = np.clip(canvas.noise(25, 0.8, 0.4), 0.2, 2)
    half = 0.35 + 1.1 * np.exp(-np.maximum(marks.depth, 0) / 4) * wide
    filled = sheet(fold, half, canvas.grid.voxel) * inside(-below, 3)
    away = np.hypot(np.maximum(np.abs(fold) - half, 0), np.maximum(below, 0))
    return FluidSpace(filled * (1 - inside(marks.hind, 1)), away)


def fissure(marks: Landmarks, voxel: float) -> FluidSpace:
    """Return the longitudinal fissure between the hemispheres."""
    half = 0.6 + 0.8 * np.exp(-np.maximum(marks.depth, 0) / 6)
    filled = sheet(marks.across, half, voxel) * inside(-marks.joined, 3)
    away = np.hypot(np.maximum(np.abs(marks.across) - half, 0), np.maximum(marks.joined, 0))
    return FluidSpace(filled * (1 - inside(marks.hind, 1)), away)


def tentorium(canvas: Canvas, marks: Landmarks) -> FluidSpace:
    """Return the space between cerebellum and cerebrum, except at the brain stem."""
    stem = canvas.grid.refine(ellipsoid(canvas.points, *atlas.MIDBRAIN))
    filled = sheet(marks.hind, 0.45, canvas.grid.voxel) * (1 - inside(stem, 2))
    return FluidSpace(filled, np.where(stem > 0, np.float32(9), np.abs(marks.hind)))


def cisterns(canvas: Canvas, marks: Landmarks) -> list[FluidSpace]:
    """Return the lateral fissures, the basal cisterns and the fluid below the outline."""
    refine = canvas.grid.refine
    bend = np.float32(2.5) * canvas.grid.noise(canvas.rng, 16)
    lateral = refine(atlas.lateral_fissure(canvas.half, bend))
    basal = refine(atlas.union([capsule(canvas.half, path) for path in atlas.CISTERNS]))
    rim = np.clip(canvas.noise(18, 0.8, 0.9), 0, 3) - marks.depth
    return [FluidSpace(inside(d, canvas.grid.voxel), -d) for d in (lateral, basal, rim)]


def cerebellar_cortex(canvas: Canvas, hind: Field, stem: Field) -> tuple[Field, Field]:
    """Return the grey folia of the cerebellum, and the fluid between them."""
    x, y, z = canvas.half
    arc = canvas.grid.refine(np.sqrt((y - 5) ** 2 + (0.5 * x) ** 2 + (0.7 * (z + 28)) ** 2))
    folium = 0.5 + 0.5 * np.cos(
        (arc + canvas.noise(11, 0, 1.6)) * np.float32(2 * np.pi / FOLIUM_SPACING)
    )
    shell = inside(9 + canvas.noise(9, 0, 3) - hind, 6)
    cortex = inside(hind, 1) * (1 - inside(stem + 2, 3)) * shell
    return cortex * (0.55 + 0.45 * folium), cortex * np.float32(0.35) * (1 - folium) ** 4


def nuclei(canvas: Canvas) -> list[tuple[str, Field]]:
    """Return the deep grey nuclei with slightly irregular borders."""
    uneven = canvas.noise(8, 0, 0.8)
    found = []
    for name, shapes in atlas.NUCLEI.items():
        place = atlas.union([ellipsoid(canvas.half, *shape) for shape in shapes])
        found.append((name, inside(canvas.grid.refine(place) + uneven, 2)))
    return found


def lining(canvas: Canvas, ventricle: Field) -> Field:
    """Return the rim around the ventricles that is bright in FLAIR in most adults."""
    near = np.clip(1 + ventricle / 2.5, 0, 1) * (ventricle < 1)
    return np.asarray(near * np.clip(canvas.noise(9, 0.6, 0.5), 0, 1.2), np.float32)


def vessels(canvas: Canvas, marks: Landmarks, fluid: Field) -> list[tuple[str, Field]]:
    """Return what contrast agent enhances in any head: sinuses, falx, arteries, choroid plexus."""
    refine, depth = canvas.grid.refine, marks.depth

    def speckle(scale: float, above: float) -> Field:
        return np.clip(canvas.noise(scale, -above, 1), 0, 1)

    x, y, z = canvas.half
    top = refine(np.maximum(z - atlas.SAGITTAL_SINUS[0], y - atlas.SAGITTAL_SINUS[1]))
    sagittal = inside(2.5 - np.abs(marks.across), 2) * inside(4.5 - depth, 2) * inside(top, 4)
    low = refine(reduce(np.minimum, [8 - np.abs(z + 14), y - 15, x - 12]))
    transverse = inside(3.5 - depth, 2) * inside(low, 4) * speckle(9, -0.3)
    falx = sheet(marks.across, 0.5, canvas.grid.voxel) * fluid * speckle(14, -0.2)
    surface = np.minimum(speckle(3.5, 1.3) * 1.5, 1) * fluid
    trunk = refine(atlas.union([capsule(canvas.half, path) for path in atlas.ARTERIES]))
    blood = atlas.union([sagittal, transverse, 0.8 * falx, surface, inside(trunk, 1.5)])
    plexus = inside(refine(capsule(canvas.half, atlas.CHOROID_PLEXUS)), 2) * speckle(4, -0.8)
    return [("plexus", plexus * inside(marks.ventricle, 2)), ("blood", blood)]
