"""The mask codecs: `change`, the difference from the slice before, and `runs`, a mask on its own.

`change` takes about fifty bytes per mask. The three regions follow each other, WT, TC, ET, each as
in `context_model`: first its seeds, then row by row every open or touched pixel, as one binary
decision, changed or not. The probability of a decision comes from a context tree, which reads
pixels that both ends know: of the slice before, of the larger region, and above or left of the
pixel. `range_coder` turns the decisions into bytes.

    content of 0 bytes                    no pixel is labelled
    fewer than a quarter of the pixels    the range coder's bytes
    a quarter of the pixels, rounded up   two bits per pixel, low bits first

The first decision is whether the mask stands alone; the slice before is then an empty one.

`runs` takes four times as many bytes, but depends on no other mask and on no tables:

    for each run, Y fastest: (length - 1) * 4 + label, 7 bits per byte, low bits first, the top bit
    set on all but the last byte, at most 4 bytes

docs/wire.md specifies all of it for other implementations.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.context_model import (
    CLASSES,
    COUNTS,
    LABELS,
    REGION_COUNT,
    FlatTrees,
    MaskArray,
    MaskGrid,
    Plane,
    Prediction,
    Tables,
    codec_tables,
    flatten_trees,
    join_planes,
    predict,
    split_planes,
)
from glioslice.wire.layout import CodecError, read_varint, varint
from glioslice.wire.range_coder import RangeDecoder, RangeEncoder

ALONE = 1
"""Probability, in 32768ths, that a mask is coded without the slice before."""

PlacesToCode = tuple[Prediction, NDArray[np.intp], NDArray[np.intp]]

MAX_RUN_BYTES = 4


def encode_change(
    mask: MaskArray, previous: MaskArray | None, tables: Tables | None = None
) -> bytes:
    """Return a mask (rows, columns) of labels 0 to 3 as bytes.

    `previous` is the mask that was sent before, None if the far end may not have it. Raises
    CodecError for other labels, or a `previous` of another shape.
    """
    if mask.max() >= LABELS:
        raise CodecError(f"a mask with a label {mask.max()}; there are 0 to {LABELS - 1}")
    if not mask.any():
        return b""
    tables = tables or codec_tables()
    grid = MaskGrid(*mask.shape)
    planes = make_planes(grid, previous)
    split_planes(mask, grid, planes[:REGION_COUNT])
    coder = RangeEncoder()
    coder.bits([previous is None], [ALONE])
    regions = list(places_to_code(planes, grid))
    trees = flatten_trees(tables, grid)
    probabilities = pixel_probabilities(trees, planes, [places for _, _, places in regions])
    for region, (prediction, seeds, places) in enumerate(regions):
        encode_seeds(coder, tables, region, prediction.classes, seeds)
        changed = prediction.values[places] ^ planes[region, places]
        coder.bits(changed.tolist(), probabilities[region].tolist())
    content = coder.finish() or b"\0"
    plain = (mask.size + 3) // 4
    return content if len(content) < plain else pack_labels(mask)


def decode_change(
    content: bytes, shape: tuple[int, int], previous: MaskArray | None, tables: Tables | None = None
) -> MaskArray:
    """Return the mask of `shape` in `content`, where `previous` is the mask that came before.

    Raises CodecError if there is none, or if it needs a previous one and that is None. Damage may
    go unnoticed and give another mask: frames have a checksum and a run has a digest against it.
    """
    grid = MaskGrid(*shape)
    plain = (grid.rows * grid.columns + 3) // 4
    if not content:
        return np.zeros(shape, np.uint8)
    if len(content) >= plain:
        return unpack_labels(content, shape)
    if content[-1] == 0 and len(content) > 1:
        raise CodecError("a mask that ends in zeros, which are never sent")
    coder = RangeDecoder(content)
    alone = coder.bit(ALONE)
    if previous is None and not alone:
        raise CodecError("a mask that builds on the slice before, which did not arrive")
    tables = tables or codec_tables()
    known = bytearray(make_planes(grid, None if alone else previous).tobytes())
    planes = np.frombuffer(known, np.uint8).reshape(2 * REGION_COUNT, grid.size)
    trees = flatten_trees(tables, grid)
    larger = grid.inside()
    for region in range(REGION_COUNT):
        prediction = predict(planes[REGION_COUNT + region], larger, grid)
        planes[region] = prediction.values
        seeds = decode_seeds(coder, tables, region, prediction.classes)
        decode_pixels(coder, trees, region, known, prediction, seeds, grid)
        larger = planes[region]
    coder.finish()
    return join_planes(planes[:REGION_COUNT], grid)


def make_planes(grid: MaskGrid, previous: MaskArray | None) -> Plane:
    """Return six planes: three empty ones, then the regions of the mask before."""
    planes = np.zeros((2 * REGION_COUNT, grid.size), np.uint8)
    if previous is not None:
        if previous.shape != (grid.rows, grid.columns):
            raise CodecError(f"a mask of {(grid.rows, grid.columns)} after one of {previous.shape}")
        split_planes(previous, grid, planes[REGION_COUNT:])
    return planes


def places_to_code(planes: Plane, grid: MaskGrid) -> Iterator[PlacesToCode]:
    """Yield the prediction of each region, the places of its seeds, and of the coded pixels."""
    larger = grid.inside()
    for region in range(REGION_COUNT):
        prediction = predict(planes[REGION_COUNT + region], larger, grid)
        changed = prediction.values ^ planes[region]
        touched = np.zeros_like(changed)
        for step in grid.next_pixels:
            touched[step:] |= changed[:-step]
        coded = (prediction.open | touched) & larger
        seeds = (changed & ~coded).view(bool)
        yield prediction, np.flatnonzero(seeds), np.flatnonzero(coded.view(bool))
        larger = planes[region]


def pixel_probabilities(
    trees: FlatTrees, planes: Plane, places: Sequence[NDArray[np.intp]]
) -> list[NDArray[np.intp]]:
    """Return the probabilities that the pixels at the `places` of each region have changed."""
    known, pixels = planes.ravel(), np.concatenate(places)
    sizes = [part.size for part in places]
    nodes = np.repeat(trees.roots, sizes)
    for _ in range(trees.depth):
        values = known.take(pixels + trees.offsets.take(nodes))
        nodes = trees.branches.take(2 * nodes + values)
    return np.split(trees.probabilities.take(nodes), np.cumsum(sizes)[:-1])


def encode_seeds(
    coder: RangeEncoder, tables: Tables, region: int, classes: Plane, seeds: NDArray[np.intp]
) -> None:
    """Code the seeds of a region, class by class: whether another follows, and its pixel."""
    for kind in range(CLASSES):
        at = (region * CLASSES + kind) * COUNTS
        another = tables.seeds[at : at + COUNTS]
        members = classes == kind
        left = int(np.count_nonzero(members))
        count = start = 0
        for seed in seeds[members[seeds]].tolist():
            passed = int(np.count_nonzero(members[start:seed]))
            coder.bits([1], [another[min(count, COUNTS - 1)]])
            coder.number(passed, left)
            count, start, left = count + 1, seed + 1, left - passed - 1
        if left:
            coder.bits([0], [another[min(count, COUNTS - 1)]])


def decode_seeds(coder: RangeDecoder, tables: Tables, region: int, classes: Plane) -> set[int]:
    """Return the places of a region's seeds."""
    seeds: set[int] = set()
    for kind in range(CLASSES):
        at = (region * CLASSES + kind) * COUNTS
        another = tables.seeds[at : at + COUNTS]
        members = classes == kind
        left = int(np.count_nonzero(members))
        count = start = 0
        while left and coder.bit(another[min(count, COUNTS - 1)]):
            passed = coder.number(left)
            start += passed
            seeds.add(int(np.flatnonzero(members)[start]))
            count, start, left = count + 1, start + 1, left - passed - 1
    return seeds


