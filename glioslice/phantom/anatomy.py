"""The anatomy of a head without tumour: the fraction of each voxel that a tissue fills. numpy only.

Coordinates are mm from the anterior commissure: x to the left, y to the back, z to the head. Most
positions are given for one side and mirrored. They were measured on the mean image of the 39
aligned training cases, so they contain no individual anatomy. Distances are in mm, positive inside.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from glioslice.phantom.fields import (
    Field,
    VoxelGrid,
    capsule,
    ellipsoid,
    inside,
    plane_waves,
    sheet,
    soft_union,
)

# Ellipsoids whose smooth union is the brain's outline: centre (x mirrored), semi-axes, tilt in rad.
# Fitted to the mean brain mask of the training cases with a Dice of 0.976.
HULL = (
    ((4.9, 1.4, 31.2), (53.1, 73.1, 40.6), 0.06),
    ((6.6, -26.8, 19.8), (49.1, 48.8, 25.5), 0.16),
    ((12.3, 30.6, 17.4), (49.3, 65.3, 46.0), -0.66),
    ((37.2, 12.9, 1.9), (29.8, 55.0, 29.0), 0.45),
    ((19.5, 41.5, -28.2), (32.3, 27.7, 29.4), 0.12),
    ((1.8, 17.8, -31.5), (12.0, 14.7, 28.6), 0.46),
)
SEAM = 4.0

# Cerebellar hemisphere and vermis, below a tent of this height at its apex and this slope.
CEREBELLUM = (
    ((20.0, 44.0, -34.0), (32.0, 28.0, 27.0), 0.25),
    ((0.0, 42.0, -26.0), (9.0, 22.0, 24.0), 0.2),
)
TENT = (-3.0, 0.5)
STEM = ((1.8, 17.8, -31.5), (12.0, 14.7, 28.6), 0.46)

# Points (x, y, z, radius): frontal horn, body, atrium, occipital horn; then the temporal horn.
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

NUCLEI = {
    "striatum": (((26.0, -2.0, 6.0), (5.0, 15.0, 10.0)), ((13.0, -17.0, 14.0), (5.0, 9.0, 9.0))),
    "thalamus": (((11.0, 14.0, 10.0), (8.5, 14.0, 9.0)),),
    "pallidum": (((19.0, 1.0, 4.0), (3.5, 8.0, 5.0)),),
}

# The opening of the tentorium around the brain stem.
MIDBRAIN = ((0.0, 14.0, -10.0), (17.0, 17.0, 14.0))

# Where the hemispheres join: no fissure inside. The first axis extends beyond the head.
CALLOSUM = ((0.0, 3.0, 6.0), (400.0, 40.0, 26.0))

# Deep nuclei and capsules between the insulae, which no sulcus reaches.
CENTRAL = ((0.0, 4.0, 6.0), (36.0, 36.0, 30.0))

SAGITTAL_SINUS = (15.0, 62.0)
"""The upper sagittal sinus runs above this z and behind this y."""

ARTERIES = (
    (
        (2.0, -13.0, -16.0, 1.6),
        (20.0, -17.0, -13.0, 1.5),
        (40.0, -14.0, -6.0, 1.0),
    ),  # middle cerebral
    ((0.0, 0.0, -38.0, 1.7), (0.0, -1.0, -20.0, 1.5)),  # basilar
)

SULCUS_SPACING = 10.5
"""mm between sulci at the surface: half the wavelength of the folding."""

CORTEX = 3.0
"""Thickness of the grey ribbon in mm (B. Fischl and A. Dale, PNAS 2000: 1 to 4.5, mean 2.5)."""

FOLIUM_SPACING = 5.5
"""mm between the folia of the cerebellum, as fine as 1 mm voxels can show."""


def mirrored(points: Field) -> Field:
    """Map the points of both sides to the left side: (|x|, y, z)."""
    return np.stack([np.abs(points[0]), points[1], points[2]])


def union(distances: list[Field]) -> Field:
    """Return the distance into the union of shapes."""
    return reduce(np.maximum, distances)


def brain_outline(points: Field) -> Field:
    """Return the distance into the brain's outline."""
    half = mirrored(points)
    return soft_union([ellipsoid(half, *shape) for shape in HULL], SEAM)


def hindbrain(half: Field) -> Field:
    """Return the distance into cerebellum and brain stem."""
    height, slope = TENT
    from_apex = np.hypot(half[0], 0.7 * (half[1] - 42))
    roof = (height - slope * from_apex - half[2]) / float(np.hypot(1, slope))
    cerebellum = soft_union([ellipsoid(half, *shape) for shape in CEREBELLUM], 2)
    under = np.minimum(cerebellum, roof)
    return soft_union([under, ellipsoid(half, *STEM)], 2)


