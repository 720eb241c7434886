"""Masks each by itself, as runs of equal labels.

`change` of `mask_codec` is smaller; runs need neither the slice before nor tables.
"""

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.context_model import LABELS
from glioslice.wire.image_codecs import CodecError
from glioslice.wire.layout import varint

Mask = NDArray[np.uint8]
Shape = tuple[int, int]

MAX_RUN_BYTES = 4


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
