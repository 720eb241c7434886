"""Warnings about images that differ from those that the networks were trained on.

A warning names what was measured and what to check; it never makes a case unusable. The limits are
the ranges of 39 patients and ten phantoms with a margin on both sides; 21 patients who came later
are within them (`benchmarks/inputs/`, measured by `benchmarks/unusual_inputs.py`).
"""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from glioslice.cases import Case, case_digest
from glioslice.dataset_layouts import MODALITIES, MODALITY_TITLES, missing_warnings
from glioslice.labels import occupied_box
from glioslice.model_card import Card
from glioslice.preprocessing import WILD, Images, brain_mask, modality_statistics, voxels_in

TRAINED_ON = "The model was trained on this case: its mask does not show how it does on others."

FLAIR, T1, T1CE, T2 = range(4)
PAIRS = tuple(combinations(range(len(MODALITIES)), 2))

VOLUME_ML = 930, 2080
"""Limits of the brain's volume: 1,146 to 1,747 mL measured, a margin of almost a fifth."""

SIDES = (102, 168), (122, 210), (107, 168)
"""Limits of the brain's size in voxels along each axis, with a margin of an eighth or more."""

FILL = 0.36, 0.60
"""Limits of the share of its bounding box that a brain fills: 0.41 to 0.52; a cylinder has 0.79."""

MAX_ENCLOSED = 0.01
"""Highest share of zero voxels inside the brain's outline: at most 0.0008 measured."""

MAX_CONSTANT = 0.5
"""Highest share of the brain with one single value: 0.34 measured, in a FLAIR that lacks a third
of the brain."""

MAX_CORRELATION = 0.96
"""Highest correlation of two modalities: at most 0.88 measured."""

AXES = ("left to right", "front to back", "feet to head")

ORDER_TOLERANCE = 0.1
"""By how much an order between modalities may be violated; none of the patients violates one."""

SIGNED_LIMITS = (127, 32767)
"""Highest values of signed integers of 8 and 16 bits; what exceeds them becomes negative."""

MAX_RIM = 0.1
"""Median of the values below 0 that interpolation leaves, as a share of that of those above."""

MIN_NEGATIVE, MAX_NEGATIVE = 0.001, 0.25
"""Shares of negative voxels that are unusual; images as z-scores have more, others none."""

SAMPLE_SIZE = 100_000
"""Approximate number of brain voxels from which modalities are compared."""


@dataclass(frozen=True)
class BrainShape:
    """Size and shape of a brain.

    `sides` are the voxels along each axis, `fill` is the share of the bounding box that is brain,
    `enclosed` the volume of zero voxels inside the outline as a share of the brain's volume.
    """

    millilitres: float
    sides: tuple[int, ...]
    fill: float
    enclosed: float


@dataclass(frozen=True)
class Contrasts:
    """Intensity statistics of each modality within the brain.

    `mode` is the most frequent value and `constant` the share of voxels that have it. `bright` is
    the 99th percentile in standard deviations from the mean. `correlations` are those of PAIRS, 0
    for a modality that is constant.
    """

    mode: tuple[float, ...]
    constant: tuple[float, ...]
    bright: tuple[float, ...]
    correlations: tuple[float, ...]

    def correlation(self, one: int, other: int) -> float:
        """Return the correlation of two modalities."""
        return self.correlations[PAIRS.index((min(one, other), max(one, other)))]


@dataclass(frozen=True)
class Intensities:
    """The values of one modality within the brain.

    `negative` is the share of values below 0 and `dip` the median of their distance from 0;
    `median` is that of the values above 0. `wild` counts the voxels that normalisation leaves out
    (`glioslice.preprocessing.WILD`), and `wildest` is the one farthest from the mean.
    """

    lowest: float
    highest: float
    negative: float
    dip: float
    median: float
    wild: int
    wildest: float


def case_warnings(case: Case) -> list[str]:
    """Return all warnings about a case: what reading it had to assume, and `find_warnings`."""
    return [*case.warnings, *find_warnings(case.volumes, case.missing)]


def mask_warnings(case: Case, card: Card) -> list[str]:
    """Return all warnings about a case, and whether the model of `card` was trained on it.

    The digest of a case takes a quarter of the time of its segmentation, so it is computed only if
    the training had a case of that name.
    """
    named = case.name in {trained.get("case") for trained in card.content["training"]["cases"]}
    seen = named and case_digest(case) in card.trained_on
    return [*case_warnings(case), *([TRAINED_ON] if seen else [])]


