"""Masks each on its own: as they are, as runs of equal labels, as a WebP image of the tumour's box.

`change` of `mask_codec` is smaller; these need no slice before and no tables.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from glioslice.wire import vp8l
from glioslice.wire.mask_planes import LABELS
from glioslice.wire.varint import varint
from glioslice.wire.vp8l import CodecError

Mask = NDArray[np.uint8]
Shape = tuple[int, int]

CORNER = struct.Struct("<HH")
MAX_RUN_BYTES = 4

EFFORT = (3, 50)
"""WebP method and quality."""


def from_raw(payload: bytes, shape: Shape) -> Mask:
    """Return a mask from its bytes."""
    if len(payload) != shape[0] * shape[1]:
        raise CodecError(f"{len(payload)} bytes came for a mask of {shape}")
    return np.frombuffer(payload, np.uint8).reshape(shape)


def to_runs(mask: Mask) -> bytes:
    """Return a mask as runs of equal labels."""
    labels = mask.ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(labels)) + 1))
    lengths = np.diff(np.append(starts, labels.size))
    return b"".join(map(varint, ((lengths - 1) * LABELS + labels[starts]).tolist()))


def from_runs(payload: bytes, shape: Shape) -> Mask:
    """Return a mask from its runs, which must fill it exactly."""
    values, value, shift = [], 0, 0
    for byte in payload:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            values.append(value)
            value = shift = 0
        elif shift >= 7 * MAX_RUN_BYTES:
            raise CodecError("a run longer than any mask")
    runs = np.array(values, np.int64)
    lengths = runs // LABELS + 1
    pixels = shape[0] * shape[1]
    if shift or lengths.sum() != pixels:
        raise CodecError(f"runs over {lengths.sum()} pixels came where {pixels} are")
    labels = (runs % LABELS).astype(np.uint8)
    return np.repeat(labels, lengths.astype(np.intp)).reshape(shape)  # an int of 32 bits there


def to_box(mask: Mask) -> bytes:
    """Return the bounding box of a mask's tumour and a VP8L bitstream of it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return b""
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return CORNER.pack(int(rows[0]), int(columns[0])) + vp8l.encode(box, *EFFORT)


def from_box(payload: bytes, shape: Shape) -> Mask:
    """Return a mask from its bounding box."""
    mask = np.zeros(shape, np.uint8)
    if not payload:
        return mask
    if len(payload) < CORNER.size:
        raise CodecError("a mask that ends within its bounding box")
    row, column = CORNER.unpack_from(payload)
    stream = payload[CORNER.size :]
    rows, columns = vp8l.size_of(stream)
    if row + rows > shape[0] or column + columns > shape[1]:
        raise CodecError(f"a box of {rows} x {columns} at ({row}, {column}) outside of {shape}")
    pixels = vp8l.decode(stream, (rows, columns), "RGB")
    if (pixels != pixels[..., :1]).any():
        raise CodecError("a mask that is not grey")
    mask[row : row + rows, column : column + columns] = pixels[..., 0]
    return mask
