"""Images and masks survive a round trip exactly; damaged ones raise nothing but CodecError."""

import random
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glioslice.wire import image_codecs
from glioslice.wire.codecs import (
    IMAGES,
    LOSSLESS,
    MASKS,
    RUNS,
    CodecError,
    choose,
    decode_image,
    decode_mask,
    encode_image,
    encode_mask,
    encoder_identity,
    offered_codecs,
)
from glioslice.wire.context_model import MaskArray
from glioslice.wire.image_codecs import ImageArray

WINDOW = (160, 192)
IMAGE_SHAPE = (160, 192, 4)


def brain() -> ImageArray:
    """A slice like a real one: a smooth ellipse with noise, 0 around it."""
    chance = np.random.default_rng(1)
    x, y = np.mgrid[-1:1:160j, -1:1:192j]
    inside = x**2 + y**2 < 0.7
    values = np.stack([20 * np.cos(3 * x * k) + 10 * y for k in range(4)], axis=-1)
    values += chance.normal(0, 3, IMAGE_SHAPE)
    return np.where(inside[..., None], values, 0).astype(np.int8)


def tumour() -> MaskArray:
    x, y = np.mgrid[:160, :192]
    distance = np.hypot(x - 60, y - 120)
    mask = np.zeros(WINDOW, np.uint8)
    for radius, label in ((30, 2), (18, 3), (9, 1)):
        mask[distance < radius] = label
    return mask


shapes = st.tuples(st.integers(1, 20), st.integers(1, 20))
images = st.tuples(shapes, st.integers(1, 4)).flatmap(
    lambda s: arrays.arrays(np.int8, (*s[0], s[1]))
)
masks = shapes.flatmap(lambda s: arrays.arrays(np.uint8, s, elements=st.integers(0, 3)))


@pytest.mark.parametrize("number", LOSSLESS)
@given(image=images)
def test_every_image_comes_back(number: int, image: ImageArray) -> None:
    x, y, channels = image.shape
    back = decode_image(number, encode_image(number, image), (x, y, channels))
    assert back.dtype == np.int8
    np.testing.assert_array_equal(back, image)


@given(image=images)
def test_a_lossy_image_is_decoded_the_same_each_time(image: ImageArray) -> None:
    x, y, channels = image.shape
    payload = encode_image(3, image)
    assert encode_image(3, image) == payload
    back = decode_image(3, payload, (x, y, channels))
    assert back.dtype == np.int8 and back.shape == image.shape
    np.testing.assert_array_equal(decode_image(3, payload, (x, y, channels)), back)


@pytest.mark.parametrize("channels", [1, 2, 4, 12])
def test_a_lossy_image_is_close_to_the_original(channels: int) -> None:
    image = np.tile(brain(), 3)[..., :channels]
    payload = encode_image(3, image)
    back = decode_image(3, payload, (160, 192, channels)).astype(int)
    inside = (image != 0).any(axis=-1)
    errors = np.sqrt(((back - image) ** 2)[inside].mean(axis=0))
    assert (errors < 5).all(), errors
    assert np.abs(back[:20, :20]).max() <= 2  # far from the brain
    assert len(payload) < len(encode_image(1, image)) / 8


def test_levels_are_kept_from_end_to_end() -> None:
    for level in range(-128, 128):
        flat = np.full((16, 32, 4), level, np.int8)
        back = decode_image(3, encode_image(3, flat), (16, 32, 4)).astype(int)
        assert np.abs(back - level).max() <= 3


def test_encoders_of_lossy_images_are_distinguished(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {encoder_identity(number) for number in LOSSLESS} == {b""}
    assert IMAGES.keys() - LOSSLESS.keys() == {3}
    mine = encoder_identity(3)
    monkeypatch.setattr(image_codecs, "LOSSY_EFFORT", (6, 41))
    assert encoder_identity(3) not in (mine, b"")


@pytest.mark.parametrize("number", MASKS)
@given(mask=masks)
def test_every_mask_comes_back(number: int, mask: MaskArray) -> None:
    x, y = mask.shape
    for before in (None, np.roll(mask, 1)):
        back = decode_mask(number, encode_mask(number, mask, before), (x, y), before)
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, mask)


