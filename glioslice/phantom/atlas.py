"""Positions and sizes of the phantom's structures. numpy only.

Coordinates are mm from the anterior commissure: x to the left, y to the back, z to the head. Most
positions are given for one side and mirrored. They were measured on the mean image of the 39
aligned training cases, so they contain no individual anatomy. Distances are in mm, positive inside.
"""

from functools import reduce

import numpy as np

from glioslice.phantom.fields import Field, capsule, ellipsoid, soft_union

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
