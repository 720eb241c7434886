"""Plan in which order the firmware computes rows, and where each row lies in memory.

A layer's output is computed row by row, when the layer behind it needs the row, and is kept in a
ring of as few rows as its readers need. The order is found by running the network backwards from
its last row, once, when the firmware is made: the board only follows a list of steps.

There are two forms. In `fast`, the whole slice lies in memory and the first skip connection is
written over it, row after row. In `small`, nothing of full size is kept: the rows of the slice are
read twice, and what lies before the first skip connection is computed twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from convert.targets.firmware_layers import LANES, FirmwareLayer
from glioslice.errors import GliosliceError

Form = Literal["fast", "small"]

ALIGNMENT = 16
"""Bytes; each ring begins at a multiple of this."""

MAX_LANES = 1632
"""Values of the windows of one strip of a row, which the kernels gather before they multiply."""

MAX_LAYERS = 255
"""A step is a byte."""

MAX_STRIP = 48
"""Output pixels of a strip."""


@dataclass(frozen=True)
class Ring:
    """Where a layer's output lies: row r at offset + (r mod depth) row_bytes of the arena."""

    offset: int
    depth: int


@dataclass(frozen=True)
class Plan:
    """The layers of a form, their rings, and the layer of each step, which computes its next row.

    `repeated` has, for each layer, the number of the layer of the file that it computes. With
    `passes_overlap`, rows of the slice are read for the second time before all were read once.
    """

    form: Form
    layers: tuple[FirmwareLayer, ...]
    repeated: tuple[int, ...]
    rings: tuple[Ring, ...]
    steps: tuple[int, ...]
    arena: int
    passes_overlap: bool


def make_plan(layers: Sequence[FirmwareLayer], form: Form) -> Plan:
    """Return the plan of a form for the layers of a file."""
    for layer in layers:
        if layer.weights is not None and strip_of(layer) < 2:
            raise GliosliceError(f"{layer.name}: too many channels for the firmware's kernels")
    used, repeated = list(layers), list(range(len(layers)))
    if form == "small":
        used, repeated = _compute_twice(layers)
    steps = _schedule(used, form)
    written, last_read = _times(used, steps, form)
    depths = [_depth(used[i], written[i], last_read[i]) for i in range(len(used))]
    if form == "fast":
        depths[0] = used[0].rows
    rings = _place(used, depths, written, last_read)
    arena = max(
        ring.offset + ring.depth * layer.row_bytes for ring, layer in zip(rings, used, strict=True)
    )
    if len(used) > MAX_LAYERS:
        raise GliosliceError(f"{len(used)} layers; the firmware takes {MAX_LAYERS}")
    inputs = [i for i, layer in enumerate(used) if layer.kind == "input"]
    overlap = any(written[second][0] < written[first][-1] for first, second in pairwise(inputs))
    return Plan(form, tuple(used), tuple(repeated), rings, steps, _align(arena), overlap)