def test_a_brain_and_a_tumour_become_small() -> None:
    sizes = [len(encode_image(number, brain())) for number in range(4)]
    assert sizes[0] == 122_880 > sizes[1] > sizes[2] > 8 * sizes[3]
    alone = len(encode_mask(3, tumour()))
    assert 400 > len(encode_mask(1, tumour())) > alone
    assert len(encode_mask(3, tumour(), np.roll(tumour(), 1))) < alone
    empty = np.zeros(WINDOW, np.uint8)
    assert [len(encode_mask(number, empty)) for number in MASKS] == [0, 3]


def test_only_the_mask_before_gives_a_mask_back() -> None:
    before = np.roll(tumour(), 1)
    payload = encode_mask(3, tumour(), before)
    with pytest.raises(CodecError, match="the slice before, which did not arrive"):
        decode_mask(3, payload, WINDOW)
    with pytest.raises(CodecError, match="after one of"):
        decode_mask(3, payload, WINDOW, before[1:])
    alone = encode_mask(3, tumour())
    np.testing.assert_array_equal(decode_mask(3, alone, WINDOW, before), tumour())


def test_known_payloads() -> None:
    mask = np.array([[0, 0, 3], [3, 1, 0]], np.uint8)
    assert encode_mask(1, mask).hex() == "04070100"
    assert encode_mask(1, np.full((8, 16), 2, np.uint8)).hex() == "fe03"
    image = np.arange(8, dtype=np.int8).reshape(1, 2, 4)
    assert zlib.decompress(encode_image(1, image)) == bytes([0, 4, 1, 5, 2, 6, 3, 7])
    assert encode_image(2, image)[0] == 0x2F
    assert encode_image(3, image)[3:10].hex() == "9d012a02000400"


@pytest.mark.parametrize("number", IMAGES)
@settings(max_examples=100)
@given(payload=st.binary(max_size=200))
def test_arbitrary_image_payloads_raise_codec_error_alone(number: int, payload: bytes) -> None:
    with pytest.raises(CodecError):
        decode_image(number, payload, (16, 24, 4))


@pytest.mark.parametrize("number", MASKS)
@settings(max_examples=100)
@given(payload=st.binary(min_size=1, max_size=200))
def test_arbitrary_mask_payloads_raise_codec_error_alone(number: int, payload: bytes) -> None:
    try:
        mask = decode_mask(number, payload, (16, 24))
    except CodecError:
        return
    assert mask.shape == (16, 24)
    assert mask.max() <= 3