def find_warnings(images: Images, missing: Collection[str] = ()) -> list[str]:
    """Return the warnings about images (4, X, Y, Z) in LPS at 1 mm; empty if they look usual.

    The images of the modalities `missing` are known to be 0.
    """
    brain = brain_mask(images)
    if not brain.any():
        return ["Every voxel of the images is 0: there is no brain."]
    found, sampled, step = [], [], sample_step(brain)
    for index, modality in enumerate(MODALITIES):
        values = voxels_in(images, index, brain)
        statistics = modality_statistics(images, index, brain)
        found += intensity_warnings(modality, measure_intensities(values, *statistics))
        sampled.append(values[::step])
    contrasts = measure_contrasts(np.asarray(sampled, np.float64))
    return found + contrast_warnings(contrasts, missing) + shape_warnings(measure_shape(brain))


def measure_intensities(
    values: NDArray[np.float32], mean: np.float32, deviation: np.float32
) -> Intensities:
    """Return what is known of the values of one modality in the brain, with their statistics."""
    lowest, highest = float(values.min()), float(values.max())
    wildest = lowest if mean - lowest > highest - mean else highest
    wild = 0
    if abs(wildest - mean) > WILD * deviation:
        wild = int(np.count_nonzero(np.abs(values - mean) > WILD * deviation))
    below = values[values < 0] if lowest < 0 else values[:0]
    above = values[values > 0] if len(below) else values[:0]
    return Intensities(
        lowest=lowest,
        highest=highest,
        negative=len(below) / len(values),
        dip=float(np.median(-below)) if len(below) else 0.0,
        median=float(np.median(above)) if len(above) else 0.0,
        wild=wild,
        wildest=wildest,
    )


def intensity_warnings(modality: str, measured: Intensities) -> list[str]:
    """Return warnings about values that no MR image has."""
    title, share = MODALITY_TITLES[modality], measured.negative
    found = []
    if measured.wild:
        voxels = "1 voxel" if measured.wild == 1 else f"{measured.wild:,} voxels"
        found.append(
            f"{title} has {voxels} far from all others (up to {measured.wildest:g}), which "
            "normalisation leaves out. Check the file: it is damaged, or holds a tool's marker."
        )
    wrapped = any(
        0.95 * limit < measured.highest <= limit and -limit - 1 <= measured.lowest < -0.8 * limit
        for limit in SIGNED_LIMITS
    )
    if not MIN_NEGATIVE < share < MAX_NEGATIVE:
        return found
    if wrapped:
        found.append(
            f"{title} reaches {measured.highest:g}, and {share:.1%} of it is negative, down to "
            f"{measured.lowest:g}: unsigned values were stored as signed ones, so that the "
            "brightest became the darkest. Export the series again as unsigned or as float."
        )
    elif measured.dip < MAX_RIM * measured.median:
        found.append(
            f"{share:.1%} of {title} is below 0, most of it by little: "
            "interpolation leaves such a rim around the brain, and the rim counts as brain. Set "
            "what was 0 before the interpolation back to 0."
        )
    else:
        found.append(
            f"{share:.1%} of {title} is negative, down to {measured.lowest:g}; MR images "
            "are not: its sign or scale is damaged. Export the series again."
        )
    return found


def contrast_warnings(contrasts: Contrasts, missing: Collection[str] = ()) -> list[str]:
    """Return warnings about modalities that are missing, copied or swapped."""
    found = [*missing_warnings(missing), *_constant_warnings(contrasts, missing)]
    found += _copy_warnings(contrasts)
    return found or _order_warnings(contrasts)


