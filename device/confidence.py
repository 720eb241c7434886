"""How sure the network is of a mask: one byte, from the logits along the masks' borders.

A pixel is in a region when its logit is above the threshold. Where a network knows what it sees,
the logit climbs steeply from the border inwards; where it does not, the region is a faint one whose
logits hardly leave the threshold. docs/confidence.md holds the byte against Dice, and other
definitions against this one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.messages import UNKNOWN

PER_LOGIT = 64
"""Steps of the byte in one logit: 64 are a chance of 73 % by the network's own count."""

MOST = 254
"""The farthest that counts, of a pixel and so of a mask: just under 4 logits, 98 %."""

STRIP = 8
"""Pixels: how far from its border, along either axis or both, a region is looked at."""

FRACTION = 16
"""Bits behind the point in which a network's steps are turned into those of the byte."""


def quality_of(logits: NDArray[Any], scale: float, zero_point: int) -> int:
    """Return the quality of the mask of logits (X, Y, 3), int8 with `scale`, else float32.

    Of each region that is there, the mean distance of its strip from the threshold; of those, the
    mean. Of an empty mask, the distance of the pixel that is nearest to the threshold. 0 to MOST,
    or UNKNOWN where a logit is no number. Integers alone: int8 gives the same on every machine.
    """
    if logits.dtype != np.int8 and not np.isfinite(logits).all():
        return UNKNOWN
    pixels, channels = logits.shape[1:]
    rows = logits.reshape(-1, pixels * channels)  # numpy is slow along a last axis of three
    inside = rows > zero_point
    if not inside.any():
        return int(distances(rows.max(keepdims=True), scale, zero_point)[0, 0])
    x, y = extent(inside.any(axis=1)), extent(inside.any(axis=0))
    y = slice(y.start // channels * channels, -(-y.stop // channels) * channels)
    strip = strips_of(inside[x, y], channels)
    far = distances(rows[x, y], scale, zero_point) * strip
    sums, counts = (
        one.sum(axis=0, dtype=np.int64).reshape(-1, channels).sum(axis=0).tolist()
        for one in (far, strip)
    )
    means = [256 * total // n for total, n in zip(sums, counts, strict=True) if n]
    return int(sum(means) // len(means) // 256)


def distances(logits: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.uint8]:
    """Return how far logits are from the threshold, in steps of the byte, 0 to MOST."""
    if logits.dtype != np.int8:
        steps = np.rint(np.minimum(np.abs(logits), MOST / PER_LOGIT) * PER_LOGIT)
        return np.asarray(steps, np.uint8)
    factor = round(scale * PER_LOGIT * (1 << FRACTION))
    table = np.arange(256, dtype=np.int64) * factor + (1 << FRACTION - 1) >> FRACTION
    table = np.minimum(table, MOST).astype(np.uint8)
    return np.asarray(table[np.abs(logits.astype(np.int16) - zero_point)])


def strips_of(inside: NDArray[np.bool_], channels: int, width: int = STRIP) -> NDArray[np.bool_]:
    """Return the pixels of regions (X, Y * channels) that have an outer one within `width`."""
    deep = inside
    for axis, apart in ((0, 1), (1, channels)):
        margin = [(0, 0), (0, 0)]
        margin[axis] = (width * apart, width * apart)
        deep, reach = np.pad(deep, margin), 1  # a pixel stands for so many from it on
        while reach <= 2 * width:
            step = min(reach, 2 * width + 1 - reach)
            ahead = deep[step * apart :] if axis == 0 else deep[:, step * apart :]
            behind = deep[: -step * apart] if axis == 0 else deep[:, : -step * apart]
            deep, reach = ahead & behind, reach + step
    return inside & ~deep


def extent(filled: NDArray[np.bool_]) -> slice:
    """Return the range from the first to the last that is true."""
    places = np.flatnonzero(filled)
    return slice(int(places[0]), int(places[-1]) + 1)