@pytest.mark.parametrize("number", [n for n in IMAGES if n])
def test_damaged_images_raise_codec_error_alone(number: int) -> None:
    payload = encode_image(number, brain())
    chance = random.Random(1)
    for _ in range(60):
        damaged = bytearray(payload)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            image = decode_image(number, bytes(damaged), IMAGE_SHAPE)
        except CodecError:
            continue
        assert image.shape == IMAGE_SHAPE
    for size in (0, 3, 5, len(payload) // 2):
        with pytest.raises(CodecError):
            decode_image(number, payload[:size], IMAGE_SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize("number", MASKS)
def test_damaged_masks_raise_codec_error_alone(number: int) -> None:
    payload = encode_mask(number, tumour())
    chance = random.Random(2)
    for _ in range(300):
        damaged = bytearray(payload)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        try:
            mask = decode_mask(number, bytes(damaged), WINDOW)
        except CodecError:
            continue
        assert mask.shape == WINDOW
        assert mask.max() <= 3


@pytest.mark.parametrize("number", IMAGES)
def test_an_image_of_another_size_is_refused(number: int) -> None:
    payload = encode_image(number, brain())
    for shape in ((160, 191, 4), (161, 192, 4), (192, 161, 4)):
        with pytest.raises(CodecError):
            decode_image(number, payload, shape)


@pytest.mark.parametrize("number", [2, 3])
def test_the_size_is_compared_before_a_decoder_is_called(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = encode_image(number, brain())
    monkeypatch.setattr("PIL.Image.open", None)
    with pytest.raises(CodecError, match="came where"):
        decode_image(number, payload, (192, 160, 4))


def test_only_a_key_frame_is_accepted_as_lossy() -> None:
    payload = encode_image(3, brain())
    for damaged in (bytes([payload[0] | 1]) + payload[1:], payload[:3] + b"\0" + payload[4:], b""):
        with pytest.raises(CodecError, match="not a lossy WebP"):
            decode_image(3, damaged, IMAGE_SHAPE)


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(CodecError):
        decode_mask(1, encode_mask(1, tumour()), (160, 191))


def test_no_more_is_unpacked_than_was_expected() -> None:
    code = """
import resource, zlib
import numpy as np
import glioslice.wire.codecs as codecs
packer = zlib.compressobj(9)
bomb = b"".join(packer.compress(bytes(1_000_000)) for _ in range(100)) + packer.flush()
codecs.image_codecs.has_webp()
codecs.decode_image(2, codecs.encode_image(2, np.zeros((160, 192, 4), np.int8)), (160, 192, 4))
limit = resource.RLIMIT_AS
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(limit, (used + 60_000_000, used + 60_000_000))
huge = b"\\x10\\x10\\0\\x9d\\x01\\x2a\\xff\\x3f\\xff\\x3f" + bytes(999)
for number, payload in ((1, bomb), (2, b"\\x2f\\xff\\xff\\xff\\x0f" + bytes(100)), (3, huge)):
    try:
        codecs.decode_image(number, payload, (160, 192, 4))
    except codecs.CodecError:
        continue
    raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("payload", ["", "03", "0407", "040701000000", "ffffffff7f", "8080", "84"])
def test_runs_that_do_not_fill_the_mask_are_refused(payload: str) -> None:
    with pytest.raises(CodecError, match="run"):
        decode_mask(1, bytes.fromhex(payload), (2, 3))


@pytest.mark.parametrize("number", [0, 2, 9])
def test_reserved_and_unknown_mask_codecs_are_refused(number: int) -> None:
    with pytest.raises(CodecError, match=f"codec {number} is unknown"):
        encode_mask(number, tumour())
    with pytest.raises(CodecError, match=f"codec {number} is unknown"):
        decode_mask(number, bytes(160 * 192), WINDOW)


@pytest.mark.parametrize("number", IMAGES)
def test_an_absent_channel_costs_next_to_nothing(number: int) -> None:
    whole, two = (len(encode_image(number, brain()[..., :n])) for n in (4, 2))
    assert two < 0.6 * whole


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(CodecError, match="takes 4 channels at most"):
        encode_image(2, np.zeros((4, 4, 12), np.int8))
    with pytest.raises(CodecError, match="gives 4 channels at most"):
        decode_image(2, b"", (4, 4, 12))


def test_the_best_codec_that_both_have_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered_codecs(MASKS) == 0b1010
    assert [choose(bits, IMAGES) for bits in (0xFFFF, 0b111)] == [3, 2]
    assert choose(0xFFFF, LOSSLESS) == 2
    assert [choose(bits, MASKS) for bits in (0xFFFF, 0b111)] == [3, 1]
    assert choose(0b111, IMAGES, "raw") == 0
    assert choose(0b1111, MASKS, "runs") == RUNS == 1
    with pytest.raises(CodecError, match="does not offer webp"):
        choose(0b011, IMAGES, "webp")
    with pytest.raises(CodecError, match=r"any of .*webp, .*raw"):
        choose(1 << 15, IMAGES)
    with pytest.raises(CodecError, match="any of change, runs"):
        choose(0b101, MASKS)
    monkeypatch.setattr(image_codecs, "has_webp", lambda: False)
    assert offered_codecs(IMAGES) == 0b0011
    assert offered_codecs(MASKS) == 0b1010


def test_without_pillow_the_other_codecs_work() -> None:
    code = """
import sys
sys.modules["PIL"] = None
import numpy as np
from glioslice.wire import codecs
assert codecs.offered_codecs(codecs.IMAGES) == 0b0011
assert codecs.offered_codecs(codecs.MASKS) == 0b1010
mask = np.eye(20, dtype=np.uint8)
assert (codecs.decode_mask(1, codecs.encode_mask(1, mask), (20, 20)) == mask).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
