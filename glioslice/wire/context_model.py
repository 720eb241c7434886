"""The context model of the mask codec: bit planes, a prediction, and trees of probabilities.

A mask is three bit planes, its regions WT, TC and ET. A plane is flat, row after row, with `REACH`
zeros around the image, so that a neighbour is always a fixed distance away. The codec codes WT,
then TC within it, then ET within that. The prediction of a region is that region in the previous
slice, as far as the larger region still holds it. A pixel of the larger region is

    open     if the 3 x 3 pixels around it are not all predicted to be equal,
    touched  if one of the four before it (left, and the three above) has changed, which means that
             it is not as predicted.

Every open or touched pixel is coded. A change of any other is rare. It is a seed, which is coded by
its place among the pixels of its class.

The probability that a pixel changes is the leaf of a context tree, one tree per region. Each node
reads one pixel near the coded one, from one of six planes: WT, TC, ET of this slice, then those of
the previous one. The file, which `benchmarks/mask_codecs.py --learn` writes:

    u16       number of contexts, n
    n x       u8 plane, 0 to 5 | i8 rows down | i8 columns to the right
    48 x u16  probabilities that another seed follows: 3 regions x 4 classes x 4 counts
    3 x       a tree in preorder, u16 a node: the number of a context and then the branches for 0
              and for 1, or 0x8000 + the probability that the pixel changes

Both ends must have the same tables: they are a part of the format, others are another codec.
"""

import struct
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioslice.labels import EDEMA

Plane = NDArray[np.uint8]
MaskArray = NDArray[np.uint8]
"""(rows, columns) of labels 0 to 3."""

REGION_COUNT = 3
LABELS = REGION_COUNT + 1
"""Of a mask: 0 to 3."""
REACH = 4

CLASSES = 4
"""Of pixels that are not open: 2 if predicted to be 1, else 0, plus 1 if the 7 x 7 pixels around
are predicted to be equal too."""

COUNTS = 4
"""How many seeds of a class came before: 0, 1, 2, or more."""

PATH = Path(__file__).with_name("mask_tables.bin")
LEAF = 0x8000
CONTEXT = struct.Struct("<Bbb")

Context = tuple[int, int, int]
"""A plane, rows down and columns to the right."""


@dataclass(frozen=True)
class MaskGrid:
    """Rows and columns of a mask, and how its planes lie in memory."""

    rows: int
    columns: int

    @cached_property
    def stride(self) -> int:
        """Distance from a pixel to the one below."""
        return self.columns + 2 * REACH

    @cached_property
    def size(self) -> int:
        """Bytes of a plane."""
        return (self.rows + 2 * REACH) * self.stride

    @cached_property
    def next_pixels(self) -> tuple[int, int, int, int]:
        """Distances to the pixels that a changed one touches: right, and the three below."""
        return 1, self.stride - 1, self.stride, self.stride + 1

    def image(self, planes: Plane) -> Plane:
        """Return a view of the pixels within the image of a flat plane, or of several."""
        square = planes.reshape(*planes.shape[:-1], -1, self.stride)
        return square[..., REACH:-REACH, REACH:-REACH]

    def inside(self) -> Plane:
        """Return the plane of the image: 1 in it, 0 around it."""
        plane = np.zeros(self.size, np.uint8)
        self.image(plane)[:] = 1
        return plane


@dataclass(frozen=True)
class Prediction:
    """What is known of a region before the first of its pixels is coded.

    `larger` is the region that holds it, `values` are the predicted pixels, `open` the pixels that
    are coded in any case, `classes` the class of every other, or CLASSES outside of `larger`.
    """

    larger: Plane
    values: Plane
    open: Plane
    classes: Plane


def split_planes(mask: MaskArray, grid: MaskGrid, planes: Plane) -> None:
    """Write the regions of a mask (rows, columns) into planes (3, size), which are 0 around."""
    wt, tc, et = grid.image(planes)
    wt[:] = mask > 0
    tc[:] = mask & 1
    et[:] = mask > EDEMA


def join_planes(planes: Plane, grid: MaskGrid) -> MaskArray:
    """Return the mask (rows, columns) whose regions are planes (3, size)."""
    wt, tc, et = grid.image(planes)
    mask: MaskArray = (wt + et) * EDEMA - tc
    return mask


