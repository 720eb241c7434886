"""Masks as runs of equal labels, without the slice before and without tables.

    for each run, Y fastest: (length - 1) * 4 + label, 7 bits a byte, low bits first, the top bit
    set on all but the last byte, at most 4 bytes

The codec `change` of `context_coder` takes a quarter of the bytes; this one depends on no other
mask.
"""

import numpy as np

from glioslice.wire.context_model import LABELS, MaskArray
from glioslice.wire.layout import CodecError, read_varint, varint

MAX_RUN_BYTES = 4


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
