"""What the payloads hold: slices up, masks down. Every codec here is lossless.

A codec has a small number, which crosses the line, and a name. A board offers codecs in BoardHello
as a set of bits, the host chooses the first of its preference that is offered.

An image is int8 (X, Y, channels) as the network sees it:

    0 raw   the bytes, channels fastest
    1 zlib  the same, channel by channel (channels, X, Y), as a zlib stream
    2 webp  four channels as R, G, B, A of a VP8L bitstream of X rows and Y columns, each + 128

A mask is uint8 (X, Y), labels 0 to 3:

    0 raw   the bytes, Y fastest
    1 runs  in the same order, runs of equal labels: (length - 1) * 4 + label, 7 bits a byte, low
            bits first, the top bit set on all but the last byte
    2 webp  nothing for an empty mask; else u16 row, u16 column of the tumour's bounding box and a
            VP8L bitstream of the box, labels as grey values
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from glioslice.wire import vp8l
from glioslice.wire.vp8l import CodecError

__all__ = [
    "IMAGES",
    "MASKS",
    "PREFERENCE",
    "Codec",
    "CodecError",
    "choose",
    "decode_image",
    "decode_mask",
    "encode_image",
    "encode_mask",
    "offered",
]

ImageArray = NDArray[np.int8]
MaskArray = NDArray[np.uint8]
Shape = tuple[int, ...]
Array = TypeVar("Array", ImageArray, MaskArray)

LABELS = 4
CORNER = struct.Struct("<HH")
MAX_RUN_BYTES = 4

IMAGE_EFFORT = (1, 30)
"""WebP method and quality. On z-scored slices the next efforts saved 2 to 4 % for two to four times
the time; the one below works without predictors and took a third more bytes."""

MASK_EFFORT = (3, 50)


@dataclass(frozen=True)
class Codec(Generic[Array]):
    """A number and a name, and both ways. `decode` is given the shape that must come out."""

    number: int
    name: str
    encode: Callable[[Array], bytes]
    decode: Callable[[bytes, Shape], Array]
    channels: int | None = None


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
    return vp8l.encode(image.view(np.uint8) ^ np.uint8(128), *IMAGE_EFFORT)


def webp_to_image(payload: bytes, shape: Shape) -> ImageArray:
    """Return four channels from a VP8L bitstream."""
    pixels = vp8l.decode(payload, (shape[0], shape[1]), "RGBA")
    return (pixels ^ np.uint8(128)).view(np.int8)


def raw_mask(payload: bytes, shape: Shape) -> MaskArray:
    """Return a mask from its bytes."""
    return np.frombuffer(exactly(payload, count(shape)), np.uint8).reshape(shape)


def to_runs(mask: MaskArray) -> bytes:
    """Return a mask as runs of equal labels."""
    labels = mask.ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(labels)) + 1))
    lengths = np.diff(np.append(starts, labels.size))
    payload = bytearray()
    for value in ((lengths - 1) * LABELS + labels[starts]).tolist():
        while value > 0x7F:
            payload.append(value & 0x7F | 0x80)
            value >>= 7
        payload.append(value)
    return bytes(payload)


def from_runs(payload: bytes, shape: Shape) -> MaskArray:
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
    if shift or lengths.sum() != count(shape):
        raise CodecError(f"runs over {lengths.sum()} pixels came where {count(shape)} are")
    return np.repeat((runs % LABELS).astype(np.uint8), lengths).reshape(shape)


def mask_to_webp(mask: MaskArray) -> bytes:
    """Return the bounding box of a mask's tumour and a VP8L bitstream of it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return b""
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return CORNER.pack(int(rows[0]), int(columns[0])) + vp8l.encode(box, *MASK_EFFORT)


def webp_to_mask(payload: bytes, shape: Shape) -> MaskArray:
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


IMAGES: dict[int, Codec[ImageArray]] = {
    codec.number: codec
    for codec in (
        Codec[ImageArray](0, "raw", lambda image: image.tobytes(), raw_image),
        Codec[ImageArray](1, "zlib", deflate, inflate),
        Codec[ImageArray](2, "webp", image_to_webp, webp_to_image, channels=4),
    )
}
MASKS: dict[int, Codec[MaskArray]] = {
    codec.number: codec
    for codec in (
        Codec[MaskArray](0, "raw", lambda mask: mask.tobytes(), raw_mask),
        Codec[MaskArray](1, "runs", to_runs, from_runs),
        Codec[MaskArray](2, "webp", mask_to_webp, webp_to_mask),
    )
}
PREFERENCE = (2, 1, 0)
"""Of images and of masks alike, smallest first."""


def offered(codecs: Mapping[int, Codec[Array]]) -> int:
    """Return the codecs that work here as bits, for BoardHello: without Pillow there is no webp."""
    works = vp8l.available()
    return sum(1 << number for number, codec in codecs.items() if works or codec.name != "webp")


def choose(theirs: int, codecs: Mapping[int, Codec[Array]], name: str | None = None) -> int:
    """Return the first codec of our preference that both ends have, or the one called `name`.

    `theirs` are the bits that the board offered. Raises CodecError if there is none.
    """
    both = theirs & offered(codecs)
    wanted = [n for n in PREFERENCE if name is None or codecs[n].name == name]
    for number in wanted:
        if both >> number & 1:
            return number
    asked = name or "any of " + ", ".join(codec.name for codec in codecs.values())
    raise CodecError(f"no codec in common with the board: it does not offer {asked}")


def find(codecs: Mapping[int, Codec[Array]], number: int) -> Codec[Array]:
    """Return the codec of this number; raises CodecError if there is none."""
    codec = codecs.get(number)
    if codec is None:
        raise CodecError(f"codec {number} is not known; both ends need the same glioslice")
    return codec


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


def encode_mask(number: int, mask: MaskArray) -> bytes:
    """Return a uint8 (X, Y) mask of labels 0 to 3 as the payload of a Mask."""
    return find(MASKS, number).encode(mask)


def decode_mask(number: int, payload: bytes, shape: tuple[int, int]) -> MaskArray:
    """Return the uint8 mask of `shape` (X, Y) in a Mask's payload; raises CodecError."""
    mask = find(MASKS, number).decode(payload, shape)
    if mask.max() >= LABELS:
        raise CodecError(f"a mask with a label {mask.max()}; there are 0 to {LABELS - 1}")
    return mask
