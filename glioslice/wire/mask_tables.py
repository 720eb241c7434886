"""What the mask codec learnt: for each region a tree of questions that ends in chances.

A question asks for one pixel, near the one that is coded, of one of six planes: WT, TC, ET of this
slice, then those of the slice before. The file, which `benchmarks/masks.py --learn` writes:

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

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.mask_planes import CLASSES, COUNTS, REGIONS, Grid

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
