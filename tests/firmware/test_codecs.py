"""The codecs in C against those in Python: frames, VP8, masks, SHA-256, the confidence."""

import ctypes
import hashlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from device.confidence import FRACTION_BITS, STEPS_PER_LOGIT, mask_confidence
from glioslice.wire.codecs import CodecError
from glioslice.wire.framing import MAX_BODY, MAX_ENCODED, encode_frame
from glioslice.wire.image_codecs import decode_lossy, encode_lossy, webp_bitstream
from glioslice.wire.mask_codecs import decode_change, encode_change, encode_runs
from tests.conftest import ROOT
from tests.firmware.library import library

VECTORS: dict[str, Any] = json.loads((ROOT / "docs" / "wire-vectors.json").read_text("utf-8"))
MASK_VECTORS: dict[str, Any] = json.loads((ROOT / "docs" / "mask-vectors.json").read_text("utf-8"))
GOLDEN_SLICES = ROOT / "models" / "golden-slices.npz"

Mask = NDArray[np.uint8]


def c_frame(body: bytes) -> bytes:
    frame = ctypes.create_string_buffer(MAX_BODY + 32)
    size = library().shim_encode_frame(frame, body, ctypes.c_size_t(len(body)))
    return frame.raw[:size]


def c_body(data: bytes) -> bytes:
    body = ctypes.create_string_buffer(MAX_ENCODED + 32)
    size = library().shim_decode_frame(body, data, ctypes.c_size_t(len(data)))
    return body.raw[:size]


def c_vp8(payload: bytes, rows: int, columns: int) -> NDArray[np.int8] | None:
    values = np.zeros((rows, columns), np.int8)
    size = ctypes.c_size_t(len(payload))
    decoded = library().shim_vp8(payload, size, columns, rows, ctypes.c_void_p(values.ctypes.data))
    return values if decoded else None


def c_mask(codec: str, mask: Mask, previous: Mask | None = None) -> bytes:
    rows, columns = mask.shape
    out = ctypes.create_string_buffer(mask.size + 1)
    if codec == "runs":
        size = library().shim_runs(mask.tobytes(), rows, columns, out)
    else:
        before = None if previous is None else previous.tobytes()
        size = library().shim_change(mask.tobytes(), before, rows, columns, out)
    return out.raw[:size]


@pytest.mark.parametrize("vector", VECTORS["frames"])
def test_frames(vector: dict[str, str]) -> None:
    body, frame = bytes.fromhex(vector["body"]), bytes.fromhex(vector["frame"])
    assert c_frame(body) == frame
    assert c_body(frame) == body


@pytest.mark.parametrize("vector", VECTORS["packets"])
def test_packets_survive_the_frame(vector: dict[str, str]) -> None:
    assert c_body(b"login: \0" + bytes.fromhex(vector["frame"])) == bytes.fromhex(vector["body"])


@given(st.binary(min_size=1, max_size=MAX_BODY))
def test_every_body(body: bytes) -> None:
    assert c_frame(body) == encode_frame(body)
    assert c_body(encode_frame(body)) == body


def test_a_damaged_frame_is_dropped_and_the_next_one_read() -> None:
    frame = bytearray(encode_frame(b"123456789"))
    frame[4] ^= 1
    assert c_body(bytes(frame) + encode_frame(b"next")) == b"next"
    assert c_body(b"\x01" * 5000 + encode_frame(b"next")) == b"next"
    assert c_body(encode_frame(b"123456789")[:-2]) == b""


@given(st.binary(max_size=300))
def test_sha256(data: bytes) -> None:
    digest = ctypes.create_string_buffer(32)
    library().shim_sha256(data, ctypes.c_size_t(len(data)), digest)
    assert digest.raw == hashlib.sha256(data).digest()


def golden_slices() -> NDArray[np.int8]:
    with np.load(GOLDEN_SLICES) as file:
        return np.asarray(file["slices"])


def test_lossy_golden_slices() -> None:
    slices = golden_slices()
    for image in slices:
        payload = encode_lossy(image)
        x, y, channels = image.shape
        decoded = c_vp8(payload, channels * x, y)
        assert decoded is not None
        expected = np.moveaxis(decode_lossy(payload, image.shape), -1, 0)
        np.testing.assert_array_equal(decoded.reshape(channels, x, y), expected)


