"""Does a case look like those that the networks know? What was seen if not, and what to do.

Nothing is refused here: a warning is for eyes. The limits are those of `benchmarks/inputs/`, 39
patients and the ten phantoms, with room on both sides; `benchmarks/unusual_inputs.py` measures them.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from glioslice.dataset_layouts import MODALITIES
from glioslice.preprocessing import brain_of

TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}
FLAIR, T1, T1CE, T2 = range(4)
PAIRS = tuple(combinations(range(len(MODALITIES)), 2))

MILLILITRES = 930, 2080
"""Of the brain: 1,174 to 1,731 seen, and a fifth of room."""

SIDES = (102, 168), (122, 210), (107, 168)
"""Voxels of the brain left to right, front to back, feet to head: an eighth of room and more."""

FILL = 0.36, 0.60
"""Share of its bounding box that a brain fills: 0.42 to 0.52 seen; a cylinder has 0.79."""

ENCLOSED = 0.01
"""Of the brain's volume, how much may be 0 within its outline: at most 0.0008 seen."""

SAME = 0.5
"""Share of the brain in which an image may have one and the same value: 0.34 seen, a FLAIR that
ends above a third of the brain."""

ALIKE = 0.96
"""Correlation of two modalities: at most 0.88 seen."""

WAYS = ("left to right", "front to back", "feet to head")

LEEWAY = 0.1
"""How far an order between modalities may be turned round, which it was in nobody."""

SAMPLE = 200_000
"""Voxels of the brain, about, from which images are compared."""


@dataclass(frozen=True)
class Shape:
    """A brain: millilitres, voxels on each axis, the share of its bounding box that it fills.

    `enclosed` is what is 0 within its outline, as a share of its volume.
    """

    millilitres: float
    sides: tuple[int, ...]
    fill: float
    enclosed: float


@dataclass(frozen=True)
class Contrasts:
    """Of each modality, in the brain: its commonest value, and the share of the brain that has it.

    `bright` is the 99th percentile in deviations from the mean. `alike` is the correlation of each
    of PAIRS, 0 with a modality that is constant.
    """

    commonest: tuple[float, ...]
    same: tuple[float, ...]
    bright: tuple[float, ...]
    alike: tuple[float, ...]

    def pair(self, one: int, other: int) -> float:
        """Return the correlation of two modalities."""
        return self.alike[PAIRS.index((min(one, other), max(one, other)))]


def oddities(images: NDArray[np.float32]) -> list[str]:
    """Return a warning for each way in which images (4, X, Y, Z), LPS, 1 mm, look unlike a case."""
    brain = brain_of(images)
    if not brain.any():
        return ["Every voxel of the images is 0: there is no brain to see."]
    return odd_contrasts(contrasts_of(sampled(images, brain))) + odd_shape(shape_of(brain))


def odd_contrasts(seen: Contrasts) -> list[str]:
    """Return a warning for each way in which modalities are unlike themselves."""
    return [*_flat(seen), *_doubled(seen)] or _swapped(seen)


