"""Learn the mask codec's tables from masks: a context tree per region, and probabilities of seeds.

A tree grows by the context that saves most bits over all its leaves ("tree coding", Martins and
Forchhammer, 1998), as long as that is worth its space. A head is nearly symmetric: every mask is
used twice, the second time mirrored. The same masks give the same tables.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.context_model import (
    CLASSES,
    COUNTS,
    LEAF,
    REACH,
    REGION_COUNT,
    Context,
    MaskGrid,
    Tables,
    split_planes,
)
from glioslice.wire.mask_codecs import encode_seeds, make_planes, places_to_code
from glioslice.wire.range_coder import PROBABILITY_BITS, RangeEncoder

MAX_LEAVES = 512
LEAST_GAIN = 20.0
"""Bits that a context must save on the training masks."""

LEAST_PIXELS = 12
"""On either side of a context."""

WORD = 8
ROUNDS = 255
"""The largest count in one byte."""

Masks = NDArray[np.uint8]
Bits = NDArray[np.uint8]
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Samples:
    """The training samples of a volume.

    For each region the `values` (pixels, words) of `candidates(region)`, a byte each, and whether
    the pixels `changed`; `seeds` (48, 2) counts how often a seed did not follow, and did.
    """

    values: tuple[Words, ...]
    changed: tuple[Bits, ...]
    seeds: NDArray[np.int64]


class DecisionCounter(RangeEncoder):
    """Counts decisions by their probability's index instead of coding them."""

    def __init__(self) -> None:
        self.counts = np.zeros((REGION_COUNT * CLASSES * COUNTS, 2), np.int64)

    def bits(self, bits: Iterable[int], probabilities: Iterable[int]) -> None:
        """Count decisions."""
        for bit, index in zip(bits, probabilities, strict=True):
            self.counts[index, bit] += 1

    def number(self, value: int, count: int) -> None:
        """Ignore a number, which has no probability to learn."""


def candidates(region: int) -> list[Context]:
    """Return all contexts that a pixel of a region may have: plane, rows down, columns right."""
    before = [(0, -column) for column in range(1, REACH + 1)]
    for row, side in ((1, 4), (2, 3), (3, 2), (4, 0)):
        before += [(-row, column) for column in range(-side, side + 1)]
    cross = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]
    far = [(-REACH, 0), (REACH, 0), (0, -REACH), (0, REACH)]
    found = [(region, *place) for place in before]
    found += [(REGION_COUNT + region, *place) for place in (*square(3), *far)]
    if region:
        found += [(region - 1, *place) for place in square(2) if any(place)]
        found += [(region - 1, *place) for place in ((-3, 0), (3, 0), (0, -3), (0, 3))]
    for other in range(REGION_COUNT):
        if other > region or other == region - 1:
            found += [(REGION_COUNT + other, *place) for place in cross]
    return found


def square(reach: int) -> list[tuple[int, int]]:
    """Return the places up to `reach` rows and columns away."""
    side = range(-reach, reach + 1)
    return [(row, column) for row in side for column in side]


def collect_samples(masks: Masks) -> Samples:
    """Return the samples of a volume's masks (slices, rows, columns), mirrored ones included."""
    values: list[list[Words]] = [[] for _ in range(REGION_COUNT)]
    changed: list[list[Bits]] = [[] for _ in range(REGION_COUNT)]
    grid = MaskGrid(*masks.shape[1:])
    places = [
        np.array([p * grid.size + r * grid.stride + c for p, r, c in candidates(region)])
        for region in range(REGION_COUNT)
    ]
    counter = DecisionCounter()
    numbered = Tables((), tuple(range(REGION_COUNT * CLASSES * COUNTS)), ())
    for mask, previous in pairs(masks):
        planes = make_planes(grid, previous)
        split_planes(mask, grid, planes[:REGION_COUNT])
        for region, (prediction, seeds, coded) in enumerate(places_to_code(planes, grid)):
            encode_seeds(counter, numbered, region, prediction.classes, seeds)
            values[region].append(words(planes.ravel()[coded[:, None] + places[region]]))
            changed[region].append((prediction.values ^ planes[region])[coded])
    return Samples(
        tuple(np.concatenate(v) for v in values),
        tuple(np.concatenate(c) for c in changed),
        counter.counts,
    )


def pairs(masks: Masks) -> Iterator[tuple[Masks, Masks | None]]:
    """Yield every mask that is not empty with the one before, then both mirrored."""
    previous = None
    for mask in masks:
        if mask.any():
            yield mask, previous
            yield mask[::-1], None if previous is None else previous[::-1]
        previous = mask


