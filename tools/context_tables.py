"""Learn the mask codec's tables from masks: a tree of questions a region, and chances of seeds.

A tree grows by the question that saves most bits over all its leaves ("tree coding", Martins and
Forchhammer, 1998), as long as that is worth its place. Left and right of a head are alike: every
mask is learnt from twice, the second time mirrored. The same masks give the same tables.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.context_coder import buffer_of, put_seeds, regions_of
from glioslice.wire.context_model import (
    CLASSES,
    COUNTS,
    LEAF,
    REACH,
    REGIONS,
    Grid,
    Question,
    Tables,
    planes_of,
)
from glioslice.wire.range_coder import CHANCE_BITS, RangeEncoder

MAX_LEAVES = 512
LEAST_GAIN = 20.0
"""Bits that a question must save on what it is learnt from."""

LEAST_PIXELS = 12
"""On either side of a question."""

WORD = 8
ROUNDS = 255
"""What one byte can count."""

Masks = NDArray[np.uint8]
Bits = NDArray[np.uint8]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Samples:
    """What a volume teaches.

    For each region `answers` (pixels, words) to `questions(region)`, a byte each, and whether the
    pixels `changed`; `seeds` (48, 2) counts how often a seed did not follow, and did.
    """

    answers: tuple[Words, ...]
    changed: tuple[Bits, ...]
    seeds: NDArray[np.int64]


class Recorder(RangeEncoder):
    """Counts decisions by their chance instead of coding them."""

    def __init__(self) -> None:
        self.counts = np.zeros((REGIONS * CLASSES * COUNTS, 2), np.int64)

    def bits(self, bits: Iterable[int], chances: Iterable[int]) -> None:
        """Count decisions."""
        for bit, chance in zip(bits, chances, strict=True):
            self.counts[chance, bit] += 1

    def number(self, value: int, count: int) -> None:
        """Nothing is learnt from a number."""


def questions(region: int) -> list[Question]:
    """Return all that may be asked about a pixel of a region: plane, rows down, columns right."""
    before = [(0, -column) for column in range(1, REACH + 1)]
    for row, side in ((1, 4), (2, 3), (3, 2), (4, 0)):
        before += [(-row, column) for column in range(-side, side + 1)]
    cross = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
    far = [(-REACH, 0), (REACH, 0), (0, -REACH), (0, REACH)]
    asked = [(region, *place) for place in before]
    asked += [(REGIONS + region, *place) for place in (*square(3), *far)]
    if region:
        asked += [(region - 1, *place) for place in square(2) if any(place)]
        asked += [(region - 1, *place) for place in ((-3, 0), (3, 0), (0, -3), (0, 3))]
    for other in range(REGIONS):
        if other > region or other == region - 1:
            asked += [(REGIONS + other, *place) for place in cross]
    return asked


def square(reach: int) -> list[tuple[int, int]]:
    """Return the places up to `reach` rows and columns away."""
    side = range(-reach, reach + 1)
    return [(row, column) for row in side for column in side]


def samples_of(masks: Masks) -> Samples:
    """Return what a volume's masks (slices, rows, columns) teach, mirrored ones included."""
    answers: list[list[Words]] = [[] for _ in range(REGIONS)]
    changed: list[list[Bits]] = [[] for _ in range(REGIONS)]
    grid = Grid(*masks.shape[1:])
    places = [
        np.array([p * grid.size + r * grid.stride + c for p, r, c in questions(region)])
        for region in range(REGIONS)
    ]
    recorder = Recorder()
    numbered = Tables((), tuple(range(REGIONS * CLASSES * COUNTS)), ())
    for mask, previous in pairs(masks):
        buffer = buffer_of(grid, previous)
        planes_of(mask, grid, buffer[:REGIONS])
        for region, (found, seeds, coded) in enumerate(regions_of(buffer, grid)):
            put_seeds(recorder, numbered, region, found.classes, seeds)
            asked = buffer.ravel()[coded[:, None] + places[region]]
            answers[region].append(words(asked))
            changed[region].append((found.values ^ buffer[region])[coded])
    return Samples(
        tuple(np.concatenate(a) for a in answers),
        tuple(np.concatenate(c) for c in changed),
        recorder.counts,
    )


def pairs(masks: Masks) -> Iterator[tuple[Masks, Masks | None]]:
    """Yield every mask that is not empty with the one before, then both mirrored."""
    previous = None
    for mask in masks:
        if mask.any():
            yield mask, previous
            yield mask[::-1], None if previous is None else previous[::-1]
        previous = mask