def sample_step(brain: NDArray[np.bool_]) -> int:
    """Return of how many voxels of the brain (X, Y, Z) one is sampled."""
    return max(1, int(np.count_nonzero(brain)) // SAMPLE_SIZE)


def measure_contrasts(sample: NDArray[np.float64]) -> Contrasts:
    """Return the statistics of sampled voxels (4, N)."""
    mode, constant = zip(*(_mode(values) for values in sample), strict=True)
    deviation = sample.std(axis=1, keepdims=True)
    scores = (sample - sample.mean(axis=1, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    correlations = scores @ scores.T / scores.shape[1]
    return Contrasts(
        mode=mode,
        constant=constant,
        bright=tuple(float(v) for v in np.percentile(scores, 99, axis=1)),
        correlations=tuple(float(correlations[pair]) for pair in PAIRS),
    )


def measure_shape(brain: NDArray[np.bool_]) -> BrainShape:
    """Return the size and shape of a brain (X, Y, Z), which must not be empty."""
    cropped = brain[occupied_box(brain)]
    voxels = int(np.count_nonzero(cropped))
    enclosed = int(np.count_nonzero(_enclosed_voxels(cropped)))
    return BrainShape(voxels / 1000, cropped.shape, voxels / cropped.size, enclosed / voxels)


def shape_warnings(shape: BrainShape) -> list[str]:
    """Return warnings about a brain of unusual size or shape."""
    found = []
    if shape.enclosed > MAX_ENCLOSED:
        found.append(
            f"{shape.enclosed * shape.millilitres:,.0f} mL inside the outline of the brain are 0, "
            "like bone and air between brain and scalp: the images do not look skull-stripped. "
            "Strip them (docs/from-scanner.md)."
        )
    measured = [
        (f"{shape.millilitres:,.0f} mL", shape.millilitres, VOLUME_ML),
        *(
            (f"{n} mm {axis}", n, limits)
            for n, axis, limits in zip(shape.sides, AXES, SIDES, strict=True)
        ),
        (f"{shape.fill:.0%} of its bounding box", shape.fill, FILL),
    ]
    unusual = [text for text, value, (low, high) in measured if not low <= value <= high]
    if unusual:
        found.append(
            f"The part that is not 0 has {', '.join(unusual)}, unlike the brains that the networks "
            "were trained on: another part of the body, a head that is not skull-stripped, or part "
            "of a brain. Look at the images."
        )
    return found


def _mode(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the most frequent value and its share."""
    found, counts = np.unique(values, return_counts=True)
    most = int(counts.argmax())
    return float(found[most]), int(counts[most]) / len(values)


def _enclosed_voxels(brain: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels outside a brain that lie between two of its voxels along every axis."""
    planes = np.ascontiguousarray(brain.T)  # (Z, Y, X), as files are in memory
    enclosed = ~planes
    for axis in (0, 1):
        along, inside = np.moveaxis(planes, axis, 0), np.moveaxis(enclosed, axis, 0)
        for order in (slice(None), slice(None, None, -1)):
            passed = np.zeros_like(along[0])
            for plane, found in zip(along[order], inside[order], strict=True):
                found &= passed
                passed |= plane
    rows = enclosed.any(axis=2)  # few, unless something is wrong
    left = np.logical_or.accumulate(planes[rows], axis=1)
    right = np.logical_or.accumulate(planes[rows][:, ::-1], axis=1)[:, ::-1]
    enclosed[rows] &= left & right
    return enclosed.T


def _constant_warnings(contrasts: Contrasts, missing: Collection[str]) -> list[str]:
    return [
        f"{MODALITY_TITLES[name]} is {value:g} in {share:.0%} of the brain: it looks missing or "
        f"incomplete. Check its file; without {MODALITY_TITLES[name]} the masks are less accurate."
        for name, share, value in zip(MODALITIES, contrasts.constant, contrasts.mode, strict=True)
        if share > MAX_CONSTANT and name not in missing
    ]


def _copy_warnings(contrasts: Contrasts) -> list[str]:
    names = [(MODALITY_TITLES[MODALITIES[a]], MODALITY_TITLES[MODALITIES[b]]) for a, b in PAIRS]
    return [
        f"{one} and {other} are nearly the same image (correlation {correlation:.3f}): one looks "
        "like a copy of the other. Check both files."
        for (one, other), correlation in zip(names, contrasts.correlations, strict=True)
        if correlation > MAX_CORRELATION
    ]


def _order_warnings(contrasts: Contrasts) -> list[str]:
    """Check the orders between modalities that all cases of `benchmarks/inputs/` have."""
    violated = []
    for modality, similar, other in ((T1, T1CE, T2), (T1CE, T1, T2), (T1CE, FLAIR, T2)):
        high, low = contrasts.correlation(modality, other), contrasts.correlation(modality, similar)
        if high - low > ORDER_TOLERANCE:
            one, two, three = (MODALITY_TITLES[MODALITIES[i]] for i in (modality, similar, other))
            violated.append(
                f"{three} resembles {one} more than {two} does (correlation {high:.2f}, {low:.2f})"
            )
    if contrasts.bright[T1] - contrasts.bright[T1CE] > ORDER_TOLERANCE:
        violated.append(
            "the brightest parts of T1 stand out more than those of T1ce "
            f"({contrasts.bright[T1]:.1f}, {contrasts.bright[T1CE]:.1f} standard deviations)"
        )
    if not violated:
        return []
    return [
        f"Modalities may be swapped, or be other sequences: {'; '.join(violated)}. "
        "Look at the four images."
    ]
