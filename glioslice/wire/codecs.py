"""What the payloads hold: slices up, masks down. All codecs but one, `lossy`, lose nothing.

A codec has a small number, which crosses the line, and a name. A board offers codecs in BoardHello
as a set of bits, the host chooses the best that is offered.

An image is int8 (X, Y, channels) as the network sees it:

    0 raw   the bytes, channels fastest
    1 zlib  the same, channel by channel (channels, X, Y), as a zlib stream
    2 webp  four channels as R, G, B, A of a VP8L bitstream of X rows and Y columns, each + 128
    3 lossy the channels one above another, (channels * X, Y), each + 128, as grey levels of a VP8
            bitstream: what comes out is close to what went in, and the same on every machine

A mask is uint8 (X, Y), labels 0 to 3; numbers 0 and 2 are reserved:

    1 runs  Y fastest, runs of equal labels: (length - 1) * 4 + label, 7 bits a byte, low bits
            first, the top bit set on all but the last byte
    3 change
            what differs from the mask before, see mask_codec

The mask before is that of the last message with one in the same run and session, an empty one if it
was an Empty; the first has none. `runs` does not use it.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from glioslice.wire import context_coder, image_codecs
from glioslice.wire.image_codecs import CodecError
from glioslice.wire.mask_codecs import from_runs, to_runs

__all__ = [
    "IMAGES",
    "LOSSLESS",
    "MASKS",
    "RUNS",
    "Codec",
    "CodecError",
    "MaskCodec",
    "choose",
    "decode_image",
    "decode_mask",
    "encode_image",
    "encode_mask",
    "encoder_of",
    "offered",
]

ImageArray = NDArray[np.int8]
MaskArray = NDArray[np.uint8]
Shape = tuple[int, ...]

RUNS = 1
"""The mask codec that needs no more than numpy."""

IMAGE_EFFORT = (1, 30)
"""WebP method and quality. On z-scored slices the next efforts saved 2 to 4 % for two to four times
the time; the one below works without predictors and took a third more bytes."""

LOSSY_EFFORT = (6, 40)
"""WebP method and quality, chosen by the curve in docs/wire.md. What a board decodes does not
depend on them, so they may change without a new number."""


@dataclass(frozen=True)
class Codec:
    """A number and a name."""

    number: int
    name: str


@dataclass(frozen=True)
class ImageCodec(Codec):
    """Both ways of images. `decode` is given the shape that must come out."""

    encode: Callable[[ImageArray], bytes]
    decode: Callable[[bytes, Shape], ImageArray]
    channels: int | None = None
    lossless: bool = True


@dataclass(frozen=True)
class MaskCodec(Codec):
    """Both ways of masks. Each is given the mask before, None if there is none."""

    encode: Callable[[MaskArray, MaskArray | None], bytes]
    decode: Callable[[bytes, tuple[int, int], MaskArray | None], MaskArray]


def exactly(data: bytes, size: int) -> bytes:
    """Return `data`; CodecError unless it has `size` bytes."""
    if len(data) != size:
        raise CodecError(f"{len(data)} bytes came where {size} were expected")
    return data


def count(shape: Shape) -> int:
    """Return the number of elements of an array of `shape`."""
    return int(np.prod(shape))


def raw_image(payload: bytes, shape: Shape) -> ImageArray:
    """Return an image from its bytes."""
    return np.frombuffer(exactly(payload, count(shape)), np.int8).reshape(shape)


def deflate(image: ImageArray) -> bytes:
    """Return an image channel by channel as a zlib stream."""
    return zlib.compress(np.moveaxis(image, -1, 0).tobytes(), 6)


def inflate(payload: bytes, shape: Shape) -> ImageArray:
    """Return an image from its zlib stream, of which no more than its size is unpacked."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(payload, count(shape) + 1)
    except zlib.error as error:
        raise CodecError(f"the payload is no zlib stream ({error})") from error
    if not stream.eof or stream.unused_data:
        raise CodecError("the zlib stream is cut, too long, or followed by other bytes")
    planes = np.frombuffer(exactly(data, count(shape)), np.int8)
    return np.moveaxis(planes.reshape(shape[2], *shape[:2]), 0, -1)


def image_to_webp(image: ImageArray) -> bytes:
    """Return four channels as one VP8L bitstream."""
    return image_codecs.encode_vp8l(image.view(np.uint8) ^ np.uint8(128), *IMAGE_EFFORT)


def webp_to_image(payload: bytes, shape: Shape) -> ImageArray:
    """Return four channels from a VP8L bitstream."""
    pixels = image_codecs.decode_vp8l(payload, (shape[0], shape[1]), "RGBA")
    return (pixels ^ np.uint8(128)).view(np.int8)