def words(values: Bits) -> Words:
    """Return (pixels, contexts) as whole words of eight bytes, padded with zeros."""
    padded = np.zeros((len(values), -(-values.shape[1] // WORD) * WORD), np.uint8)
    padded[:, : values.shape[1]] = values
    return padded.view(np.uint64)


def learn(volumes: Sequence[Samples]) -> Tables:
    """Return the tables that fit these volumes."""
    trees = []
    for region in range(REGION_COUNT):
        values = np.concatenate([volume.values[region] for volume in volumes])
        changed = np.concatenate([volume.changed[region] for volume in volumes])
        trees.append(grow(values, changed, candidates(region)))
    contexts = sorted({node for tree in trees for node in tree if isinstance(node, tuple)})
    number = {context: index for index, context in enumerate(contexts)}
    nodes = (number[n] if isinstance(n, tuple) else n for tree in trees for n in tree)
    counts = np.sum([volume.seeds for volume in volumes], axis=0).tolist()
    return Tables(
        tuple(contexts),
        tuple(probability(ones, zeros + ones) for zeros, ones in counts),
        tuple(nodes),
    )


@dataclass
class TreeNode:
    """A leaf of a growing tree, or a node once it has `branches`."""

    pixels: NDArray[np.int64]
    ones: int
    best: int = -1
    gain: float = 0.0
    branches: tuple["TreeNode", "TreeNode"] | None = None


def grow(values: Words, changed: Bits, contexts: Sequence[Context]) -> list[Context | int]:
    """Return the tree in preorder: contexts, and LEAF + probability."""
    root = make_node(np.arange(len(changed)), values, changed, len(contexts))
    waiting = [(-root.gain, 0, root)]
    leaves = 1
    while waiting and leaves < MAX_LEAVES:
        gain, _, node = heapq.heappop(waiting)
        if -gain < LEAST_GAIN:
            break
        value = values.view(np.uint8)[node.pixels, node.best].astype(bool)
        zeros, ones = (
            make_node(node.pixels[side], values, changed, len(contexts)) for side in (~value, value)
        )
        node.branches = (zeros, ones)
        node.pixels = node.pixels[:0]
        for branch, order in ((zeros, 2 * leaves), (ones, 2 * leaves + 1)):
            heapq.heappush(waiting, (-branch.gain, order, branch))
        leaves += 1
    return list(preorder(root, contexts))


def make_node(pixels: NDArray[np.int64], values: Words, changed: Bits, contexts: int) -> TreeNode:
    """Return a leaf of these pixels with the context that would save most."""
    here = changed[pixels].astype(bool)
    total, ones = len(pixels), int(here.sum())
    one = tally(values, pixels)[:contexts]
    one_changed = tally(values, pixels[here])[:contexts]
    gain = cost(total, ones) - cost(one, one_changed) - cost(total - one, ones - one_changed)
    gain[(one < LEAST_PIXELS) | (total - one < LEAST_PIXELS)] = 0
    best = int(gain.argmax())
    return TreeNode(pixels, ones, best, float(gain[best]))


def tally(values: Words, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return in how many of the pixels a context is 1, for each byte of a row.

    Eight bytes are added at a time, up to 255 rows before they are spread out.
    """
    total = np.zeros(values.shape[1] * WORD, np.int64)
    block = max(1, min(4096, -(-len(pixels) // ROUNDS)))
    for start in range(0, len(pixels), block * ROUNDS):
        part = pixels[start : start + block * ROUNDS]
        sums = values[part[:block]]
        for at in range(block, len(part), block):
            rows = values[part[at : at + block]]
            sums[: len(rows)] += rows
        total += sums.view(np.uint8).sum(axis=0, dtype=np.int64)
    return total


def cost(total: NDArray[np.int64] | int, ones: NDArray[np.int64] | int) -> NDArray[np.float64]:
    """Return the bits that `total` decisions take if `ones` of them are ones."""
    counts = np.stack([np.asarray(ones), np.asarray(total) - ones]).astype(np.float64)
    share = counts / np.maximum(counts.sum(axis=0), 1)
    bits: NDArray[np.float64] = -(counts * np.log2(np.where(counts > 0, share, 1))).sum(axis=0)
    return bits


def probability(ones: int, total: int) -> int:
    """Return the probability of a one for the range coder."""
    whole = 1 << PROBABILITY_BITS
    return min(max(round((ones + 0.4) / (total + 0.8) * whole), 1), whole - 1)


def preorder(node: TreeNode, contexts: Sequence[Context]) -> Iterator[Context | int]:
    """Yield a tree: each context before its branches, zeros first."""
    if node.branches is None:
        yield LEAF + probability(node.ones, len(node.pixels))
        return
    yield contexts[node.best]
    for branch in node.branches:
        yield from preorder(branch, contexts)
