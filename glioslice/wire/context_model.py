"""The regions of a mask as planes of ones and zeros, and what the slice before says of each pixel.

A plane is flat, row after row, with `REACH` zeros around the image, so that a neighbour is always a
fixed distance away. The mask codec codes WT, then TC in it, then ET in that. What a region is
expected to be is what it was in the previous slice, as far as the larger region still holds it. A
pixel of the larger region is

    open    if not all of the 3 x 3 pixels around it are expected to be alike,
    touched if one of the four before it (left, and the three above) has changed, which means that
            it is not as expected.

Each open or touched pixel is coded. A change of any other is rare; it is a seed, which is coded by
its place among the pixels of its class.

What the mask codec learnt: for each region a tree of questions that ends in chances.

A question asks for one pixel, near the one that is coded, of one of six planes: WT, TC, ET of this
slice, then those of the slice before. The file, which `benchmarks/mask_codecs.py --learn` writes:

    u16       number of questions, n
    n x       u8 plane, 0 to 5 | i8 rows down | i8 columns to the right
    48 x u16  chances that another seed follows: 3 regions x 4 classes x 4 counts
    3 x       a tree in preorder, u16 a node: the number of a question and then its branches for 0
              and for 1, or 0x8000 + the chance that the pixel changes

Both ends must have the same tables: they are a part of the format, others are another codec.
"""

import struct
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glioslice.labels import EDEMA

Plane = NDArray[np.uint8]

REGIONS = 3
LABELS = REGIONS + 1
"""Of a mask: 0 to 3."""
REACH = 4

CLASSES = 4
"""Of pixels that are not open: expected 0 or 1 (times 2), and plus 1 if the 7 x 7 pixels around are
expected to be alike too."""

COUNTS = 4
"""How many seeds of a class were there already: 0, 1, 2, or more."""


class Grid(NamedTuple):
    """Rows and columns of a mask, and how its planes lie in memory."""

    rows: int
    columns: int

    @property
    def stride(self) -> int:
        """Distance from a pixel to the one below."""
        return self.columns + 2 * REACH

    @property
    def size(self) -> int:
        """Bytes of a plane."""
        return (self.rows + 2 * REACH) * self.stride

    def image(self, plane: Plane) -> Plane:
        """Return the pixels of the image in a flat plane, or in several, as a view."""
        square = plane.reshape(*plane.shape[:-1], -1, self.stride)
        return square[..., REACH:-REACH, REACH:-REACH]

    def inside(self) -> Plane:
        """Return the plane of the image: 1 in it, 0 around it."""
        plane = np.zeros(self.size, np.uint8)
        self.image(plane)[:] = 1
        return plane


@dataclass(frozen=True)
class Expected:
    """What is known of a region before the first of its pixels is.

    `larger` is the region that holds it, `values` are the pixels as expected, `open` those that are
    coded in any case, `classes` the class of each that is not, or CLASSES outside of `larger`.
    """

    larger: Plane
    values: Plane
    open: Plane
    classes: Plane


def planes_of(mask: NDArray[np.uint8], grid: Grid, planes: Plane) -> None:
    """Write the regions of a mask (rows, columns) into planes (3, size), which are 0 around."""
    wt, tc, et = grid.image(planes)
    wt[:] = mask > 0
    tc[:] = mask & 1
    et[:] = mask > EDEMA


def mask_of(planes: Plane, grid: Grid) -> NDArray[np.uint8]:
    """Return the mask (rows, columns) whose regions are planes (3, size)."""
    wt, tc, et = grid.image(planes)
    mask: NDArray[np.uint8] = (wt + et) * EDEMA - tc
    return mask


def expect(previous: Plane, larger: Plane, grid: Grid) -> Expected:
    """Return what a region is expected to be, where `larger` holds it and it was `previous`."""
    values = previous & larger
    unlike = mixed(values, 1, grid)
    classes = (values << 1) + (mixed(values, 3, grid) ^ 1)
    classes[(unlike | (larger ^ 1)).view(bool)] = CLASSES
    return Expected(larger, values, unlike & larger, classes)