def ventricles(half: Field, size: float) -> Field:
    """Return the distance into the ventricles; `size` scales their width."""

    def tube(path: tuple[tuple[float, float, float, float], ...], width: float = size) -> Field:
        return capsule(half, tuple((x, y, z, r * width) for x, y, z, r in path))

    found = [tube(LATERAL_VENTRICLE), tube(TEMPORAL_HORN, min(size, 1.2)), tube(FOURTH_VENTRICLE)]
    slit = half * np.array([1.0, 0.35, 0.35], np.float32)[:, None, None, None]
    third = tuple((x, 0.35 * y, 0.35 * z, r * size) for x, y, z, r in THIRD_VENTRICLE)
    return union([*found, capsule(slit, third)])


def lateral_fissure(half: Field, bend: Field) -> Field:
    """Return the distance into the lateral fissure: a cleft from the side, and the insula.

    `bend` displaces both, in mm.
    """
    x, y, z = half
    plane = z - np.float32(5) - np.float32(0.45) * y + bend
    cleft = np.minimum(0.8 - np.abs(plane), ellipsoid(half, (58.0, 0.0, 5.0), (24.0, 30.0, 24.0)))
    bowl = x - np.float32(40) + ((y + 2) ** 2 + (z - 5) ** 2) / np.float32(70) + bend
    insula = np.minimum(1.0 - np.abs(bowl), ellipsoid(half, (40.0, -2.0, 5.0), (16.0, 22.0, 15.0)))
    return np.maximum(cleft, insula)


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
    canvas = Canvas(rng, grid, points, mirrored(points))
    refine, half, voxel = grid.refine, canvas.half, grid.voxel
    ventricle = refine(ventricles(half, rng.uniform(0.8, 1.3)))
    marks = Landmarks(
        refine(skull),
        refine(points[0]),
        refine(hindbrain(half)),
        ventricle,
        refine(ellipsoid(half, *CALLOSUM)),
    )
    folds = sulci(canvas, marks)
    spaces = [folds, fissure(marks, voxel), tentorium(canvas, marks), *cisterns(canvas, marks)]
    fluid = reduce(np.maximum, [space.filled for space in spaces])
    to_pia = reduce(np.minimum, [space.away for space in spaces])
    above = 1 - inside(marks.hind, 1)
    grey = inside(CORTEX * canvas.noise(15, 1, 0.12) - to_pia, voxel) * above
    stem = canvas.shape(*STEM)
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
    below = np.maximum(np.minimum(below, medial), canvas.shape(*CENTRAL))
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
    stem = canvas.grid.refine(ellipsoid(canvas.points, *MIDBRAIN))
    filled = sheet(marks.hind, 0.45, canvas.grid.voxel) * (1 - inside(stem, 2))
    return FluidSpace(filled, np.where(stem > 0, np.float32(9), np.abs(marks.hind)))


def cisterns(canvas: Canvas, marks: Landmarks) -> list[FluidSpace]:
    """Return the lateral fissures, the basal cisterns and the fluid below the outline."""
    refine = canvas.grid.refine
    bend = np.float32(2.5) * canvas.grid.noise(canvas.rng, 16)
    lateral = refine(lateral_fissure(canvas.half, bend))
    basal = refine(union([capsule(canvas.half, path) for path in CISTERNS]))
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
    for name, shapes in NUCLEI.items():
        place = union([ellipsoid(canvas.half, *shape) for shape in shapes])
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
    top = refine(np.maximum(z - SAGITTAL_SINUS[0], y - SAGITTAL_SINUS[1]))
    sagittal = inside(2.5 - np.abs(marks.across), 2) * inside(4.5 - depth, 2) * inside(top, 4)
    low = refine(reduce(np.minimum, [8 - np.abs(z + 14), y - 15, x - 12]))
    transverse = inside(3.5 - depth, 2) * inside(low, 4) * speckle(9, -0.3)
    falx = sheet(marks.across, 0.5, canvas.grid.voxel) * fluid * speckle(14, -0.2)
    surface = np.minimum(speckle(3.5, 1.3) * 1.5, 1) * fluid
    trunk = refine(union([capsule(canvas.half, path) for path in ARTERIES]))
    blood = union([sagittal, transverse, 0.8 * falx, surface, inside(trunk, 1.5)])
    plexus = inside(refine(capsule(canvas.half, CHOROID_PLEXUS)), 2) * speckle(4, -0.8)
    return [("plexus", plexus * inside(marks.ventricle, 2)), ("blood", blood)]
