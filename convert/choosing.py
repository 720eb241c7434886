"""Which slices of a volume a network is calibrated on: the usual few, or more and better ones."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from glioslice.slices import brain_of, crop_of, cut, z_scores

SLICES_PER_CASE = 8
MORE_PER_CASE = 24

T = TypeVar("T")
Volume = tuple[NDArray[np.float32], NDArray[np.uint8] | None]


def usual(volume: Volume, window: tuple[int, int], clip: float) -> NDArray[np.float32]:
    """Return SLICES_PER_CASE slices spread over the brain, half of them through the tumour.

    They are (n, window X, window Y, 4) z-scores. Raises GliosliceError if there is no brain or it
    is larger than the window.
    """
    slices, tumour = _cut(volume, window, clip)
    with_it, without = np.flatnonzero(tumour), np.flatnonzero(~tumour)
    half = SLICES_PER_CASE // 2
    chosen = [*spread(list(with_it), half)]
    chosen += spread(list(without), SLICES_PER_CASE - len(chosen))
    return np.asarray(slices[sorted(chosen)], np.float32)


def better(volume: Volume, window: tuple[int, int], clip: float) -> NDArray[np.float32]:
    """Return MORE_PER_CASE slices: a half through the tumour, a quarter the brightest, others.

    The extremes that become ranges sit where values are large. The brightest slices have the
    largest sum of fourth powers of z-scores: there a few large values outweigh many middling ones.
    Where there is no tumour, or too few slices, others take the places.
    """
    slices, tumour = _cut(volume, window, clip)
    chosen = set(spread(list(np.flatnonzero(tumour)), MORE_PER_CASE // 2))
    brightness = (slices.astype(np.float64) ** 4).sum(axis=(1, 2, 3))
    brightest = [i for i in np.argsort(-brightness, kind="stable") if i not in chosen]
    chosen |= set(brightest[: MORE_PER_CASE // 4])
    others = [i for i in range(len(slices)) if i not in chosen]
    chosen |= set(spread(others, MORE_PER_CASE - len(chosen)))
    return np.asarray(slices[sorted(chosen)], np.float32)


def spread(items: Sequence[T], most: int) -> tuple[T, ...]:
    """Return at most `most` of the items, evenly spaced."""
    if len(items) <= most:
        return tuple(items)
    return tuple(items[i] for i in np.linspace(0, len(items) - 1, most).round().astype(int))


def _cut(
    volume: Volume, window: tuple[int, int], clip: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return all slices that hold brain, and which of them hold tumour."""
    images, labels = volume
    brain = brain_of(images)
    crop = crop_of(brain, window)
    slices = cut(z_scores(images, brain, clip), crop)
    if labels is None:
        return slices, np.zeros(len(slices), bool)
    return slices, cut(labels, crop).any(axis=(1, 2))