def sampled(images: NDArray[np.float32], brain: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return voxels of the brain (X, Y, Z), spread over all of it, as (4, N)."""
    places = np.flatnonzero(brain)
    places = places[:: max(1, len(places) // SAMPLE)]
    return np.stack([image.reshape(-1)[places].astype(np.float64) for image in images])


def contrasts_of(sample: NDArray[np.float64]) -> Contrasts:
    """Return what voxels (4, N) look like."""
    commonest, same = zip(*(_commonest(values) for values in sample), strict=True)
    spread = sample.std(axis=1, keepdims=True)
    scores = (sample - sample.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    alike = scores @ scores.T / scores.shape[1]
    return Contrasts(
        commonest=commonest,
        same=same,
        bright=tuple(float(v) for v in np.percentile(scores, 99, axis=1)),
        alike=tuple(float(alike[pair]) for pair in PAIRS),
    )


def shape_of(brain: NDArray[np.bool_]) -> Shape:
    """Return what a brain (X, Y, Z), not empty, looks like."""
    box = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        filled = np.flatnonzero(brain.any(axis=others))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    whole = brain[tuple(box)]
    voxels = int(np.count_nonzero(whole))
    enclosed = int(np.count_nonzero(_enclosed(whole)))
    return Shape(voxels / 1000, whole.shape, voxels / whole.size, enclosed / voxels)


def _commonest(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the commonest value, and the share that has it."""
    found, counts = np.unique(values, return_counts=True)
    most = int(counts.argmax())
    return float(found[most]), int(counts[most]) / len(values)


def _enclosed(whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what lies outside a brain that fills its box, but between parts of it on each axis."""
    held = ~whole
    for axis in range(3):
        for turned in (whole, np.flip(whole, axis)):
            reached = np.logical_or.accumulate(turned, axis=axis)
            held &= reached if turned is whole else np.flip(reached, axis)
    return held


def _flat(seen: Contrasts) -> list[str]:
    return [
        f"{TITLES[name]} is {value:g} in {share:.0%} of the brain: it looks missing or cut off. "
        f"Check its file; without {TITLES[name]} the masks are of another quality."
        for name, share, value in zip(MODALITIES, seen.same, seen.commonest, strict=True)
        if share > SAME
    ]


def _doubled(seen: Contrasts) -> list[str]:
    names = [(TITLES[MODALITIES[a]], TITLES[MODALITIES[b]]) for a, b in PAIRS]
    return [
        f"{one} and {other} are nearly the same image (correlation {alike:.3f}): one looks like a "
        "copy of the other. Check both files."
        for (one, other), alike in zip(names, seen.alike, strict=True)
        if alike > ALIKE
    ]


def _swapped(seen: Contrasts) -> list[str]:
    """Hold the orders between modalities that all of `benchmarks/inputs/` keep."""
    turned = []
    for near, usual, other in ((T1, T1CE, T2), (T1CE, T1, T2), (T1CE, FLAIR, T2)):
        more, less = seen.pair(near, other), seen.pair(near, usual)
        if more - less > LEEWAY:
            one, two, three = (TITLES[MODALITIES[place]] for place in (near, usual, other))
            turned.append(
                f"{three} resembles {one} more than {two} does (correlation {more:.2f}, {less:.2f})"
            )
    if seen.bright[T1] - seen.bright[T1CE] > LEEWAY:
        turned.append(
            "the brightest parts of T1 stand out more than those of T1ce "
            f"({seen.bright[T1]:.1f}, {seen.bright[T1CE]:.1f} deviations)"
        )
    if not turned:
        return []
    return [
        f"Modalities may have each other's names, or be other sequences: {'; '.join(turned)}. "
        "Look at the four images."
    ]


def odd_shape(seen: Shape) -> list[str]:
    """Return a warning for each way in which a brain has not the shape of one."""
    found = []
    if seen.enclosed > ENCLOSED:
        found.append(
            f"{seen.enclosed * seen.millilitres:,.0f} mL within the outline of the brain are 0, as "
            "where bone and air lie between brain and scalp: it looks not skull-stripped. Strip it "
            "(docs/from-scanner.md)."
        )
    measured = [
        (f"{seen.millilitres:,.0f} mL", seen.millilitres, MILLILITRES),
        *(
            (f"{n} mm {way}", n, limits)
            for n, way, limits in zip(seen.sides, WAYS, SIDES, strict=True)
        ),
        (f"{seen.fill:.0%} of its bounding box", seen.fill, FILL),
    ]
    unlike = [what for what, value, (low, high) in measured if not low <= value <= high]
    if unlike:
        found.append(
            f"What is not 0 has {', '.join(unlike)}, unlike the brains that the networks know: "
            "another part of the body, a head that is not skull-stripped, or part of a brain. Look "
            "at the images."
        )
    return found
