"""Lossy WebP without its container: the VP8 key frame (RFC 6386) of a grey picture.

A decoder computes in whole numbers as RFC 6386 says, so every machine gets the same pixels from the
same bytes. What an encoder makes of a picture may change with its version: compare what was
decoded, never what went in. As in `vp8l`, the size in the header is compared before a decoder runs.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.vp8l import CodecError, bitstream_of, pixels_of

CHUNK = b"VP8 "
HEADER = struct.Struct("<3s3sHH")
START = b"\x9d\x01\x2a"
SIDE = 0x3FFF


def encoder() -> str:
    """Return which encoder works here: the same one makes the same bytes of the same picture."""
    from PIL import features

    return f"libwebp {features.version('webp')}"


def encode(image: NDArray[np.uint8], method: int, quality: int) -> bytes:
    """Return grey levels (rows, columns) as a VP8 key frame.

    `method` says how long the encoder looks for a shorter one, `quality` how much it keeps, up to
    100.
    """
    return bitstream_of(image, CHUNK, method=method, quality=quality)


def size_of(stream: bytes) -> tuple[int, int]:
    """Return (rows, columns) of a VP8 key frame; raises CodecError if it is none."""
    if len(stream) < HEADER.size:
        raise CodecError("the payload is no lossy WebP")
    tag, start, columns, rows = HEADER.unpack_from(stream)
    if tag[0] & 1 or start != START:
        raise CodecError("the payload is no lossy WebP")
    return rows & SIDE, columns & SIDE


def decode(stream: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the grey levels of `size` (rows, columns) in `stream`; raises CodecError.

    They are the red of libwebp's RGB, which equals green and blue to one step.
    """
    return pixels_of(stream, CHUNK, size_of(stream), size, "R")
