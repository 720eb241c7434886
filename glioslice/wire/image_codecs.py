"""Lossy WebP without its container: the VP8 key frame (RFC 6386) of a grey picture.

A decoder computes in whole numbers as RFC 6386 says, so every machine gets the same pixels from the
same bytes. What an encoder makes of a picture may change with its version: compare what was
decoded, never what went in. As in `vp8l`, the size in the header is compared before a decoder runs.

Lossless WebP without its container: the VP8L bitstream alone, whose header is checked first.

Pillow writes RIFF header, chunk header, bitstream; 20 bytes of that say nothing here. A decoder
takes memory for the size that the bitstream claims, so that is compared before it is called.
"""

import io
import struct

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError

VP8_CHUNK = b"VP8 "
VP8_HEADER = struct.Struct("<3s3sHH")
START = b"\x9d\x01\x2a"
SIDE = 0x3FFF


def encoder() -> str:
    """Return which encoder works here: the same one makes the same bytes of the same picture."""
    from PIL import features

    return f"libwebp {features.version('webp')}"


def encode_vp8(image: NDArray[np.uint8], method: int, quality: int) -> bytes:
    """Return grey levels (rows, columns) as a VP8 key frame.

    `method` says how long the encoder looks for a shorter one, `quality` how much it keeps, up to
    100.
    """
    return bitstream_of(image, VP8_CHUNK, method=method, quality=quality)


def vp8_size(stream: bytes) -> tuple[int, int]:
    """Return (rows, columns) of a VP8 key frame; raises CodecError if it is none."""
    if len(stream) < VP8_HEADER.size:
        raise CodecError("the payload is no lossy WebP")
    tag, start, columns, rows = VP8_HEADER.unpack_from(stream)
    if tag[0] & 1 or start != START:
        raise CodecError("the payload is no lossy WebP")
    return rows & SIDE, columns & SIDE


def decode_vp8(stream: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the grey levels of `size` (rows, columns) in `stream`; raises CodecError.

    They are the red of libwebp's RGB, which equals green and blue to one step.
    """
    return pixels_of(stream, VP8_CHUNK, vp8_size(stream), size, "R")


SIGNATURE = 0x2F
VP8L_HEADER = 5
VP8L_CHUNK = b"VP8L"
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


def encode_vp8l(image: NDArray[np.uint8], method: int, quality: int) -> bytes:
    """Return (rows, columns) or (rows, columns, 4) as a VP8L bitstream.

    `method` and `quality` set how long the encoder looks for a shorter one; nothing is lost.
    """
    return bitstream_of(
        image, VP8L_CHUNK, lossless=True, exact=True, method=method, quality=quality
    )


def bitstream_of(image: NDArray[np.uint8], chunk: bytes, **options: int) -> bytes:
    """Return the bitstream that Pillow makes of an image with its WebP `options`.

    Raises CodecError if it does not stand in a chunk of that name.
    """
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "WEBP", **options)
    content = file.getvalue()
    _, _, _, found, size = CONTAINER.unpack_from(content)
    if found != chunk:
        raise CodecError(f"this Pillow wrote a WebP chunk {found!r} where {chunk!r} was expected")
    return content[CONTAINER.size : CONTAINER.size + size]


def vp8l_size(stream: bytes) -> tuple[int, int]:
    """Return (rows, columns) of a VP8L bitstream; raises CodecError if it is none."""
    if len(stream) <= VP8L_HEADER or stream[0] != SIGNATURE:
        raise CodecError("the payload is no lossless WebP")
    bits = int.from_bytes(stream[1:VP8L_HEADER], "little")
    if bits >> 29:
        raise CodecError(f"lossless WebP of the unknown version {bits >> 29}")
    return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1


def decode_vp8l(stream: bytes, size: tuple[int, int], bands: str) -> NDArray[np.uint8]:
    """Return the image in `stream`, which must be of `size` (rows, columns).

    `bands` is a mode of Pillow such as RGBA, or one of its bands: then (rows, columns) come out.
    Raises CodecError for anything else.
    """
    return pixels_of(stream, VP8L_CHUNK, vp8l_size(stream), size, bands)


def pixels_of(
    stream: bytes, chunk: bytes, claimed: tuple[int, int], size: tuple[int, int], bands: str
) -> NDArray[np.uint8]:
    """Return the pixels in a bitstream that stands in a chunk of that name and claims its size.

    Raises CodecError if they are not of `size`, or it does not decode.
    """
    from PIL import Image

    if claimed != size:
        raise CodecError(f"an image of {claimed} came where {size} was expected")
    padding = b"\0" * (len(stream) % 2)
    riff = 12 + len(stream) + len(padding)
    container = CONTAINER.pack(b"RIFF", riff, b"WEBP", chunk, len(stream))
    try:
        with Image.open(io.BytesIO(container + stream + padding), formats=("WEBP",)) as image:
            # One band first: an array of all would be copied twice.
            wanted = image.getchannel(bands) if len(bands) == 1 else image.convert(bands)
            pixels = np.asarray(wanted, np.uint8)
    except Exception as error:  # whatever Pillow raises for damaged bytes; its list has changed
        raise CodecError(f"the payload is damaged ({error})") from error
    if pixels.shape[:2] != size:
        raise CodecError(f"an image of {pixels.shape[:2]} came where {size} was expected")
    return pixels