def decode_pixels(
    coder: RangeDecoder,
    trees: FlatTrees,
    region: int,
    known: bytearray,
    prediction: Prediction,
    seeds: set[int],
    grid: MaskGrid,
) -> None:
    """Turn the predicted pixels of a region in `known` into the actual ones."""
    start, reads, steps = trees.starts[region], trees.reads, trees.steps
    own = region * grid.size
    within = prediction.larger.tobytes()
    coded = bytearray(prediction.open.tobytes())
    for seed in seeds:
        coded[seed] = 1
    right, lower_left, below, lower_right = grid.next_pixels
    place = coded.find(1)
    while place >= 0:
        if place in seeds:
            changed = 1
        else:
            node = start
            while node >= 0:
                node = steps[node + known[place + reads[node]]]
            changed = coder.bit(-node)
        if changed:
            known[own + place] ^= 1
            coded[place + right] = within[place + right]
            coded[place + lower_left] = within[place + lower_left]
            coded[place + below] = within[place + below]
            coded[place + lower_right] = within[place + lower_right]
        place = coded.find(1, place + 1)


def pack_labels(mask: MaskArray) -> bytes:
    """Return a mask as two bits per pixel, low bits first."""
    labels = np.zeros((mask.size + 3) // 4 * 4, np.uint8)
    labels[: mask.size] = mask.ravel()
    quads = labels.reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)
    packed: MaskArray = np.bitwise_or.reduce(quads, axis=1)
    return packed.tobytes()


def unpack_labels(content: bytes, shape: tuple[int, int]) -> MaskArray:
    """Return the mask of `shape` from two bits per pixel; raises CodecError for another length."""
    pixels = shape[0] * shape[1]
    if len(content) != (pixels + 3) // 4:
        raise CodecError(f"{len(content)} bytes came for a mask of {pixels} pixels")
    quads = np.frombuffer(content, np.uint8)[:, None] >> np.array([0, 2, 4, 6], np.uint8)
    labels: MaskArray = (quads & np.uint8(3)).ravel()
    if labels[pixels:].any():
        raise CodecError("a mask with labels beyond its last pixel")
    return labels[:pixels].reshape(shape)


def encode_runs(mask: MaskArray) -> bytes:
    """Return a mask as runs of equal labels."""
    labels = mask.ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(labels)) + 1))
    lengths = np.diff(np.append(starts, labels.size))
    return b"".join(map(varint, ((lengths - 1) * LABELS + labels[starts]).tolist()))


def decode_runs(payload: bytes, shape: tuple[int, int]) -> MaskArray:
    """Return a mask from its runs, which must fill it exactly; raises CodecError."""
    values, at = [], 0
    while at < len(payload):
        found = read_varint(payload, at, MAX_RUN_BYTES)
        if found is None:
            raise CodecError("a run that is cut, or longer than any mask")
        values.append(found[0])
        at = found[1]
    runs = np.array(values, np.int64)
    lengths = runs // LABELS + 1
    pixels = shape[0] * shape[1]
    if lengths.sum() != pixels:
        raise CodecError(f"runs over {lengths.sum()} pixels came where {pixels} are")
    labels = (runs % LABELS).astype(np.uint8)
    return np.repeat(labels, lengths.astype(np.intp)).reshape(shape)  # an int of 32 bits there