def image_to_lossy(image: ImageArray) -> bytes:
    """Return the channels one above another as one VP8 bitstream."""
    levels = np.moveaxis(image.view(np.uint8) ^ np.uint8(128), -1, 0)
    return image_codecs.encode_vp8(levels.reshape(-1, image.shape[1]), *LOSSY_EFFORT)


def lossy_to_image(payload: bytes, shape: Shape) -> ImageArray:
    """Return the channels from a VP8 bitstream."""
    rows, columns, channels = shape
    levels = image_codecs.decode_vp8(payload, (channels * rows, columns)) ^ np.uint8(128)
    image = np.empty(shape, np.int8)
    for channel, plane in enumerate(levels.view(np.int8).reshape(channels, rows, columns)):
        image[..., channel] = plane  # five times as fast as a copy of the moved axis
    return image


IMAGES: dict[int, ImageCodec] = {
    codec.number: codec
    for codec in (
        ImageCodec(3, "lossy", image_to_lossy, lossy_to_image, lossless=False),
        ImageCodec(2, "webp", image_to_webp, webp_to_image, channels=4),
        ImageCodec(1, "zlib", deflate, inflate),
        ImageCodec(0, "raw", lambda image: image.tobytes(), raw_image),
    )
}
MASKS: dict[int, MaskCodec] = {
    codec.number: codec
    for codec in (
        MaskCodec(3, "change", context_coder.encode, context_coder.decode),
        MaskCodec(RUNS, "runs", lambda mask, _: to_runs(mask), lambda p, s, _: from_runs(p, s)),
    )
}
"""Of images and of masks, the best first: the smallest."""

LOSSLESS = {number: codec for number, codec in IMAGES.items() if codec.lossless}
NEED_PILLOW = ("webp", "lossy")


def offered(codecs: Mapping[int, Codec]) -> int:
    """Return the codecs that work here as bits, for BoardHello.

    Without Pillow there is no WebP.
    """
    works = image_codecs.available()
    bits = (1 << n for n, codec in codecs.items() if works or codec.name not in NEED_PILLOW)
    return sum(bits)


def choose(theirs: int, codecs: Mapping[int, Codec], name: str | None = None) -> int:
    """Return the first of `codecs` that both ends have, or the one called `name`.

    `theirs` are the bits that the board offered. Raises CodecError if there is none.
    """
    both = theirs & offered(codecs)
    for number, codec in codecs.items():
        if both >> number & 1 and name in (None, codec.name):
            return number
    asked = name or "any of " + ", ".join(codec.name for codec in codecs.values())
    raise CodecError(f"no codec in common with the board: it does not offer {asked}")


AnyCodec = TypeVar("AnyCodec", bound=Codec)


def find(codecs: Mapping[int, AnyCodec], number: int) -> AnyCodec:
    """Return the codec of this number; raises CodecError if there is none."""
    codec = codecs.get(number)
    if codec is None:
        raise CodecError(f"codec {number} is not known; both ends need the same glioslice")
    return codec


def encoder_of(number: int) -> bytes:
    """Return what tells encoders apart that may make other images of the same; b"" if lossless."""
    if find(IMAGES, number).lossless:
        return b""
    return repr((image_codecs.encoder(), *LOSSY_EFFORT)).encode()


def encode_image(number: int, image: ImageArray) -> bytes:
    """Return an int8 (X, Y, channels) image as the payload of a Slice."""
    codec = find(IMAGES, number)
    if codec.channels not in (None, image.shape[2]):
        raise CodecError(f"codec {codec.name} takes {codec.channels} channels, not {image.shape}")
    return codec.encode(image)


def decode_image(number: int, payload: bytes, shape: tuple[int, int, int]) -> ImageArray:
    """Return the int8 image of `shape` (X, Y, channels) in a Slice's payload.

    Raises CodecError if it holds none. The array may be read-only.
    """
    codec = find(IMAGES, number)
    if codec.channels not in (None, shape[2]):
        raise CodecError(f"codec {codec.name} gives {codec.channels} channels, not {shape}")
    return codec.decode(payload, shape)


def encode_mask(number: int, mask: MaskArray, previous: MaskArray | None = None) -> bytes:
    """Return a uint8 (X, Y) mask of labels 0 to 3 as the payload of a Mask.

    `previous` is the one before in the same run and session, None at the first.
    """
    return find(MASKS, number).encode(mask, previous)


def decode_mask(
    number: int, payload: bytes, shape: tuple[int, int], previous: MaskArray | None = None
) -> MaskArray:
    """Return the uint8 mask of `shape` (X, Y) in a Mask's payload, as `encode_mask` was given it.

    Raises CodecError if it holds none. The array may be read-only.
    """
    return find(MASKS, number).decode(payload, shape, previous)