def predict(previous: Plane, larger: Plane, grid: MaskGrid) -> Prediction:
    """Return the prediction of a region that lies in `larger` and was `previous` before."""
    values = previous & larger
    unlike = is_mixed(values, 1, grid)
    classes = (values << 1) + (is_mixed(values, 3, grid) ^ 1)
    classes[(unlike | (larger ^ 1)).view(bool)] = CLASSES
    return Prediction(larger, values, unlike & larger, classes)


def is_mixed(plane: Plane, reach: int, grid: MaskGrid) -> Plane:
    """Return where some but not all pixels up to `reach` rows and columns away are 1."""
    if not plane.any():  # a shortcut: many slices lack a region
        return np.zeros_like(plane)
    rows = plane.copy()
    for step in range(1, reach + 1):
        rows[step:] += plane[:-step]
        rows[:-step] += plane[step:]
    total = rows.copy()
    for step in range(grid.stride, (reach + 1) * grid.stride, grid.stride):
        total[step:] += rows[:-step]
        total[:-step] += rows[step:]
    total -= 1  # 0 becomes 255
    return (total < (2 * reach + 1) ** 2 - 1).view(np.uint8)


@dataclass(frozen=True, eq=False)
class Tables:
    """The file's content; `trees` holds the nodes of all three in preorder, as in the file."""

    contexts: tuple[Context, ...]
    seeds: tuple[int, ...]
    trees: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """Return the file."""
        head = struct.pack("<H", len(self.contexts))
        packed = b"".join(CONTEXT.pack(*context) for context in self.contexts)
        return head + packed + np.array((*self.seeds, *self.trees), "<u2").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tables":
        """Return the tables in a file."""
        (count,) = struct.unpack_from("<H", data)
        end = 2 + count * CONTEXT.size
        numbers = np.frombuffer(data[end:], "<u2").tolist()
        seeds = REGION_COUNT * CLASSES * COUNTS
        contexts = tuple(CONTEXT.iter_unpack(data[2:end]))
        return cls(contexts, tuple(numbers[:seeds]), tuple(numbers[seeds:]))


@dataclass(frozen=True, eq=False)
class FlatTrees:
    """The trees for planes of one size, laid out to be walked from `roots`.

    Node n reads the pixel `offsets[n]` away; `branches[2 n]` and `[2 n + 1]` go on from there. A
    leaf leads back to itself and has a probability. For a walk of one pixel at a time the same is
    in lists: from `starts`, a step is 2 n, or -probability at the end.
    """

    roots: NDArray[np.intp]
    depth: int
    offsets: NDArray[np.intp]
    branches: NDArray[np.intp]
    probabilities: NDArray[np.intp]
    starts: tuple[int, ...]
    reads: list[int]
    steps: list[int]


@cache
def codec_tables() -> Tables:
    """Return the tables of this version of the codec."""
    return Tables.from_bytes(PATH.read_bytes())


@lru_cache(maxsize=8)
def flatten_trees(tables: Tables, grid: MaskGrid) -> FlatTrees:
    """Return the trees laid out for planes of `grid`."""
    distances = [
        plane * grid.size + row * grid.stride + column for plane, row, column in tables.contexts
    ]
    nodes = len(tables.trees)
    offsets, probabilities = np.zeros((2, nodes), np.intp)
    branches = np.repeat(np.arange(nodes, dtype=np.intp), 2)
    steps = np.zeros(2 * nodes, np.intp)
    roots: list[int] = []
    starts: list[int] = []
    expected: list[tuple[int, int]] = []
    depth = 0
    for node, value in enumerate(tables.trees):
        step = LEAF - value if value >= LEAF else 2 * node
        if expected:
            branch, level = expected.pop()
            branches[branch] = node
            steps[branch] = step
        else:
            level = 0
            roots.append(node)
            starts.append(step)
        depth = max(depth, level)
        if value >= LEAF:
            probabilities[node] = value - LEAF
        else:
            offsets[node] = distances[value]
            expected += [(2 * node + 1, level + 1), (2 * node, level + 1)]
    return FlatTrees(
        np.array(roots),
        depth,
        offsets,
        branches,
        probabilities,
        tuple(starts),
        np.repeat(offsets, 2).tolist(),
        steps.tolist(),
    )
