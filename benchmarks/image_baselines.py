"""Image codecs to compare for a slice: those of the wire at several settings, and others."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures

from glioslice.wire import image_codecs, mask_codecs
from glioslice.wire.codecs import decode_image, encode_image
from glioslice.wire.image_codecs import LOSSY_EFFORT

Image = NDArray[np.int8]
Levels = NDArray[np.uint8]

ZLIB, WEBP, LOSSY = 1, 2, 3
WIRE_CODEC = "WebP"
LOSSLESS_SETTING = "lossless"
QUALITIES = (15, 25, 40, 55, 75)
AVIF_SPEED = 8
"""The slowest that encodes a slice in less than 16 ms here."""


@dataclass(frozen=True)
class CodecSetting:
    """A codec of a family at one setting.

    `encode` takes a slice and the one before, `decode` the content and the slice before. `size`
    returns the bytes that would cross the link.
    """

    family: str
    setting: str
    encode: Callable[[Image, Image], bytes]
    decode: Callable[[bytes, Image], Image]
    size: Callable[[bytes], int] = len


def codec_settings() -> Iterator[CodecSetting]:
    """Yield all codecs, the wire's default first."""
    method, chosen = LOSSY_EFFORT
    for quality in (chosen, *(q for q in QUALITIES if q != chosen)):
        yield CodecSetting(
            WIRE_CODEC, f"quality {quality}", partial(webp, method, quality), from_webp
        )
    yield CodecSetting("WebP, brain alone", f"quality {chosen}", partial(brain, chosen), from_brain)
    for quality in (25, 33, 42):
        yield CodecSetting("AVIF", f"quality {quality}", partial(avif, quality), from_avif, in_avif)
    for ratio in (60, 40):
        yield CodecSetting("JPEG 2000", f"{ratio} : 1", partial(jpeg2000, ratio), from_jpeg2000)
    for step in (8, 16):
        yield CodecSetting(
            "coarser steps", f"{step} wide", partial(coarse, step), partial(from_coarse, step)
        )
    yield CodecSetting(LOSSLESS_SETTING, "codec 1, zlib", *wire_codec(ZLIB))
    yield CodecSetting(LOSSLESS_SETTING, "codec 2, WebP", *wire_codec(WEBP))
    yield CodecSetting(
        LOSSLESS_SETTING, "WebP, more effort", partial(lossless_webp, 4, 75), from_lossless_webp
    )
    yield CodecSetting(
        LOSSLESS_SETTING, "WebP of the difference to the slice before", difference, from_difference
    )
    yield CodecSetting(LOSSLESS_SETTING, "JPEG 2000", partial(jpeg2000, None), from_jpeg2000)


def wire_codec(
    number: int,
) -> tuple[Callable[[Image, Image], bytes], Callable[[bytes, Image], Image]]:
    """Return encoder and decoder of a codec of the wire."""

    def decode(content: bytes, before: Image) -> Image:
        x, y, channels = before.shape
        return decode_image(number, content, (x, y, channels))

    return lambda image, _: encode_image(number, image), decode


def to_levels(image: Image) -> Levels:
    """Return an image as levels from 0 to 255."""
    return image.view(np.uint8) ^ np.uint8(128)


def to_image(found: Levels) -> Image:
    """Return levels as an image."""
    return np.ascontiguousarray(found ^ np.uint8(128)).view(np.int8)


def stack_channels(found: Levels) -> Levels:
    """Return channels one above another, (X, Y, 4) to (4 X, Y)."""
    return np.moveaxis(found, -1, 0).reshape(-1, found.shape[1])


def split_channels(found: Levels) -> Levels:
    """Return channels one above another as (X, Y, 4)."""
    return np.moveaxis(found.reshape(4, -1, found.shape[1]), 0, -1)


def to_file(picture: Levels, form: str, **options: object) -> bytes:
    """Return a picture as a file that Pillow writes."""
    file = io.BytesIO()
    Pictures.fromarray(np.ascontiguousarray(picture)).save(file, form, **options)
    return file.getvalue()


def from_file(content: bytes) -> Levels:
    """Return the first channel of a picture's file."""
    with Pictures.open(io.BytesIO(content)) as picture:
        found = np.asarray(picture, np.uint8)
    return found if found.ndim == 2 else found[..., 0]


def webp(method: int, quality: int, image: Image, _: Image) -> bytes:
    """Return the bitstream of codec 3 at another setting."""
    return image_codecs.webp_bitstream(
        stack_channels(to_levels(image)), method, quality, lossless=False
    )


def from_webp(content: bytes, before: Image) -> Image:
    """Decode codec 3."""
    x, y, channels = before.shape
    return decode_image(LOSSY, content, (x, y, channels))