def strip_of(layer: FirmwareLayer) -> int:
    """Return how many output pixels of a convolution are computed at a time."""
    assert layer.weights is not None
    column = layer.window * (-(-layer.weights.values.shape[-1] // LANES) * LANES)
    fitting = (MAX_LANES // column - layer.window) // layer.stride + 1
    return min(fitting // 2 * 2, MAX_STRIP, layer.columns)


def _compute_twice(layers: Sequence[FirmwareLayer]) -> tuple[list[FirmwareLayer], list[int]]:
    """Return the layers with those before the last skip connection repeated for it."""
    adds = [i for i, layer in enumerate(layers) if layer.kind == "add"]
    last_add = adds[-1] if adds else -1
    skip = min(layers[last_add].sources)
    if not adds or not any(skip in layer.sources for layer in layers[:last_add]):
        return list(layers), list(range(len(layers)))
    before = {skip}
    for number in range(skip, 0, -1):
        if number in before:
            before.update(layers[number].sources)
    chain = sorted(before)
    copies = {number: last_add + place for place, number in enumerate(chain)}
    moved = {number: number + len(chain) for number in range(last_add, len(layers))}
    used, repeated = list(layers[:last_add]), list(range(last_add))
    for number in chain:
        sources = tuple(copies[source] for source in layers[number].sources)
        used.append(replace(layers[number], sources=sources))
        repeated.append(number)
    for number in range(last_add, len(layers)):
        sources = tuple(moved.get(source, source) for source in layers[number].sources)
        if number == last_add:
            sources = tuple(copies.get(source, source) for source in sources)
        used.append(replace(layers[number], sources=sources))
        repeated.append(number)
    return used, repeated


def _schedule(layers: Sequence[FirmwareLayer], form: Form) -> tuple[int, ...]:
    """Return the layer of each step, each row as late as its readers allow."""
    computed, steps = [0] * len(layers), list[int]()
    if form == "fast":
        computed[0] = layers[0].rows  # they lie in memory before the first step

    def compute_until(number: int, row: int) -> None:
        layer = layers[number]
        while computed[number] <= row:
            for source in layer.sources:
                needed = layer.rows_needed(computed[number], layers[source])
                compute_until(source, needed[-1])
            steps.append(number)
            computed[number] += 1

    compute_until(len(layers) - 1, layers[-1].rows - 1)
    return tuple(steps)


def _times(
    layers: Sequence[FirmwareLayer], steps: Sequence[int], form: Form
) -> tuple[list[list[int]], list[list[int]]]:
    """Return the step that writes each row of each layer, and the last step that reads it."""
    written: list[list[int]] = [[] for _ in layers]
    last_read = [[-1] * layer.rows for layer in layers]
    if form == "fast":
        written[0] = [-1] * layers[0].rows
    for time, number in enumerate(steps):
        row = len(written[number])
        for source in layers[number].sources:
            for needed in layers[number].rows_needed(row, layers[source]):
                last_read[source][needed] = time
        written[number].append(time)
        last_read[number][row] = time
    return written, last_read


def _depth(layer: FirmwareLayer, written: Sequence[int], last_read: Sequence[int]) -> int:
    """Return the rows that a ring needs so that none is overwritten before its last reader."""
    depth = 1
    for row, time in enumerate(written):
        while row >= depth and last_read[row - depth] >= time:
            depth += 1
    return depth


def _place(
    layers: Sequence[FirmwareLayer],
    depths: Sequence[int],
    written: Sequence[Sequence[int]],
    last_read: Sequence[Sequence[int]],
) -> tuple[Ring, ...]:
    """Return where the rings lie, the largest first, each at the lowest offset that is free.

    Two rings share memory if they are in use at different times, or if row by row the one is only
    written where the other was read for the last time.
    """
    sizes = [depth * layer.row_bytes for depth, layer in zip(depths, layers, strict=True)]
    order = sorted(range(len(layers)), key=lambda i: (-sizes[i], i))
    offsets: dict[int, int] = {}

    def collide(one: int, other: int, offset: int) -> bool:
        apart = offset + sizes[one] <= offsets[other] or offsets[other] + sizes[other] <= offset
        return not (
            apart
            or max(last_read[one]) < written[other][0]
            or max(last_read[other]) < written[one][0]
            or (offset == offsets[other] and _follows(one, other))
        )

    def _follows(one: int, other: int) -> bool:
        """Return whether `one` is only written over rows that `other` no longer needs."""
        if depths[one] < layers[one].rows or depths[other] < layers[other].rows:
            return False
        mine, theirs = layers[one].row_bytes, layers[other].row_bytes
        if written[other][-1] >= written[one][0]:
            return False
        return all(
            last_read[other][under] < written[one][row]
            for row in range(len(written[one]))
            for under in range(row * mine // theirs, -(-(row + 1) * mine // theirs))
            if under < layers[other].rows
        )

    for number in order:
        free = [0, *(_align(offsets[i] + sizes[i]) for i in offsets)]
        offsets[number] = min(
            offset for offset in free if not any(collide(number, i, offset) for i in offsets)
        )
    return tuple(Ring(offsets[i], depths[i]) for i in range(len(layers)))


def _align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
