"""Masks survive a round trip through the codec with learnt tables; damage raises CodecError."""

import hashlib
import json
import random
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glioslice.labels import to_regions
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import brain_mask, extract_slices, find_crop
from glioslice.wire.codecs import decode_mask
from glioslice.wire.context_model import (
    LEAF,
    PATH,
    REACH,
    REGION_COUNT,
    MaskArray,
    MaskGrid,
    Tables,
    codec_tables,
    is_mixed,
    join_planes,
    split_planes,
)
from glioslice.wire.layout import CodecError
from glioslice.wire.mask_codecs import decode_change, encode_change, pack_labels
from glioslice.wire.range_coder import RangeDecoder, RangeEncoder

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "docs" / "mask-vectors.json").read_text("utf-8"))
RUNS = 1
WINDOW = (160, 192)

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
any_masks = shapes.flatmap(lambda s: arrays.arrays(np.uint8, s, elements=st.integers(0, 3)))


@st.composite
def nested(draw: st.DrawFn, shape: tuple[int, int]) -> MaskArray:
    """Boxes of every label over each other, and some specks."""
    mask = np.zeros(shape, np.uint8)
    for label in draw(st.lists(st.integers(0, 3), max_size=6)):
        rows = sorted(draw(st.tuples(*[st.integers(0, shape[0])] * 2)))
        columns = sorted(draw(st.tuples(*[st.integers(0, shape[1])] * 2)))
        mask[rows[0] : rows[1], columns[0] : columns[1]] = label
    for label in draw(st.lists(st.integers(0, 3), max_size=3)):
        mask[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))] = label
    return mask


@st.composite
def sequences(draw: st.DrawFn) -> list[MaskArray]:
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    return draw(st.lists(nested(shape), min_size=1, max_size=4))


def shape_of(mask: MaskArray) -> tuple[int, int]:
    return mask.shape[0], mask.shape[1]


@pytest.fixture(scope="module")
def tumour() -> MaskArray:
    """The slices of a phantom that hold tumour."""
    head = make_phantom(0)
    masks = extract_slices(head.labels, find_crop(brain_mask(head.images)))
    labelled: MaskArray = masks[masks.any(axis=(1, 2))]
    return labelled


@given(masks=sequences())
def test_every_mask_comes_back_after_the_one_before(masks: list[MaskArray]) -> None:
    previous: MaskArray | None = None
    for mask in masks:
        back = decode_change(encode_change(mask, previous), shape_of(mask), previous)
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, mask)
        previous = back


@given(mask=any_masks)
def test_noise_comes_back(mask: MaskArray) -> None:
    for previous in (None, mask[::-1].copy(), mask ^ np.uint8(3)):
        content = encode_change(mask, previous)
        np.testing.assert_array_equal(decode_change(content, shape_of(mask), previous), mask)
        assert len(content) <= (mask.size + 3) // 4


def chequered(shape: tuple[int, int]) -> MaskArray:
    mask: MaskArray = (np.indices(shape).sum(axis=0) % 2 * 3).astype(np.uint8)
    return mask


@pytest.mark.slow
@pytest.mark.parametrize("shape", [WINDOW, (192, 160), (240, 240), (1, 1), (1, 300), (7, 1)])
def test_worst_cases_come_back_in_two_bits_a_pixel_at_most(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8)
    masks = [np.full(shape, 3, np.uint8), chequered(shape), noise, np.zeros(shape, np.uint8)]
    for previous in (None, *masks):
        for mask in masks:
            content = encode_change(mask, previous)
            assert len(content) <= (mask.size + 3) // 4
            np.testing.assert_array_equal(decode_change(content, shape, previous), mask)


def test_an_empty_mask_is_no_bytes() -> None:
    empty = np.zeros(WINDOW, np.uint8)
    assert encode_change(empty, None) == encode_change(empty, chequered(WINDOW)) == b""
    assert not decode_change(b"", WINDOW, None).any()


@pytest.mark.slow
def test_a_volume_is_small_and_comes_back(tumour: MaskArray) -> None:
    sizes, previous = [], None
    for mask in tumour:
        content = encode_change(mask, previous)
        np.testing.assert_array_equal(decode_change(content, WINDOW, previous), mask)
        sizes.append(len(content))
        previous = mask
    assert np.mean(sizes) < 80
    alone = len(encode_change(tumour[len(tumour) // 2], None))
    assert max(sizes) < alone < 250


@pytest.mark.slow
def test_a_mask_that_needs_the_one_before_is_refused_without(tumour: MaskArray) -> None:
    with pytest.raises(CodecError, match="slice before"):
        decode_change(encode_change(tumour[20], tumour[19]), WINDOW, None)


@pytest.mark.slow
def test_a_mask_alone_needs_nothing(tumour: MaskArray) -> None:
    content = encode_change(tumour[20], None)
    np.testing.assert_array_equal(decode_change(content, WINDOW, tumour[3]), tumour[20])


@pytest.mark.slow
def test_the_same_mask_again_is_a_byte_or_two(tumour: MaskArray) -> None:
    mask = tumour[len(tumour) // 2]
    assert len(encode_change(mask, mask)) < len(encode_change(mask, None)) / 4


@settings(max_examples=300)
@given(content=st.binary(max_size=120), alone=st.booleans())
def test_any_bytes_raise_codec_error_alone(content: bytes, alone: bool) -> None:
    previous = None if alone else chequered((16, 24))
    try:
        mask = decode_change(content, (16, 24), previous)
    except CodecError:
        return
    assert mask.shape == (16, 24)
    assert mask.max() <= 3


@pytest.mark.slow
def test_damaged_masks_raise_codec_error_alone(tumour: MaskArray) -> None:
    mask, previous = tumour[20], tumour[19]
    content = encode_change(mask, previous)
    chance = random.Random(3)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        for cut_at in (len(content), chance.randrange(1, len(content))):
            try:
                back = decode_change(bytes(damaged[:cut_at]), WINDOW, previous)
            except CodecError:
                continue
            assert back.shape == WINDOW
            assert back.max() <= 3


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"\xff" * 7000, b"\1" * 7000, bytes(6999) + b"\1"])
def test_garbage_is_bounded_in_memory_and_time(content: bytes) -> None:
    previous = chequered(WINDOW)
    decode_change(encode_change(previous, None), WINDOW, None)
    tracemalloc.start()
    began = time.thread_time()
    try:
        decode_change(content, WINDOW, previous)
    except CodecError:
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 16e6
    assert time.thread_time() - began < 10


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0" * 97, "97 bytes"),
        (b"\1" * 200, "200 bytes"),
        (b"\1\0", "zeros"),
        (b"\1" * 90, "follow|only"),
    ],
)
def test_what_no_encoder_writes_is_refused(content: bytes, what: str) -> None:
    with pytest.raises(CodecError, match=what):
        decode_change(content, (16, 24), np.zeros((16, 24), np.uint8))


