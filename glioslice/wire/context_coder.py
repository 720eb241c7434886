"""A mask in about fifty bytes: what has changed since the slice before, by learnt chances.

The three regions follow each other, WT, TC, ET, each as `mask_planes` says: its seeds, then row by
row every pixel that is open or touched, as one decision, changed or not. The chance of a decision
comes from the tree of `mask_tables`, whose questions look at pixels that both ends know: of the
slice before, of the larger region, and above or left of the pixel. `range_coder` makes bytes of it.

    content of 0 bytes                    no pixel is labelled
    fewer than a quarter of the pixels    what the range coder wrote
    a quarter of the pixels, rounded up   two bits a pixel, low bits first

The first decision is whether the mask stands alone; the slice before is then an empty one.
docs/wire.md has all of it for those who write another implementation.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.context_model import (
    CLASSES,
    LABELS,
    REGIONS,
    Expected,
    Grid,
    Plane,
    Tables,
    Walk,
    ahead,
    expect,
    mask_of,
    planes_of,
    shipped,
    touched,
    walk_of,
)
from glioslice.wire.image_codecs import CodecError
from glioslice.wire.range_coder import RangeDecoder, RangeEncoder

Mask = NDArray[np.uint8]

ALONE = 1
"""Chance, in 32768ths, that a mask is coded without the slice before."""


def encode(mask: Mask, previous: Mask | None, tables: Tables | None = None) -> bytes:
    """Return a mask (rows, columns) of labels 0 to 3 as bytes.

    `previous` is the mask that was sent before, None if the far end may not have it. Raises
    CodecError for other labels, or a `previous` of another shape.
    """
    if mask.max() >= LABELS:
        raise CodecError(f"a mask with a label {mask.max()}; there are 0 to {LABELS - 1}")
    if not mask.any():
        return b""
    tables = tables or shipped()
    grid = Grid(*mask.shape)
    buffer = buffer_of(grid, previous)
    planes_of(mask, grid, buffer[:REGIONS])
    walk = walk_of(tables, grid)
    coder = RangeEncoder()
    coder.bits([previous is None], [ALONE])
    regions = list(regions_of(buffer, grid))
    chances = chances_of(walk, buffer, [places for _, _, places in regions])
    for region, (found, seeds, places) in enumerate(regions):
        put_seeds(coder, tables, region, found.classes, seeds)
        changed = found.values[places] ^ buffer[region, places]
        coder.bits(changed.tolist(), chances[region].tolist())
    content = coder.finish() or b"\0"
    plain = (mask.size + 3) // 4
    return content if len(content) < plain else pack(mask)


def decode(
    content: bytes, shape: tuple[int, int], previous: Mask | None, tables: Tables | None = None
) -> Mask:
    """Return the mask of `shape` in `content`, where `previous` is the mask that came before.

    Raises CodecError if there is none, or it needs a previous one and that is None. Damage that
    nothing tells gives another mask: frames have a checksum and a run has a digest against it.
    """
    grid = Grid(*shape)
    pixels = grid.rows * grid.columns
    plain = (pixels + 3) // 4
    if not content:
        return np.zeros(shape, np.uint8)
    if len(content) >= plain:
        return unpack(content, shape)
    if content[-1] == 0 and len(content) > 1:
        raise CodecError("a mask that ends in zeros, which are never sent")
    coder = RangeDecoder(content)
    alone = coder.bit(ALONE)
    if previous is None and not alone:
        raise CodecError("a mask that builds on the slice before, which did not arrive")
    tables = tables or shipped()
    buffer = buffer_of(grid, None if alone else previous)
    walk = walk_of(tables, grid)
    known = bytearray(buffer.tobytes())
    planes = np.frombuffer(known, np.uint8).reshape(buffer.shape)
    larger = grid.inside()
    for region in range(REGIONS):
        found = expect(planes[REGIONS + region], larger, grid)
        planes[region] = found.values
        seeds = get_seeds(coder, tables, region, found.classes)
        get_pixels(coder, walk, region, known, found, seeds, grid)
        larger = planes[region]
    coder.finish()
    return mask_of(planes[:REGIONS], grid)


def buffer_of(grid: Grid, previous: Mask | None) -> Plane:
    """Return six planes: three empty ones, then the regions of the mask before."""
    buffer = np.zeros((2 * REGIONS, grid.size), np.uint8)
    if previous is not None:
        if previous.shape != (grid.rows, grid.columns):
            raise CodecError(f"a mask of {tuple(grid)} after one of {previous.shape}")
        planes_of(previous, grid, buffer[REGIONS:])
    return buffer


Coded = tuple[Expected, NDArray[np.intp], NDArray[np.intp]]


def regions_of(buffer: Plane, grid: Grid) -> Iterator[Coded]:
    """Yield for each region what was expected, the places of its seeds, and of what is coded."""
    larger = grid.inside()
    for region in range(REGIONS):
        found = expect(buffer[REGIONS + region], larger, grid)
        changed = found.values ^ buffer[region]
        coded = (found.open | touched(changed, grid)) & larger
        seeds = (changed & ~coded).view(bool)
        yield found, np.flatnonzero(seeds), np.flatnonzero(coded.view(bool))
        larger = buffer[region]


def chances_of(
    walk: Walk, buffer: Plane, places: Sequence[NDArray[np.intp]]
) -> list[NDArray[np.intp]]:
    """Return the chances that the pixels at the `places` of each region have changed."""
    known, pixels = buffer.ravel(), np.concatenate(places)
    sizes = [part.size for part in places]
    nodes = np.repeat(walk.roots, sizes)
    for _ in range(walk.depth):
        answers = known.take(pixels + walk.offsets.take(nodes))
        nodes = walk.branches.take(2 * nodes + answers)
    return np.split(walk.chances.take(nodes), np.cumsum(sizes)[:-1])


def put_seeds(
    coder: RangeEncoder, tables: Tables, region: int, classes: Plane, seeds: NDArray[np.intp]
) -> None:
    """Code the seeds of a region: class by class, is there another, and which of those left."""
    for kind in range(CLASSES):
        members = classes == kind
        left = int(np.count_nonzero(members))
        count = start = 0
        for seed in seeds[members[seeds]].tolist():
            passed = int(np.count_nonzero(members[start:seed]))
            coder.bits([1], [tables.another_seed(region, kind, count)])
            coder.number(passed, left)
            count, start, left = count + 1, seed + 1, left - passed - 1
        if left:
            coder.bits([0], [tables.another_seed(region, kind, count)])


def get_seeds(coder: RangeDecoder, tables: Tables, region: int, classes: Plane) -> set[int]:
    """Return the places of a region's seeds."""
    seeds: set[int] = set()
    for kind in range(CLASSES):
        members = classes == kind
        left = int(np.count_nonzero(members))
        count = start = 0
        while left and coder.bit(tables.another_seed(region, kind, count)):
            passed = coder.number(left)
            start += passed
            seeds.add(int(np.flatnonzero(members)[start]))
            count, start, left = count + 1, start + 1, left - passed - 1
    return seeds


