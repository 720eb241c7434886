"""Lossless WebP without its container: the VP8L bitstream alone, whose header is checked first.

Pillow writes RIFF header, chunk header, bitstream; 20 bytes of that say nothing here. A decoder
takes memory for the size that the bitstream claims, so that is compared before it is called.
"""

import io
import struct

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError

SIGNATURE = 0x2F
HEADER = 5
CONTAINER = struct.Struct("<4sI4s4sI")


class CodecError(GliosliceError):
    """A payload that does not decode to what was expected, or a codec that is not known."""


def available() -> bool:
    """Tell whether Pillow is installed and was built with WebP."""
    try:
        from PIL import features
    except ImportError:
        return False
    return bool(features.check("webp"))


def encode(image: NDArray[np.uint8], method: int, quality: int) -> bytes:
    """Return (rows, columns) or (rows, columns, 4) as a VP8L bitstream.

    `method` and `quality` set how long the encoder looks for a shorter one; nothing is lost.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(
        file, "WEBP", lossless=True, exact=True, method=method, quality=quality
    )
    content = file.getvalue()
    _, _, _, chunk, size = CONTAINER.unpack_from(content)
    if chunk != b"VP8L":
        raise CodecError(f"this Pillow wrote a WebP chunk {chunk!r} where VP8L was expected")
    return content[CONTAINER.size : CONTAINER.size + size]


def size_of(stream: bytes) -> tuple[int, int]:
    """Return (rows, columns) of a VP8L bitstream; raises CodecError if it is none."""
    if len(stream) <= HEADER or stream[0] != SIGNATURE:
        raise CodecError("the payload is no lossless WebP")
    bits = int.from_bytes(stream[1:HEADER], "little")
    if bits >> 29:
        raise CodecError(f"lossless WebP of the unknown version {bits >> 29}")
    return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1


def decode(stream: bytes, size: tuple[int, int], mode: str) -> NDArray[np.uint8]:
    """Return the image in `stream`, which must be of `size` (rows, columns), in Pillow's `mode`.

    Raises CodecError for anything else.
    """
    from PIL import Image

    claimed = size_of(stream)
    if claimed != size:
        raise CodecError(f"an image of {claimed} came where {size} was expected")
    padding = b"\0" * (len(stream) % 2)
    riff = 12 + len(stream) + len(padding)
    container = CONTAINER.pack(b"RIFF", riff, b"WEBP", b"VP8L", len(stream))
    try:
        with Image.open(io.BytesIO(container + stream + padding), formats=("WEBP",)) as image:
            pixels = np.asarray(image.convert(mode), np.uint8)
    except Exception as error:  # whatever Pillow raises for damaged bytes; its list has changed
        raise CodecError(f"the payload is damaged ({error})") from error
    if pixels.shape[:2] != size:
        raise CodecError(f"an image of {pixels.shape[:2]} came where {size} was expected")
    return pixels
