"""Metrics of a mask against the ground truth, and the printed summary of a segmented volume."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from glioslice.labels import REGIONS, occupied_box, to_regions

MISSED_MM = 373.13
"""HD95 of a region that only one mask has: the diagonal of 240 x 240 x 155 mm, as in BraTS."""


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

    A surface voxel has at least one of its six neighbours outside the mask. In each direction the
    distances from one surface to the other give a 95th percentile; the result is the larger of the
    two. 0 where both masks are empty, MISSED_MM where only one is. Needs scipy.
    """
    from scipy.spatial import cKDTree

    one, other = (_surface(mask) * np.asarray(spacing) for mask in (prediction, truth))
    if not len(one) or not len(other):
        return 0.0 if len(one) == len(other) else MISSED_MM
    forward, backward = cKDTree(other).query(one)[0], cKDTree(one).query(other)[0]
    return float(max(np.percentile(forward, 95), np.percentile(backward, 95)))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the indices (N, 3) of the surface voxels."""
    padded = np.pad(mask, 1)
    inside = padded.copy()
    for axis in range(3):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)
    return np.argwhere(mask & ~inside[1:-1, 1:-1, 1:-1])


def region_dice(prediction: NDArray[np.uint8], truth: NDArray[np.uint8]) -> dict[str, float]:
    """Return the Dice of WT, TC and ET and their mean, for two label volumes of one shape."""
    box = occupied_box((prediction | truth) != 0)  # the regions of whole volumes take 54 MB
    regions = zip(REGIONS, to_regions(prediction[box]), to_regions(truth[box]), strict=True)
    scores = {region: dice(p, t) for region, p, t in regions}
    return scores | {"mean": sum(scores.values()) / len(scores)}


def volumes_ml(labels: NDArray[np.uint8]) -> dict[str, float]:
    """Return the volumes of WT, TC and ET in millilitres; voxels are 1 mm cubes."""
    tumour = labels[occupied_box(labels != 0)]
    return {
        region: int(mask.sum()) / 1000
        for region, mask in zip(REGIONS, to_regions(tumour), strict=True)
    }


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return the median, 90th and 99th percentile of the milliseconds per slice."""
    p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
    return {"p50": float(p50), "p90": float(p90), "p99": float(p99)}


def format_dice(scores: Mapping[str, float]) -> str:
    """Return one line with the Dice of a volume against the ground truth."""
    return "Dice (vs. ground truth): " + "  ".join(f"{k} {v:.3f}" for k, v in scores.items())


def summary_lines(
    slices: int, milliseconds: Sequence[float], volumes_ml: Mapping[str, float]
) -> list[str]:
    """Return the lines on latency and volumes, and the notice that ends each summary."""
    latency = "  ".join(f"{name} {ms:.2f}" for name, ms in percentiles(milliseconds).items())
    volumes = "  ".join(f"{region} {ml:.1f}" for region, ml in volumes_ml.items())
    return [
        f"{slices} slices, milliseconds per slice: {latency}",
        f"volumes in mL: {volumes}",
        "Research software, not a medical device: not for diagnosis or treatment.",
    ]
