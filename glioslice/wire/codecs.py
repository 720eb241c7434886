"""The registry of codecs: slices up, masks down. All but the image codec `lossy` are lossless.

A codec has a small number, which crosses the link, and a name. A board offers codecs in BoardHello
as a set of bits, the host chooses the best that is offered. Images are int8 (X, Y, channels) as the
network takes them, see `image_codecs`. Masks are uint8 (X, Y), labels 0 to 3, see `mask_codecs`:

    1 runs    runs of equal labels
    3 change  the difference from the mask before

Numbers 0 and 2 of masks are reserved. The mask before is that of the last message with one in the
same run and session, an empty one if it was an Empty; the first has none. `runs` does not use it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from glioslice.wire import image_codecs, mask_codecs
from glioslice.wire.context_model import MaskArray
from glioslice.wire.image_codecs import ImageArray, Shape
from glioslice.wire.layout import CodecError

__all__ = [
    "IMAGES",
    "LOSSLESS",
    "MASKS",
    "RAW",
    "RUNS",
    "Codec",
    "CodecError",
    "MaskCodec",
    "choose",
    "decode_image",
    "decode_mask",
    "encode_image",
    "encode_mask",
    "encoder_identity",
    "offered_codecs",
]

RAW = 0
"""The image codec whose payload has the size of the image."""

RUNS = 1
"""The mask codec that depends on no other mask."""


@dataclass(frozen=True)
class Codec:
    """A number and a name."""

    number: int
    name: str


@dataclass(frozen=True)
class ImageCodec(Codec):
    """Both directions of images. `decode` is given the shape that must come out."""

    encode: Callable[[ImageArray], bytes]
    decode: Callable[[bytes, Shape], ImageArray]
    max_channels: int | None = None
    lossless: bool = True
    needs_webp: bool = False


@dataclass(frozen=True)
class MaskCodec(Codec):
    """Both directions of masks. Each is given the mask before, None if there is none."""

    encode: Callable[[MaskArray, MaskArray | None], bytes]
    decode: Callable[[bytes, tuple[int, int], MaskArray | None], MaskArray]


IMAGES: dict[int, ImageCodec] = {
    codec.number: codec
    for codec in (
        ImageCodec(
            3,
            "lossy",
            image_codecs.encode_lossy,
            image_codecs.decode_lossy,
            lossless=False,
            needs_webp=True,
        ),
        ImageCodec(
            2,
            "webp",
            image_codecs.encode_lossless,
            image_codecs.decode_lossless,
            max_channels=image_codecs.WEBP_CHANNELS,
            needs_webp=True,
        ),
        ImageCodec(1, "zlib", image_codecs.encode_zlib, image_codecs.decode_zlib),
        ImageCodec(RAW, "raw", lambda image: image.tobytes(), image_codecs.decode_raw),
    )
}
MASKS: dict[int, MaskCodec] = {
    codec.number: codec
    for codec in (
        MaskCodec(3, "change", mask_codecs.encode_change, mask_codecs.decode_change),
        MaskCodec(
            RUNS,
            "runs",
            lambda mask, _: mask_codecs.encode_runs(mask),
            lambda payload, shape, _: mask_codecs.decode_runs(payload, shape),
        ),
    )
}
"""Of images and of masks, the smallest first."""

LOSSLESS = {number: codec for number, codec in IMAGES.items() if codec.lossless}


def offered_codecs(codecs: Mapping[int, Codec]) -> int:
    """Return the codecs that work here as bits, for BoardHello: without Pillow no WebP."""
    webp = image_codecs.has_webp()
    return sum(
        1 << number
        for number, codec in codecs.items()
        if webp or not (isinstance(codec, ImageCodec) and codec.needs_webp)
    )


def choose(theirs: int, codecs: Mapping[int, Codec], name: str | None = None) -> int:
    """Return the first of `codecs` that both ends have, or the one called `name`.

    `theirs` are the bits that the board offers. Raises CodecError if there is none.
    """
    both = theirs & offered_codecs(codecs)
    for number, codec in codecs.items():
        if both >> number & 1 and name in (None, codec.name):
            return number
    wanted = name or "any of " + ", ".join(codec.name for codec in codecs.values())
    raise CodecError(f"no codec in common with the board: it does not offer {wanted}")


def encoder_identity(number: int) -> bytes:
    """Return what distinguishes encoders that make other images of the same; b"" if lossless."""
    if number in LOSSLESS:
        return b""
    return repr((image_codecs.webp_version(), *image_codecs.LOSSY_EFFORT)).encode()


def encode_image(number: int, image: ImageArray) -> bytes:
    """Return an int8 (X, Y, channels) image as the payload of a Slice."""
    if (codec := IMAGES.get(number)) is None:
        raise unknown_codec(number)
    if codec.max_channels is not None and image.shape[2] > codec.max_channels:
        raise CodecError(
            f"codec {codec.name} takes {codec.max_channels} channels at most, not {image.shape}"
        )
    return codec.encode(image)


def decode_image(number: int, payload: bytes, shape: tuple[int, int, int]) -> ImageArray:
    """Return the int8 image of `shape` (X, Y, channels) in a Slice's payload.

    Raises CodecError if it holds none. The array may be read-only.
    """
    if (codec := IMAGES.get(number)) is None:
        raise unknown_codec(number)
    if codec.max_channels is not None and shape[2] > codec.max_channels:
        raise CodecError(
            f"codec {codec.name} gives {codec.max_channels} channels at most, not {shape}"
        )
    return codec.decode(payload, shape)


def encode_mask(number: int, mask: MaskArray, previous: MaskArray | None = None) -> bytes:
    """Return a uint8 (X, Y) mask of labels 0 to 3 as the payload of a Mask.

    `previous` is the one before in the same run and session, None at the first.
    """
    if number not in MASKS:
        raise unknown_codec(number)
    return MASKS[number].encode(mask, previous)


def decode_mask(
    number: int, payload: bytes, shape: tuple[int, int], previous: MaskArray | None = None
) -> MaskArray:
    """Return the uint8 mask of `shape` (X, Y) in a Mask's payload, with the encoder's `previous`.

    Raises CodecError if it holds none. The array may be read-only.
    """
    if number not in MASKS:
        raise unknown_codec(number)
    return MASKS[number].decode(payload, shape, previous)


def unknown_codec(number: int) -> CodecError:
    """Return the error for a number that no codec has."""
    return CodecError(f"codec {number} is unknown; both ends need the same version of glioslice")
