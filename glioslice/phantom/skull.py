"""Skull, scalp, face and neck around a brain, for tests of what a scanner gives.

A skull-stripped head has no air, bone or fat to remove. This module puts them around the brain of a
phantom or of a patient, in the shells that they form in an adult. Needs scipy.
"""

import numpy as np
from numpy.typing import NDArray

from glioslice.phantom.fields import Field, along_axes, blur, interpolation_matrix, spline_noise
from glioslice.preprocessing import brain_mask

# Outer limit of each shell in mm from the brain, and its intensity as a share of the brain's mean:
# (flair, t1, t1ce, t2). Fat is bright in all four sequences; cortical bone has no signal; fluid is
# dark in T1 and FLAIR and bright in T2.
SHELLS = (
    ("fluid", 2.0, (0.25, 0.30, 0.35, 2.2)),
    ("inner table", 4.5, (0.06, 0.06, 0.07, 0.06)),
    ("marrow", 7.0, (0.55, 0.75, 0.80, 0.45)),
    ("outer table", 9.5, (0.06, 0.06, 0.07, 0.06)),
    ("muscle", 11.0, (0.45, 0.50, 0.60, 0.30)),
    ("fat", 15.0, (0.95, 1.70, 1.75, 1.20)),
    ("skin", 17.0, (0.60, 0.80, 0.95, 0.50)),
)
SOFT = {"muscle": (0.45, 0.50, 0.60, 0.30), "fat": (0.95, 1.70, 1.75, 1.20)}
FACE = (0.0, -62.0, -48.0), (52.0, 42.0, 52.0)
"""Centre relative to the brain's and semi-axes in mm, x to the left, y to the back, z up."""

NECK = 58.0, 52.0
"""Semi-axes of the neck across and front to back, in mm."""

NECK_Y = 12.0
"""How far behind the brain's centre the neck's axis runs, in mm."""

SULCI = 8
"""Width in mm of what is closed in the brain's outline before the skull is put around it."""

AIR = 0.015
"""Mean of the noise in air as a share of the brain's mean."""


def add_skull(images: Field, seed: int) -> Field:
    """Return skull-stripped images (4, X, Y, Z) in LPS at 1 mm with the rest of the head.

    The brain's voxels are unchanged. The neck ends at the lower edge of the volume, and tissue that
    does not fit the volume is cut off.
    """
    rng = np.random.default_rng([seed, 3])
    brain = brain_mask(images)
    away = _distance(brain) * (1 + np.float32(0.12) * spline_noise(rng, brain.shape, 25))
    below = _soft_tissue(brain, away)
    head = np.empty_like(images)
    marrow = spline_noise(rng, away.shape, 4)
    bias = 1 + np.float32(0.1) * spline_noise(rng, away.shape, 90)
    for modality, (image, out) in enumerate(zip(images, head, strict=True)):
        level = float(image[brain].mean())
        out[:] = 0
        for name, field in below.items():
            out[:] = np.where(field, np.float32(SOFT[name][modality]), out)
        for name, outer, shares in reversed(SHELLS):
            value = np.float32(shares[modality])
            texture = 1 + (0.3 if name == "marrow" else 0.08) * marrow
            out[:] = np.where(away < outer, value * texture, out)
        out[:] = np.maximum(blur(out, (0.6, 0.6, 0.6)) * bias, 0) * np.float32(level)
        # Noise of a magnitude image: Rayleigh in air, nearly Gaussian in tissue.
        deviation = np.float32(level * AIR / np.sqrt(np.pi / 2))
        real, imaginary = rng.standard_normal((2, *out.shape), np.float32) * deviation
        out[:] = np.hypot(out + real, imaginary)
        out[brain] = np.maximum(image[brain], 1e-3 * level)
    return head


def _distance(brain: NDArray[np.bool_]) -> Field:
    """Return the distance of each voxel in mm to the brain with its sulci closed.

    It is computed on every second voxel.
    """
    from scipy.ndimage import distance_transform_edt

    coarse = np.pad(brain[::2, ::2, ::2], SULCI // 2)
    near = distance_transform_edt(~coarse) <= SULCI / 2
    closed = distance_transform_edt(np.pad(near, 1, constant_values=True))[1:-1, 1:-1, 1:-1]
    closed = closed > SULCI / 2
    inner = (slice(SULCI // 2, -(SULCI // 2)),) * 3
    away = 2 * np.asarray(distance_transform_edt(~(closed | coarse)), np.float32)[inner]
    matrices = [
        interpolation_matrix(n, 2, size) for n, size in zip(away.shape, brain.shape, strict=True)
    ]
    return along_axes(matrices, away)


def _soft_tissue(brain: NDArray[np.bool_], away: Field) -> dict[str, NDArray[np.bool_]]:
    """Return where face and neck consist of fat and of muscle."""
    filled = [
        np.flatnonzero(brain.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)
    ]
    centre = [(ends[0] + ends[-1]) / 2 for ends in filled]
    x, y, z = (
        np.arange(size, dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        - np.float32(centre[axis])
        for axis, size in enumerate(brain.shape)
    )
    (cx, cy, cz), (ax, ay, az) = FACE
    face = np.sqrt(((x - cx) / ax) ** 2 + ((y - cy) / ay) ** 2 + ((z - cz) / az) ** 2)
    # Between the chin and the middle of the head, outside the skull.
    neck = np.sqrt((x / NECK[0]) ** 2 + ((y - NECK_Y) / NECK[1]) ** 2) + 0 * z
    neck = np.where(z < -20, neck, 9)
    nearest = np.minimum(face, neck)
    return {"fat": nearest < 1, "muscle": nearest < 0.88}