def mixed(plane: Plane, reach: int, grid: Grid) -> Plane:
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


def touched(changed: Plane, grid: Grid) -> Plane:
    """Return the pixels of which one of the four before has changed."""
    result = np.zeros_like(changed)
    for step in ahead(grid):
        result[step:] |= changed[:-step]
    return result


def ahead(grid: Grid) -> tuple[int, int, int, int]:
    """Return how far the four pixels lie that a changed one touches: right, and the three below."""
    return 1, grid.stride - 1, grid.stride, grid.stride + 1


PATH = Path(__file__).with_name("mask_tables.bin")
LEAF = 0x8000
QUESTION = struct.Struct("<Bbb")

Question = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Tables:
    """The file's content; `trees` holds the nodes of all three in preorder, as in the file."""

    questions: tuple[Question, ...]
    seeds: tuple[int, ...]
    trees: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """Return the file."""
        head = struct.pack("<H", len(self.questions))
        asked = b"".join(QUESTION.pack(*question) for question in self.questions)
        return head + asked + np.array((*self.seeds, *self.trees), "<u2").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Tables":
        """Return the tables in a file."""
        (count,) = struct.unpack_from("<H", data)
        end = 2 + count * QUESTION.size
        numbers = np.frombuffer(data[end:], "<u2").tolist()
        chances = REGIONS * CLASSES * COUNTS
        questions = tuple(QUESTION.iter_unpack(data[2:end]))
        return cls(questions, tuple(numbers[:chances]), tuple(numbers[chances:]))

    def another_seed(self, region: int, kind: int, count: int) -> int:
        """Return the chance that a seed follows the first `count` of a class in a region."""
        return self.seeds[(region * CLASSES + kind) * COUNTS + min(count, COUNTS - 1)]


@dataclass(frozen=True, eq=False)
class Walk:
    """The trees for planes of one size, laid out to be walked from `roots`.

    Node n asks for the pixel `offsets[n]` away; `branches[2 n]` and `[2 n + 1]` go on from there. A
    leaf leads back to itself and has a chance. For a walk of one pixel at a time the same stands in
    lists: from `starts`, a step is 2 n, or -chance at the end.
    """

    roots: NDArray[np.intp]
    depth: int
    offsets: NDArray[np.intp]
    branches: NDArray[np.intp]
    chances: NDArray[np.intp]
    starts: tuple[int, ...]
    reads: list[int]
    steps: list[int]


@cache
def shipped() -> Tables:
    """Return the tables of this version."""
    return Tables.from_bytes(PATH.read_bytes())


@lru_cache(maxsize=8)
def walk_of(tables: Tables, grid: Grid) -> Walk:
    """Return the trees laid out for planes of `grid`."""
    flat = [
        plane * grid.size + row * grid.stride + column for plane, row, column in tables.questions
    ]
    nodes = len(tables.trees)
    offsets, chances = np.zeros((2, nodes), np.intp)
    branches = np.repeat(np.arange(nodes, dtype=np.intp), 2)
    steps = np.zeros(2 * nodes, np.intp)
    roots: list[int] = []
    starts: list[int] = []
    wanted: list[tuple[int, int]] = []
    depth = 0
    for node, value in enumerate(tables.trees):
        step = LEAF - value if value >= LEAF else 2 * node
        if wanted:
            branch, level = wanted.pop()
            branches[branch] = node
            steps[branch] = step
        else:
            level = 0
            roots.append(node)
            starts.append(step)
        depth = max(depth, level)
        if value >= LEAF:
            chances[node] = value - LEAF
        else:
            offsets[node] = flat[value]
            wanted += [(2 * node + 1, level + 1), (2 * node, level + 1)]
    reads = np.repeat(offsets, 2).tolist()
    return Walk(
        np.array(roots), depth, offsets, branches, chances, tuple(starts), reads, steps.tolist()
    )
