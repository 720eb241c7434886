"""What a quality byte could be: several definitions, all told in the byte's own steps.

Each takes the logits of a slice, (X, Y, 3) float32 with the threshold at 0, and gives 0 to 254 for
a mask that holds something. An empty mask says the same by all: how far its nearest pixel is.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from device.quality import MOST, PER_LOGIT, STRIP, strips_of

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

DOUBT = 2.0
"""Logits: nearer to the threshold than this is a chance between 12 and 88 %."""


def strip(width: int) -> Callable[[Floats], float]:
    """Return how far a region is above the threshold, on average over a strip along its border."""

    def far(region: Floats) -> float:
        return float(_far(region)[_strip(region > 0, width)].mean())

    return far


def whole(region: Floats) -> float:
    """Return how far all of a region is above the threshold."""
    return float(_far(region)[region > 0].mean())


def both(region: Floats) -> float:
    """Return how far the two pixels on either side of the border are from the threshold."""
    inside = region > 0
    outside = np.pad(~inside, 2, constant_values=True)  # the window's edge is no border
    return float(_far(region)[_strip(inside, 2) | _strip(outside, 2)[2:-2, 2:-2]].mean())


def step(region: Floats) -> float:
    """Return half the step from a pixel outside to its neighbour inside."""
    steps = []
    for axis in (0, 1):
        ahead, behind = np.moveaxis(region, axis, 0)[1:], np.moveaxis(region, axis, 0)[:-1]
        steps.append(np.abs(ahead - behind)[(ahead > 0) != (behind > 0)])
    return min(MOST, float(np.concatenate(steps).mean()) / 2 * PER_LOGIT)


def sure(region: Floats) -> float:
    """Return which share the region has of itself and all pixels in doubt, of the whole slice."""
    pixels = np.count_nonzero(region > 0)
    return MOST * pixels / (pixels + np.count_nonzero(np.abs(region) < DOUBT))


def soft(region: Floats) -> float:
    """Return the Dice of the region with the chances that the network gives each pixel."""
    chances = 1 / (1 + np.exp(-np.clip(region, -30, 30)))
    inside = region > 0
    return float(MOST * 2 * chances[inside].sum() / (chances.sum() + inside.sum()))


DEFINITIONS: dict[str, tuple[str, Callable[[Floats], float]]] = {
    "strip-1": ("strip of 1 pixel inside the border", strip(1)),
    "strip-2": ("strip of 2 pixels", strip(2)),
    "strip-4": ("strip of 4 pixels", strip(4)),
    "whole": ("all of the region", whole),
    "both": ("2 pixels on both sides of the border", both),
    "step": ("step from pixel to pixel across the border", step),
    "sure": ("region as a share of itself and the pixels in doubt", sure),
    "soft": ("Dice of the mask with its own chances", soft),
}
"""What is compared with the byte itself; each is the mean of the regions that are there."""

BYTE = "byte"
TITLE = f"the byte: strip of {STRIP} pixels"


def defined(logits: Floats, byte: int) -> dict[str, int]:
    """Return what each definition says of a slice, and the byte that the device gives it."""
    there = [logits[..., i] for i in range(logits.shape[-1]) if (logits[..., i] > 0).any()]
    said = {BYTE: byte}
    for name, (_, definition) in DEFINITIONS.items():
        said[name] = round(float(np.mean([definition(r) for r in there]))) if there else byte
    return said


def _far(region: Floats) -> Floats:
    return np.minimum(np.abs(region) * PER_LOGIT, MOST).astype(np.float32)


def _strip(inside: Mask, width: int) -> Mask:
    return strips_of(inside, 1, width)