@pytest.mark.slow
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 192),
    method=st.integers(0, 6),
    quality=st.integers(0, 100),
    smooth=st.sampled_from([1, 2, 5, 16]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_lossy_images_of_every_size_and_quality(
    rows: int, columns: int, method: int, quality: int, smooth: int, seed: int
) -> None:
    coarse = (rows // smooth + 1, columns // smooth + 1)
    blocks = np.random.default_rng(seed).integers(0, 256, coarse).astype(np.uint8)
    levels = np.kron(blocks, np.ones((smooth, smooth), np.uint8))[:rows, :columns]
    payload = webp_bitstream(levels, method, quality, lossless=False)
    expected = decode_lossy(payload, (rows, columns, 1))[..., 0]
    decoded = c_vp8(payload, rows, columns)
    assert decoded is not None
    np.testing.assert_array_equal(decoded, expected)


def test_a_payload_that_libwebp_refuses_is_refused() -> None:
    payload = encode_lossy(golden_slices()[1])
    for cut in (0, 5, 9, 10, 40, 400, len(payload) // 2, len(payload) - 20):
        assert c_vp8(payload[:cut], 640, 192) is None
    assert c_vp8(payload, 640, 176) is None
    for place, value in ((0, 0x71), (0, 0x60), (0, 0x78), (3, 0), (6, 0xC1)):
        damaged = bytearray(payload)
        damaged[place] = value
        assert c_vp8(bytes(damaged), 640, 192) is None
        with pytest.raises(CodecError):
            decode_lossy(bytes(damaged), (160, 192, 4))


@pytest.mark.parametrize("vector", VECTORS["lossy"])
def test_lossy_vectors(vector: dict[str, Any]) -> None:
    x, y, channels = vector["shape"]
    decoded = c_vp8(bytes.fromhex(vector["payload"]), channels * x, y)
    assert decoded is not None
    image = np.moveaxis(decoded.reshape(channels, x, y), 0, -1)
    assert image.tobytes().hex() == vector["image"]


@pytest.mark.parametrize("vector", VECTORS["refused"]["lossy"], ids=lambda one: one["why"])
def test_lossy_vectors_that_are_refused(vector: dict[str, Any]) -> None:
    x, y, channels = vector["shape"]
    assert c_vp8(bytes.fromhex(vector["payload"]), channels * x, y) is None


@pytest.mark.parametrize("vector", VECTORS["labels"])
def test_quality_vectors(vector: dict[str, Any]) -> None:
    factor = round(vector["scale"] * STEPS_PER_LOGIT * (1 << FRACTION_BITS))
    logits, (x, y) = bytes.fromhex(vector["logits"]), vector["shape"]
    made = library().shim_confidence(logits, x, y, factor, vector["zero_point"])
    assert made == vector["quality"]


def unpacked(text: str, shape: list[int]) -> Mask:
    """Return the mask that mask-vectors.json holds as runs."""
    from glioslice.wire.mask_codecs import decode_runs

    return decode_runs(bytes.fromhex(text), (shape[0], shape[1]))


@pytest.mark.parametrize("vector", MASK_VECTORS["masks"], ids=lambda one: one["name"])
def test_mask_vectors(vector: dict[str, Any]) -> None:
    mask = unpacked(vector["mask"], vector["shape"])
    previous = vector["previous"]
    before = None if previous is None else unpacked(previous, vector["shape"])
    assert c_mask("change", mask, before).hex() == vector["content"]
    assert c_mask("runs", mask).hex() == vector["mask"]


def blobs(chance: np.random.Generator, shape: tuple[int, int], noise: float) -> Mask:
    """Return a mask of nested ellipses, with some noise."""
    x, y = np.indices(shape)
    mask = np.zeros(shape, np.uint8)
    for label, size in ((2, 0.5), (1, 0.3), (3, 0.2)):
        centre, radii = chance.uniform(0.2, 0.8, 2), chance.uniform(0.05, size, 2)
        distance = ((x / shape[0] - centre[0]) / radii[0]) ** 2
        distance += ((y / shape[1] - centre[1]) / radii[1]) ** 2
        mask[distance < 1] = label
    wrong = chance.random(shape) < noise
    mask[wrong] = chance.integers(0, 4, shape).astype(np.uint8)[wrong]
    return mask


@pytest.mark.slow
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 48)),
    noise=st.sampled_from([0.0, 0.001, 0.02, 0.5]),
    alone=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_masks_of_every_shape(shape: tuple[int, int], noise: float, alone: bool, seed: int) -> None:
    chance = np.random.default_rng(seed)
    mask = blobs(chance, shape, noise)
    before = None if alone else blobs(chance, shape, noise)
    content = c_mask("change", mask, before)
    assert content == encode_change(mask, before)
    np.testing.assert_array_equal(decode_change(content, shape, before), mask)
    assert c_mask("runs", mask) == encode_runs(mask)


@pytest.mark.slow
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 70)),
    scale=st.floats(0.01, 0.3),
    zero_point=st.integers(-128, 127),
    bias=st.sampled_from([-200, -20, 0, 60, 200]),
    smooth=st.sampled_from([1, 7, 30]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=150, deadline=None)
def test_the_confidence(
    shape: tuple[int, int], scale: float, zero_point: int, bias: int, smooth: int, seed: int
) -> None:
    rows, columns = shape
    coarse = (rows // smooth + 1, columns // smooth + 1, 3)
    made = np.random.default_rng(seed).integers(-128, 128, coarse) + bias
    made = np.repeat(np.repeat(made, smooth, 0), smooth, 1)[:rows, :columns]
    logits = np.clip(made, -128, 127).astype(np.int8)
    factor = round(scale * STEPS_PER_LOGIT * (1 << FRACTION_BITS))
    confidence = library().shim_confidence(logits.tobytes(), rows, columns, factor, zero_point)
    assert confidence == mask_confidence(logits, scale, zero_point)


@pytest.mark.slow
@given(
    places=st.lists(st.tuples(st.integers(10, 3000), st.integers(0, 255)), min_size=1, max_size=9),
    kept=st.sampled_from([1.0, 1.0, 0.9, 0.5]),
)
@settings(max_examples=100, deadline=None)
def test_damaged_images_are_refused_where_libwebp_refuses_them(
    places: list[tuple[int, int]], kept: float
) -> None:
    """And decoding others computes nothing that C does not define: the sanitizer sees it."""
    payload = bytearray(encode_lossy(golden_slices()[2]))
    for place, value in places:
        payload[place % len(payload)] = value
    payload[:10] = encode_lossy(golden_slices()[2])[:10]
    damaged = bytes(payload[: round(kept * len(payload))])
    try:
        decode_lossy(damaged, (160, 192, 4))
    except CodecError:
        assert c_vp8(damaged, 640, 192) is None
    else:
        assert c_vp8(damaged, 640, 192) is not None