def get_pixels(
    coder: RangeDecoder,
    walk: Walk,
    region: int,
    known: bytearray,
    found: Expected,
    seeds: set[int],
    grid: Grid,
) -> None:
    """Change the pixels of a region in `known`, which holds what is expected, to what they are."""
    start, reads, branches = walk.starts[region], walk.reads, walk.steps
    own = region * grid.size
    within = found.larger.tobytes()
    coded = bytearray(found.open.tobytes())
    for seed in seeds:
        coded[seed] = 1
    right, lower_left, below, lower_right = ahead(grid)
    place = coded.find(1)
    while place >= 0:
        if place in seeds:
            changed = 1
        else:
            node = start
            while node >= 0:
                node = branches[node + known[place + reads[node]]]
            changed = coder.bit(-node)
        if changed:
            known[own + place] ^= 1
            coded[place + right] = within[place + right]
            coded[place + lower_left] = within[place + lower_left]
            coded[place + below] = within[place + below]
            coded[place + lower_right] = within[place + lower_right]
        place = coded.find(1, place + 1)


def pack(mask: Mask) -> bytes:
    """Return a mask as two bits a pixel, low bits first."""
    labels = np.zeros((mask.size + 3) // 4 * 4, np.uint8)
    labels[: mask.size] = mask.ravel()
    quads = labels.reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)
    packed: Mask = np.bitwise_or.reduce(quads, axis=1)
    return packed.tobytes()


def unpack(content: bytes, shape: tuple[int, int]) -> Mask:
    """Return the mask of `shape` from two bits a pixel; raises CodecError for another length."""
    pixels = shape[0] * shape[1]
    if len(content) != (pixels + 3) // 4:
        raise CodecError(f"{len(content)} bytes came for a mask of {pixels} pixels")
    quads = np.frombuffer(content, np.uint8)[:, None] >> np.array([0, 2, 4, 6], np.uint8)
    labels: Mask = (quads & np.uint8(3)).ravel()
    if labels[pixels:].any():
        raise CodecError("a mask with labels beyond its last pixel")
    return labels[:pixels].reshape(shape)