def words(answers: Bits) -> Words:
    """Return (pixels, questions) as whole words of eight bytes, zeros behind."""
    padded = np.zeros((len(answers), -(-answers.shape[1] // WORD) * WORD), np.uint8)
    padded[:, : answers.shape[1]] = answers
    return padded.view(np.uint64)


def learn(volumes: Sequence[Samples]) -> Tables:
    """Return the tables that fit these volumes."""
    trees = []
    for region in range(REGIONS):
        answers = np.concatenate([volume.answers[region] for volume in volumes])
        changed = np.concatenate([volume.changed[region] for volume in volumes])
        trees.append(grow(answers, changed, questions(region)))
    asked = sorted({node for tree in trees for node in tree if isinstance(node, tuple)})
    number = {question: index for index, question in enumerate(asked)}
    nodes = (number[n] if isinstance(n, tuple) else n for tree in trees for n in tree)
    counts = np.sum([volume.seeds for volume in volumes], axis=0).tolist()
    return Tables(
        tuple(asked), tuple(chance(ones, zeros + ones) for zeros, ones in counts), tuple(nodes)
    )


@dataclass
class Node:
    """A leaf of a growing tree, or a node once it has `branches`."""

    pixels: NDArray[np.int64]
    ones: int
    best: int = -1
    gain: float = 0.0
    branches: tuple["Node", "Node"] | None = None


def grow(answers: Words, changed: Bits, asked: Sequence[Question]) -> list[Question | int]:
    """Return the tree in preorder: questions, and LEAF + chance."""
    root = node_of(np.arange(len(changed)), answers, changed, len(asked))
    waiting = [(-root.gain, 0, root)]
    leaves = 1
    while waiting and leaves < MAX_LEAVES:
        gain, _, node = heapq.heappop(waiting)
        if -gain < LEAST_GAIN:
            break
        answer = answers.view(np.uint8)[node.pixels, node.best].astype(bool)
        zeros, ones = (
            node_of(node.pixels[side], answers, changed, len(asked)) for side in (~answer, answer)
        )
        node.branches = (zeros, ones)
        node.pixels = node.pixels[:0]
        for branch, order in ((zeros, 2 * leaves), (ones, 2 * leaves + 1)):
            heapq.heappush(waiting, (-branch.gain, order, branch))
        leaves += 1
    return list(preorder(root, asked))


def node_of(pixels: NDArray[np.int64], answers: Words, changed: Bits, asked: int) -> Node:
    """Return a leaf of these pixels with the question that would save most."""
    mine = changed[pixels].astype(bool)
    total, ones = len(pixels), int(mine.sum())
    yes = tally(answers, pixels)[:asked]
    yes_ones = tally(answers, pixels[mine])[:asked]
    gain = cost(total, ones) - cost(yes, yes_ones) - cost(total - yes, ones - yes_ones)
    gain[(yes < LEAST_PIXELS) | (total - yes < LEAST_PIXELS)] = 0
    best = int(gain.argmax())
    return Node(pixels, ones, best, float(gain[best]))


def tally(answers: Words, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many of the pixels answer 1, for each byte of a row.

    Eight bytes are added at a time, up to 255 rows before they are spread out.
    """
    total = np.zeros(answers.shape[1] * WORD, np.int64)
    block = max(1, min(4096, -(-len(pixels) // ROUNDS)))
    for start in range(0, len(pixels), block * ROUNDS):
        part = pixels[start : start + block * ROUNDS]
        sums = answers[part[:block]]
        for at in range(block, len(part), block):
            rows = answers[part[at : at + block]]
            sums[: len(rows)] += rows
        total += sums.view(np.uint8).sum(axis=0, dtype=np.int64)
    return total


def cost(total: NDArray[np.int64] | int, ones: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Return the bits that decisions take of which `ones` of `total` are ones."""
    counts = np.stack([np.asarray(ones), np.asarray(total) - ones]).astype(np.float64)
    share = counts / np.maximum(counts.sum(axis=0), 1)
    bits: NDArray[np.float64] = -(counts * np.log2(np.where(counts > 0, share, 1))).sum(axis=0)
    return bits


def chance(ones: int, total: int) -> int:
    """Return the chance of a one as the range coder takes it."""
    whole = 1 << CHANCE_BITS
    return min(max(round((ones + 0.4) / (total + 0.8) * whole), 1), whole - 1)


def preorder(node: Node, asked: Sequence[Question]) -> Iterator[Question | int]:
    """Yield a tree: each question before its branches, zeros first."""
    if node.branches is None:
        yield LEAF + chance(node.ones, len(node.pixels))
        return
    yield asked[node.best]
    for branch in node.branches:
        yield from preorder(branch, asked)
