"""How confident the network is in a mask: one byte, from the logits along the regions' borders.

A pixel belongs to a region if its logit is above the threshold. Where the network is confident, the
logit rises steeply from the border inwards. Where it is not, the region is faint: its logits barely
exceed the threshold. docs/confidence.md compares the byte with Dice, and with other definitions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.messages import UNKNOWN

STEPS_PER_LOGIT = 64
"""Steps of the byte per logit. One logit is a probability of 73 % by the network's own estimate."""

MAX_DISTANCE = 254
"""The largest distance that counts, of a pixel and of a mask: just under 4 logits, 98 %."""

BORDER_WIDTH = 8
"""Pixels: how far inwards from its border, along either axis or both, a region is evaluated."""

LARGEST_DISTANCE = 2 * 255
"""In steps of a network: of the sum of two int8 logits from twice the zero point."""

FRACTION_BITS = 16
"""Precision of the fixed-point factor that turns a network's steps into those of the byte."""


def mask_confidence(logits: NDArray[Any], scale: float, zero_point: int) -> int:
    """Return the confidence in the mask of logits (X, Y, 3): integers with `scale`, or float32.

    For each region that is present: the mean distance of its border strip from the threshold.
    The result is the mean over those regions. For an empty mask: the distance of the pixel nearest
    to the threshold. 0 to MAX_DISTANCE, or UNKNOWN if a logit is not finite. Integer arithmetic
    only, so integer logits (int8, or the int16 sums of mirroring) give the same byte on every
    machine.
    """
    if logits.dtype.kind == "f" and not np.isfinite(logits).all():
        return UNKNOWN
    pixels, channels = logits.shape[1:]
    rows = logits.reshape(-1, pixels * channels)  # numpy is slow along a last axis of three
    inside = rows > zero_point
    if not inside.any():
        return int(threshold_distances(rows.max(keepdims=True), scale, zero_point)[0, 0])
    x = np.flatnonzero(inside.any(axis=1))
    y = np.flatnonzero(inside.any(axis=0)) // channels
    box = slice(x[0], x[-1] + 1), slice(y[0] * channels, (y[-1] + 1) * channels)
    strips = border_strips(inside[box], channels)
    distances = threshold_distances(rows[box], scale, zero_point) * strips
    sums, counts = (
        values.sum(axis=0, dtype=np.int64).reshape(-1, channels).sum(axis=0).tolist()
        for values in (distances, strips)
    )
    means = [256 * total // n for total, n in zip(sums, counts, strict=True) if n]
    return int(sum(means) // len(means) // 256)


def threshold_distances(logits: NDArray[Any], scale: float, zero_point: int) -> NDArray[np.uint8]:
    """Return the distance of logits from the threshold in steps of the byte, 0 to MAX_DISTANCE."""
    if logits.dtype.kind == "f":
        exact = np.minimum(np.abs(logits), MAX_DISTANCE / STEPS_PER_LOGIT) * STEPS_PER_LOGIT
        return np.asarray(np.rint(exact), np.uint8)
    factor = round(scale * STEPS_PER_LOGIT * (1 << FRACTION_BITS))
    steps = np.arange(LARGEST_DISTANCE + 1, dtype=np.int64)
    rounded = steps * factor + (1 << FRACTION_BITS - 1) >> FRACTION_BITS
    table = np.minimum(rounded, MAX_DISTANCE).astype(np.uint8)
    return np.asarray(table[np.abs(logits.astype(np.int16) - zero_point)])


def border_strips(
    inside: NDArray[np.bool_], channels: int, width: int = BORDER_WIDTH
) -> NDArray[np.bool_]:
    """Return the pixels of regions (X, Y * channels) within `width` pixels of one outside."""
    interior = inside
    for axis, stride in ((0, 1), (1, channels)):
        margin = [(0, 0), (0, 0)]
        margin[axis] = (width * stride, width * stride)
        # An erosion: each pixel is the AND of `reach` pixels from it onwards.
        interior, reach = np.pad(interior, margin), 1
        while reach <= 2 * width:
            step = min(reach, 2 * width + 1 - reach)
            ahead = interior[step * stride :] if axis == 0 else interior[:, step * stride :]
            behind = interior[: -step * stride] if axis == 0 else interior[:, : -step * stride]
            interior, reach = ahead & behind, reach + step
    return inside & ~interior
