"""How far a mask is from the expert's."""

import numpy as np
from numpy.typing import NDArray

from glioslice.labels import REGIONS, to_regions


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return 2 |P and T| / (|P| + |T|) of two binary masks of one shape (Dice, 1945).

    1.0 where both are empty, 0.0 where only one is.
    """
    total = int(prediction.sum()) + int(truth.sum())
    return 2 * int((prediction & truth).sum()) / total if total else 1.0


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
