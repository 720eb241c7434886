"""Label schemes of the data sets, and the tumour regions that they share.

Inside glioslice a voxel's label is 0 background, 1 necrotic and non-enhancing core, 2 edema,
3 enhancing tumour, as in BraTS 2023. The regions are nested: ET (enhancing tumour) lies in TC
(tumour core), and TC in WT (whole tumour).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError

REGIONS = ("WT", "TC", "ET")
CORE, EDEMA, ENHANCING = 1, 2, 3


WHOLE_TOLERANCE = 0.02
"""By how much a label may differ from a whole number: tools that scale 0 to 255 give 1.0039."""

LISTED = 10
"""Most values that an error lists: an image given as a mask holds thousands."""


@dataclass(frozen=True)
class LabelScheme:
    """The values that one data set uses for core, edema and enhancing tumour.

    `others` are further values of its ground truths, each with the label that it becomes here.
    """

    edition: str
    core: int
    edema: int
    enhancing: int
    others: tuple[tuple[int, int], ...] = ()

    @property
    def values(self) -> tuple[int, int, int]:
        """The values in the order of our labels: core, edema, enhancing."""
        return (self.core, self.edema, self.enhancing)

    @property
    def readable(self) -> set[int]:
        """All values that a ground truth may have, but 0."""
        return {*self.values, *(value for value, _ in self.others)}


BRATS_2018 = LabelScheme("BraTS 2018-2021", core=1, edema=2, enhancing=4)
BRATS_2023 = LabelScheme("BraTS 2023 and later", core=1, edema=2, enhancing=3)
DECATHLON = LabelScheme("Decathlon Task01", core=2, edema=1, enhancing=3)
SCHEMES = (BRATS_2018, BRATS_2023, DECATHLON)
"""Schemes in which masks are written; their order is part of the serial protocol."""

BRATS_2024 = LabelScheme("BraTS 2024 after treatment", 1, 2, 3, others=((4, 0),))
"""Value 4 is the resection cavity, which belongs to no region."""

BRATS_2024_CHILDREN = LabelScheme("BraTS 2024 children", 2, 4, 1, others=((3, CORE),))
"""Value 3 is a cyst, which belongs to the tumour core."""

EDITIONS: Mapping[str, LabelScheme] = {
    "brats2018": BRATS_2018,
    "brats2023": BRATS_2023,
    "msd": DECATHLON,
    "brats2024": BRATS_2024,
    "brats2024-children": BRATS_2024_CHILDREN,
}
"""Editions whose masks can be read, by the names that `--edition` takes."""


def whole_labels(voxels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the voxels of a mask, of any type, as whole numbers.

    Raises GliosliceError if they are not labels: fractions, negative, or above 255.
    """
    if voxels.dtype == np.uint8:
        return voxels
    if voxels.dtype.kind == "f":
        rounded = np.rint(voxels)
        if np.abs(voxels - rounded).max(initial=0) > WHOLE_TOLERANCE:
            values = list_values(np.unique(voxels[voxels != rounded]))
            raise GliosliceError(
                f"holds {values}, which are not whole numbers: it is an image, or a mask that was "
                "interpolated; resample a mask by nearest neighbour"
            )
        voxels = rounded
    low, high = float(voxels.min(initial=0)), float(voxels.max(initial=0))
    if low < 0 or high > 255:
        raise GliosliceError(
            f"holds values from {low:g} to {high:g}: it is an image, not a mask of labels"
        )
    return voxels.astype(np.uint8)


def label_values(mask: NDArray[np.uint8]) -> set[int]:
    """Return the values of a mask but 0; `np.unique` would sort all voxels."""
    return set(np.flatnonzero(np.bincount(mask[occupied_box(mask != 0)].ravel())).tolist()) - {0}


def occupied_box(occupied: NDArray[np.bool_], margin: int = 0) -> tuple[slice, ...]:
    """Return the smallest box (one slice an axis) with all true voxels, and `margin` around it."""
    box = []
    for axis, size in enumerate(occupied.shape):
        others = tuple(other for other in range(occupied.ndim) if other != axis)
        filled = np.flatnonzero(occupied.any(axis=others))
        low, high = (filled[0], filled[-1] + 1) if filled.size else (0, 0)
        box.append(slice(max(0, low - margin), min(size, high + margin)))
    return tuple(box)


def list_values(values: Iterable[float]) -> str:
    """Return the values as text, the first ten if there are more."""
    ordered = sorted(values)
    listed = " ".join(f"{value:g}" for value in ordered[:LISTED])
    more = len(ordered) - LISTED
    return f"{listed} and {more:,} more" if more > 0 else listed


def from_scheme(mask: NDArray[np.uint8], scheme: LabelScheme) -> NDArray[np.uint8]:
    """Convert a mask from the values of `scheme` to our labels; other values become background."""
    table = np.zeros(256, np.uint8)
    table[list(scheme.values)] = (CORE, EDEMA, ENHANCING)
    for value, label in scheme.others:
        table[value] = label
    return _look_up(table, mask)


def to_scheme(labels: NDArray[np.uint8], scheme: LabelScheme) -> NDArray[np.uint8]:
    """Convert our labels (0 to 3) to the values of `scheme`."""
    return _look_up(np.array((0, *scheme.values), np.uint8), labels)


def _look_up(table: NDArray[np.uint8], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `table[labels]`, of which the first entry is 0: looks at the tumour alone."""
    result = np.zeros_like(labels)
    box = occupied_box(labels != 0)
    result[box] = table[labels[box]]
    return result


def to_regions(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Convert labels (...) to binary masks of WT, TC, ET (3, ...)."""
    return np.stack([labels > 0, (labels == CORE) | (labels == ENHANCING), labels == ENHANCING])


def to_labels(regions: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Convert binary masks of WT, TC, ET (3, ...) to labels (...).

    ET overrides TC and TC overrides WT: a voxel of a smaller region belongs to the larger ones
    too, even where the network's outputs disagree.
    """
    wt, tc, et = regions
    labels = np.where(wt, np.uint8(EDEMA), np.uint8(0))
    labels[tc] = CORE
    labels[et] = ENHANCING
    return labels


def check_nesting(labels: NDArray[np.uint8]) -> None:
    """Detect swapped labels of core and edema by their position: edema is the outer shell.

    Of all voxel faces at which a label ends, some touch background. In a correct mask that share
    is larger for the edema than for the core: 0.52 to 0.95 against 0.00 to 0.48 in the 39
    patients measured. Masks without core or edema pass.

    Raises GliosliceError if the core has the larger share.
    """
    tumour = labels[occupied_box(labels != 0, margin=1)]
    core, edema = (_exposed_share(tumour, label) for label in (CORE, EDEMA))
    if core > edema:
        raise GliosliceError(
            f"the regions cannot nest: {core:.0%} of the core's surface touches healthy tissue but "
            f"{edema:.0%} of the edema's; core and edema are swapped"
        )


def _exposed_share(labels: NDArray[np.uint8], label: int) -> float:
    """Return the share of the outer faces of `label` that touch background.

    Without any face it is 1 for edema and 0 for the core, so that such a mask passes.
    """
    faces = exposed = 0
    for axis in range(labels.ndim):
        along = np.moveaxis(labels, axis, 0)
        for inner, outer in ((along[:-1], along[1:]), (along[1:], along[:-1])):
            boundary = (inner == label) & (outer != label)
            faces += np.count_nonzero(boundary)
            exposed += np.count_nonzero(boundary & (outer == 0))
    if faces:
        return exposed / faces
    return 1.0 if label == EDEMA else 0.0
