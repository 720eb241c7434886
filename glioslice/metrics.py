"""How far a mask is from the expert's."""

import numpy as np
from numpy.typing import NDArray

from glioslice.labels import REGIONS, to_regions

MISSED_MM = 373.13
"""HD95 where a region was missed or made up: the diagonal of 240 x 240 x 155 mm, as in BraTS."""


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return 2 |P and T| / (|P| + |T|) of two binary masks of one shape (Dice, 1945).

    1.0 where both are empty, 0.0 where only one is.
    """
    total = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else 1.0


def hd95(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> float:
    """Return the 95th percentile Hausdorff distance in mm of two binary volumes of one shape.

    The larger of the two directed ones: for the voxels of one surface (those with one of six
    neighbours outside) the distance to the other surface, 95th percentile. 0 where both are empty,
    MISSED_MM where only one is. Needs scipy.
    """
    from scipy.spatial import cKDTree

    one, other = (_surface(mask) * np.asarray(spacing) for mask in (prediction, truth))
    if not len(one) or not len(other):
        return 0.0 if len(one) == len(other) else MISSED_MM
    there, back = cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the indices (N, 3) of the voxels that have a neighbour outside the mask."""
    padded = np.pad(mask, 1)
    inside = padded.copy()
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)
    return np.argwhere(mask & ~inside[1:-1, 1:-1, 1:-1])


def region_dice(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float]:
    """Return the Dice of WT, TC, ET and their mean for two label volumes of one shape."""
    scores = {
        region: dice(p, t)
        for region, p, t in zip(REGIONS, to_regions(prediction), to_regions(truth), strict=True)
    }
    return scores | {"mean": sum(scores.values()) / len(scores)}


def volumes_ml(labels: NDArray[np.uint8]) -> dict[str, float]:
    """Return the volume of WT, TC, ET in millilitres; voxels are 1 mm cubes."""
    return {
        region: int(mask.sum()) / 1000
        for region, mask in zip(REGIONS, to_regions(labels), strict=True)
    }