def test_labels_beyond_the_last_pixel_are_refused() -> None:
    assert pack_labels(np.array([[1, 2, 3]], np.uint8)) == b"\x39"
    with pytest.raises(CodecError, match="beyond"):
        decode_change(b"\x79", (1, 3), None)


def test_masks_that_cannot_be_coded_are_refused() -> None:
    with pytest.raises(CodecError, match="label 4"):
        encode_change(np.full((3, 3), 4, np.uint8), None)
    with pytest.raises(CodecError, match="after one of"):
        encode_change(np.ones((3, 3), np.uint8), np.ones((3, 4), np.uint8))


@given(mask=any_masks)
def test_planes_are_the_regions_within_zeros(mask: MaskArray) -> None:
    grid = MaskGrid(*shape_of(mask))
    planes = np.zeros((REGION_COUNT, grid.size), np.uint8)
    split_planes(mask, grid, planes)
    np.testing.assert_array_equal(grid.image(planes), to_regions(mask))
    assert planes.sum() == to_regions(mask).sum()
    np.testing.assert_array_equal(join_planes(planes, grid), mask)


@given(mask=any_masks, reach=st.sampled_from([1, 3]))
def test_mixed_means_some_but_not_all(mask: MaskArray, reach: int) -> None:
    grid = MaskGrid(*shape_of(mask))
    planes = np.zeros((REGION_COUNT, grid.size), np.uint8)
    split_planes(mask, grid, planes)
    around = np.pad(mask > 0, reach)
    windows = np.lib.stride_tricks.sliding_window_view(around, (2 * reach + 1,) * 2)
    expected = windows.any(axis=(2, 3)) & ~windows.all(axis=(2, 3))
    np.testing.assert_array_equal(grid.image(is_mixed(planes[0], reach, grid)), expected)


def test_the_tables_read_pixels_that_both_ends_know() -> None:
    tables = codec_tables()
    left, region = 0, -1
    contexts: list[set[int]] = [set() for _ in range(REGION_COUNT)]
    for node in tables.trees:
        if not left:
            left, region = 1, region + 1
        if node >= LEAF:
            left -= 1
            assert 0 < node - LEAF < LEAF
        else:
            left += 1
            contexts[region].add(node)
    assert (left, region) == (0, REGION_COUNT - 1)
    for region, numbers in enumerate(contexts):
        for plane, row, column in (tables.contexts[number] for number in numbers):
            assert abs(row) <= REACH >= abs(column)
            if plane < REGION_COUNT:
                assert plane < region or (plane == region and (row, column) < (0, 0))
    assert all(0 < probability < LEAF for probability in tables.seeds)
    assert Tables.from_bytes(tables.to_bytes()).to_bytes() == PATH.read_bytes()


def test_the_vectors_belong_to_the_tables() -> None:
    assert hashlib.sha256(PATH.read_bytes()).hexdigest() == VECTORS["tables"]


@pytest.mark.parametrize("vector", VECTORS["masks"], ids=lambda v: v["name"])
def test_mask_vectors(vector: dict[str, Any]) -> None:
    shape = (vector["shape"][0], vector["shape"][1])
    mask = decode_mask(RUNS, bytes.fromhex(vector["mask"]), shape)
    before = vector["previous"]
    previous = None if before is None else decode_mask(RUNS, bytes.fromhex(before), shape)
    content = bytes.fromhex(vector["content"])
    assert encode_change(mask, previous) == content
    np.testing.assert_array_equal(decode_change(content, shape, previous), mask)


@pytest.mark.parametrize("vector", VECTORS["range_coder"])
def test_range_coder_vectors(vector: dict[str, Any]) -> None:
    content = bytes.fromhex(vector["bytes"])
    encoder, decoder = RangeEncoder(), RangeDecoder(content)
    for bit, probability in vector.get("decisions", []):
        encoder.bits([bit], [probability])
        assert decoder.bit(probability) == bit
    for value, count in vector.get("numbers", []):
        encoder.number(value, count)
        assert decoder.number(count) == value
    assert encoder.finish() == content
    decoder.finish()
