"""Slices as bytes and back: int8 (X, Y, channels) as the network takes them.

    0 raw    the bytes, channels fastest
    1 zlib   the same, channel by channel (channels, X, Y), as a zlib stream
    2 webp   one to four channels as R, G, B, A of a VP8L bitstream of X rows and Y columns, each
             + 128; those that are left over are 128 and ignored
    3 lossy  the channels one above another, (channels * X, Y), each + 128, as grey levels of a VP8
             key frame (RFC 6386): close to the original, and the same on every machine

WebP bitstreams are sent without their container: the RIFF and chunk headers, 20 bytes, carry no
information here. A decoder allocates the size that a bitstream claims, so that size is compared
before a decoder is called. A VP8 decoder computes in integers only, as RFC 6386 prescribes, so the
same bytes give the same pixels everywhere. What an encoder makes of an image may change with its
version: compare decoded images, never what was encoded.
"""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from glioslice.wire.layout import CodecError

ImageArray = NDArray[np.int8]
Shape = tuple[int, ...]
Size = tuple[int, int]
"""Rows and columns."""

LOSSLESS_EFFORT = (1, 30)
"""WebP method and quality. On z-scored slices the next efforts saved 2 to 4 % for two to four times
the time; the one below works without predictors and took a third more bytes."""

LOSSY_EFFORT = (6, 40)
"""WebP method and quality, chosen by the curve in docs/wire.md. What a board decodes does not
depend on them, so they may change without a new codec number."""

WEBP_CHANNELS = 4
"""R, G, B and A of a lossless picture."""

CONTAINER = struct.Struct("<4sI4s4sI")
VP8, VP8L = b"VP8 ", b"VP8L"
"""Chunks of a WebP file: lossy and lossless."""

VP8_HEADER = struct.Struct("<3s3sHH")
VP8_START = b"\x9d\x01\x2a"
VP8L_HEADER = 5
VP8L_SIGNATURE = 0x2F
SIDE = 0x3FFF


def has_webp() -> bool:
    """Return whether Pillow is installed and was built with WebP."""
    try:
        from PIL import features
    except ImportError:
        return False
    return bool(features.check("webp"))


def webp_version() -> str:
    """Return the encoder's version: the same one makes the same bytes of the same image."""
    from PIL import features

    return f"libwebp {features.version('webp')}"


def decode_raw(payload: bytes, shape: Shape) -> ImageArray:
    """Return an image from its bytes."""
    size = int(np.prod(shape))
    if len(payload) != size:
        raise CodecError(f"{len(payload)} bytes came where {size} were expected")
    return np.frombuffer(payload, np.int8).reshape(shape)


def encode_zlib(image: ImageArray) -> bytes:
    """Return an image channel by channel as a zlib stream."""
    return zlib.compress(np.moveaxis(image, -1, 0).tobytes(), 6)


def decode_zlib(payload: bytes, shape: Shape) -> ImageArray:
    """Return an image from its zlib stream; no more than its size is unpacked."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(payload, int(np.prod(shape)) + 1)
    except zlib.error as error:
        raise CodecError(f"the payload is not a zlib stream ({error})") from error
    if not stream.eof or stream.unused_data:
        raise CodecError("the zlib stream is cut, too long, or followed by other bytes")
    planes = decode_raw(data, (shape[2], *shape[:2]))
    return np.moveaxis(planes, 0, -1)


def encode_lossless(image: ImageArray) -> bytes:
    """Return one to four channels as one VP8L bitstream."""
    method, quality = LOSSLESS_EFFORT
    levels = image.view(np.uint8) ^ np.uint8(128)
    left_over = WEBP_CHANNELS - image.shape[2]
    levels = np.pad(levels, ((0, 0), (0, 0), (0, left_over)), constant_values=128)
    return webp_bitstream(levels, method, quality, lossless=True)


def decode_lossless(payload: bytes, shape: Shape) -> ImageArray:
    """Return one to four channels from a VP8L bitstream."""
    if len(payload) <= VP8L_HEADER or payload[0] != VP8L_SIGNATURE:
        raise CodecError("the payload is not a lossless WebP bitstream")
    bits = int.from_bytes(payload[1:VP8L_HEADER], "little")
    if bits >> 29:
        raise CodecError(f"lossless WebP of the unknown version {bits >> 29}")
    claimed = (bits >> 14 & SIDE) + 1, (bits & SIDE) + 1
    pixels = webp_pixels(payload, VP8L, claimed, (shape[0], shape[1]), "RGBA")
    return (pixels[..., : shape[2]] ^ np.uint8(128)).view(np.int8)


def encode_lossy(image: ImageArray) -> bytes:
    """Return the channels one above another as one VP8 bitstream."""
    levels = np.moveaxis(image.view(np.uint8) ^ np.uint8(128), -1, 0)
    method, quality = LOSSY_EFFORT
    return webp_bitstream(levels.reshape(-1, image.shape[1]), method, quality, lossless=False)


def decode_lossy(payload: bytes, shape: Shape) -> ImageArray:
    """Return the channels from a VP8 bitstream.

    They are the red of libwebp's RGB, which equals green and blue to one step.
    """
    if len(payload) < VP8_HEADER.size:
        raise CodecError("the payload is not a lossy WebP bitstream")
    tag, start, width, height = VP8_HEADER.unpack_from(payload)
    if tag[0] & 1 or start != VP8_START:
        raise CodecError("the payload is not a lossy WebP bitstream")
    rows, columns, channels = shape
    claimed = height & SIDE, width & SIDE
    pixels = webp_pixels(payload, VP8, claimed, (channels * rows, columns), "R")
    levels = (pixels ^ np.uint8(128)).view(np.int8)
    image = np.empty(shape, np.int8)
    for channel, plane in enumerate(levels.reshape(channels, rows, columns)):
        image[..., channel] = plane  # five times as fast as a copy of the moved axis
    return image


def webp_bitstream(image: NDArray[np.uint8], method: int, quality: int, *, lossless: bool) -> bytes:
    """Return grey (rows, columns) or RGBA (rows, columns, 4) as a WebP bitstream, no container.

    `method` is the encoder's effort. `quality`, up to 100, is effort too where nothing is lost,
    else fidelity. Raises CodecError if Pillow wrote another kind of bitstream.
    """
    from PIL import Image

    options = {"lossless": True, "exact": True} if lossless else {}
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(
        file, "WEBP", method=method, quality=quality, **options
    )
    content, expected = file.getvalue(), VP8L if lossless else VP8
    _, _, _, chunk, size = CONTAINER.unpack_from(content)
    if chunk != expected:
        raise CodecError(f"Pillow wrote a WebP chunk {chunk!r} where {expected!r} was expected")
    return content[CONTAINER.size : CONTAINER.size + size]


def webp_pixels(
    stream: bytes, chunk: bytes, claimed: Size, size: Size, bands: str
) -> NDArray[np.uint8]:
    """Return the pixels of a bitstream that belongs into `chunk` and claims its size.

    `bands` is a mode of Pillow such as RGBA, or one of its bands, which gives (rows, columns).
    Raises CodecError if it claims or has another size, or does not decode.
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
