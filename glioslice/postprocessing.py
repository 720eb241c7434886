"""Post-processing of the masks of a whole volume: small parts, and a small enhancing tumour.

    rules = PostprocessingRules(smallest_part=0.1, smallest_enhancing=100)
    result = postprocess(labels, rules)          # result.labels, result.summary()

The network sees one slice at a time. Once all masks of a volume are known, two things can be
decided that no slice shows: which parts of the tumour are too small to be plausible, and whether
anything enhances at all. The rules stand in a model's card; the host applies them after the last
mask. Sizes are voxels of 1 mm, because every case has these (`glioslice.nifti` refuses others).
numpy only: a board has no scipy.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from glioslice.labels import CORE, ENHANCING

Region = NDArray[np.bool_]


@dataclass(frozen=True)
class PostprocessingRules:
    """The rules of a model; the defaults change nothing.

    First, every part of the whole tumour smaller than the share `smallest_part` of the largest one
    becomes background. Parts are 26-connected. Then, an enhancing tumour of fewer than
    `smallest_enhancing` voxels in the whole volume becomes core. Applying them twice changes
    nothing more.
    """

    smallest_part: float = 0.0
    smallest_enhancing: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a limit out of its range."""
        if not 0 <= self.smallest_part <= 1:
            raise ValueError(f"smallest_part {self.smallest_part}, a share from 0 to 1,")
        if self.smallest_enhancing < 0 or self.smallest_enhancing != int(self.smallest_enhancing):
            raise ValueError(f"smallest_enhancing {self.smallest_enhancing}, a number of voxels,")

    def __bool__(self) -> bool:
        """Whether the rules can change a mask."""
        return self != NO_RULES


NO_RULES = PostprocessingRules()

STANDARD_RULES = PostprocessingRules(smallest_part=0.1, smallest_enhancing=100)
"""The rules of the shipped models. 100 voxels is the limit of the winners of BraTS 2023; both rules
are taken from the field and not fitted to our patients (docs/accuracy.md)."""


@dataclass(frozen=True)
class Postprocessed:
    """Labels (X, Y, Z), and what was changed: parts removed, and voxels by rule."""

    labels: NDArray[np.uint8]
    removed_parts: int = 0
    removed_voxels: int = 0
    core_voxels: int = 0

    @property
    def changed(self) -> bool:
        """Whether any voxel has another label than before."""
        return bool(self.removed_voxels or self.core_voxels)

    def summary(self) -> str:
        """Return one line on what the rules changed."""
        changes = []
        if self.removed_parts:
            parts = f"{self.removed_parts} small part{'s' * (self.removed_parts > 1)}"
            changes.append(f"{parts} of the tumour removed, {self.removed_voxels / 1000:.2f} mL")
        if self.core_voxels:
            changes.append(
                f"{self.core_voxels / 1000:.2f} mL of enhancing tumour, too little, became core"
            )
        return "; ".join(changes) or "nothing changed"


def postprocess(labels: NDArray[np.uint8], rules: PostprocessingRules) -> Postprocessed:
    """Apply `rules` to the labels (X, Y, Z) of a whole volume, which are not modified.

    All masks of the volume must be there: the size of a part that missing slices cut is unknown.
    """
    result = labels.copy()
    parts = voxels = core = 0
    if rules.smallest_part and (box := _bounding_box(labels != 0)) is not None:
        inside = result[box]
        small, parts = _small_components(inside != 0, rules.smallest_part)
        voxels = int(np.count_nonzero(small))
        inside[small] = 0
    enhancing = result == ENHANCING
    count = int(np.count_nonzero(enhancing))
    if 0 < count < rules.smallest_enhancing:
        result[enhancing] = CORE
        core = count
    return Postprocessed(result, parts, voxels, core)


def _bounding_box(region: Region) -> tuple[slice, ...] | None:
    """Return the smallest box that holds a region (X, Y, Z), None if it is empty."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(region.any(axis=others))
        if not filled.size:
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _small_components(region: Region, share: float) -> tuple[Region, int]:
    """Return the components of (X, Y, Z) smaller than `share` of the largest, and their number."""
    padded = np.pad(region, ((1, 1), (1, 1), (1, 1)))
    starts, stops = _runs(padded)
    roots = _connect(starts, stops, padded.shape)
    sizes = np.bincount(roots, stops - starts)
    small = (sizes > 0) & (sizes / sizes.max() < share)
    marks = np.zeros(padded.size + 1, np.int8)
    marks[starts[small[roots]]] = 1
    marks[stops[small[roots]]] = -1
    inside = np.cumsum(marks[:-1], dtype=np.int8).astype(bool).reshape(padded.shape)
    return inside[1:-1, 1:-1, 1:-1], int(np.count_nonzero(small))


def _runs(padded: Region) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return where the runs along the last axis start and stop, in the flattened array.

    No run touches the next row: the region is padded.
    """
    steps = np.flatnonzero(np.diff(padded.ravel())) + 1
    return steps[0::2], steps[1::2]


def _connect(
    starts: NDArray[np.intp], stops: NDArray[np.intp], shape: tuple[int, ...]
) -> NDArray[np.intp]:
    """Return for each run the lowest run of its 26-connected component.

    Two runs in neighbouring rows touch if they overlap once one of them is lengthened by a voxel at
    both ends. Every run points to a run of its component; pointers are shortened, and roots
    of touching runs joined, until nothing changes.
    """
    one_row, one_plane = shape[2], shape[1] * shape[2]
    pairs = []
    for plane, row in product((0, 1), (-1, 0, 1)):
        shift = plane * one_plane + row * one_row
        if shift <= 0:  # each pair of rows once
            continue
        first = np.searchsorted(stops, starts - 1 + shift, side="right")
        behind = np.searchsorted(starts, stops + 1 + shift, side="left")
        counts = np.maximum(behind - first, 0)
        ends = np.cumsum(counts)
        within = np.arange(counts.sum()) - np.repeat(ends - counts, counts)
        pairs.append(
            np.stack([np.repeat(np.arange(len(starts)), counts), np.repeat(first, counts) + within])
        )
    one, other = np.concatenate(pairs, axis=1)
    parents = np.arange(len(starts))
    while True:
        low, high = np.sort([parents[one], parents[other]], axis=0)
        if (low == high).all():
            return parents
        np.minimum.at(parents, high, low)
        while not np.array_equal(parents, shorter := parents[parents]):
            parents = shorter