def brain(quality: int, image: Image, before: Image) -> bytes:
    """Return codec 3 with the outside of the brain filled smoothly, and the brain's outline."""
    inside = brain_of_slice(image)
    filled = to_image(smooth(to_levels(image), inside))
    outline = mask_codecs.encode_change(to_mask(inside), to_mask(brain_of_slice(before)))
    return len(outline).to_bytes(2, "little") + outline + webp(6, quality, filled, before)


def from_brain(content: bytes, before: Image) -> Image:
    """Decode `brain`; the outside gets the value of the slice's corner."""
    size = 2 + int.from_bytes(content[:2], "little")
    shape = before.shape[0], before.shape[1]
    labels = mask_codecs.decode_change(content[2:size], shape, to_mask(brain_of_slice(before)))
    return np.where(labels[..., None] > 0, from_webp(content[size:], before), before[0, 0])


def brain_of_slice(image: Image) -> NDArray[np.bool_]:
    """Return where a slice differs from its corner, (X, Y)."""
    found: NDArray[np.bool_] = (image != image[0, 0]).any(axis=-1)
    return found


def to_mask(inside: NDArray[np.bool_]) -> Levels:
    """Return a brain as a mask of edema alone, which the mask codec takes."""
    return inside.astype(np.uint8) * np.uint8(2)


def smooth(found: Levels, inside: NDArray[np.bool_]) -> Levels:
    """Return levels (X, Y, 4); the outside is filled with means of ever larger blocks."""
    weight = inside.astype(np.float32)[..., None]
    if not inside.any():
        return found
    filled = np.where(weight > 0, found, 0).astype(np.float32)
    done, size = weight > 0, 2
    while not done.all():
        x, y = -(-found.shape[0] // size), -(-found.shape[1] // size)
        room = ((0, x * size - found.shape[0]), (0, y * size - found.shape[1]), (0, 0))
        sums = np.pad(found * weight, room).reshape(x, size, y, size, -1).sum(axis=(1, 3))
        parts = np.pad(weight, room).reshape(x, size, y, size, 1).sum(axis=(1, 3))
        means = (sums / np.maximum(parts, 1)).repeat(size, 0).repeat(size, 1)
        known = (parts > 0).repeat(size, 0).repeat(size, 1)[: found.shape[0], : found.shape[1]]
        filled = np.where(done, filled, means[: found.shape[0], : found.shape[1]])
        done |= known
        size *= 2
    return np.rint(filled).astype(np.uint8)


def avif(quality: int, image: Image, _: Image) -> bytes:
    """Return an AVIF file of the channels one above another."""
    picture = stack_channels(to_levels(image))
    return to_file(
        picture, "AVIF", quality=quality, subsampling="4:0:0", speed=AVIF_SPEED, max_threads=1
    )


def from_avif(content: bytes, _: Image) -> Image:
    """Return the channels in an AVIF file."""
    return to_image(split_channels(from_file(content)))


def in_avif(content: bytes) -> int:
    """Return the bytes of an AVIF file without its container, which is the same for each slice."""
    at = content.index(b"mdat")
    return int.from_bytes(content[at - 4 : at], "big") - 8


def jpeg2000(ratio: int | None, image: Image, _: Image) -> bytes:
    """Return a JPEG 2000 codestream at a compression ratio, None: lossless."""
    options = {"quality_mode": "rates", "quality_layers": [ratio]} if ratio else {}
    picture = stack_channels(to_levels(image))
    return to_file(picture, "JPEG2000", no_jp2=True, irreversible=ratio is not None, **options)


def from_jpeg2000(content: bytes, _: Image) -> Image:
    """Return the channels in a JPEG 2000 codestream."""
    return to_image(split_channels(from_file(content)))


def coarse(step: int, image: Image, before: Image) -> bytes:
    """Return codec 2 of every `step`th value."""
    rounded = np.rint(image.astype(np.float32) / step).astype(np.int8)
    return encode_image(WEBP, rounded)


def from_coarse(step: int, content: bytes, before: Image) -> Image:
    """Decode `coarse`; the value for 'no brain' is restored exactly."""
    x, y, channels = before.shape
    rounded = decode_image(WEBP, content, (x, y, channels)).astype(np.int16) * step
    found = np.clip(rounded, -128, 127).astype(np.int8)
    return np.where(rounded == 0, before[0, 0], found)


def lossless_webp(method: int, quality: int, image: Image, _: Image) -> bytes:
    """Return the bitstream of codec 2 with another effort."""
    return image_codecs.webp_bitstream(to_levels(image), method, quality, lossless=True)


def from_lossless_webp(content: bytes, before: Image) -> Image:
    """Decode codec 2."""
    x, y, channels = before.shape
    return decode_image(WEBP, content, (x, y, channels))


def difference(image: Image, before: Image) -> bytes:
    """Return codec 2 of what has changed since the slice before, modulo 256."""
    return encode_image(WEBP, image - before)


def from_difference(content: bytes, before: Image) -> Image:
    """Decode `difference`."""
    return from_lossless_webp(content, before) + before
