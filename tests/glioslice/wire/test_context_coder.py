"""Masks there and back by the codec with learnt tables; CodecError alone for what is damaged."""

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
from glioslice.preprocessing import brain_of, crop_of, cut
from glioslice.wire.codecs import decode_mask
from glioslice.wire.context_coder import Mask, decode, encode, pack
from glioslice.wire.context_model import (
    LEAF,
    PATH,
    REACH,
    REGIONS,
    Grid,
    Tables,
    mask_of,
    mixed,
    planes_of,
    shipped,
)
from glioslice.wire.image_codecs import CodecError
from glioslice.wire.range_coder import RangeDecoder, RangeEncoder

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "docs" / "mask-vectors.json").read_text("utf-8"))
RUNS = 1
WINDOW = (160, 192)

shapes = st.tuples(st.integers(1, 24), st.integers(1, 24))
any_masks = shapes.flatmap(lambda s: arrays.arrays(np.uint8, s, elements=st.integers(0, 3)))


@st.composite
def nested(draw: st.DrawFn, shape: tuple[int, int]) -> Mask:
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
def sequences(draw: st.DrawFn) -> list[Mask]:
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    return draw(st.lists(nested(shape), min_size=1, max_size=4))


def shape_of(mask: Mask) -> tuple[int, int]:
    return mask.shape[0], mask.shape[1]


@pytest.fixture(scope="module")
def tumour() -> Mask:
    """The slices of a phantom that hold tumour."""
    head = make_phantom(0)
    masks = cut(head.labels, crop_of(brain_of(head.images)))
    held: Mask = masks[masks.any(axis=(1, 2))]
    return held


@given(masks=sequences())
def test_every_mask_comes_back_after_the_one_before(masks: list[Mask]) -> None:
    previous: Mask | None = None
    for mask in masks:
        back = decode(encode(mask, previous), shape_of(mask), previous)
        assert back.dtype == np.uint8
        np.testing.assert_array_equal(back, mask)
        previous = back


@given(mask=any_masks)
def test_noise_comes_back(mask: Mask) -> None:
    for previous in (None, mask[::-1].copy(), mask ^ np.uint8(3)):
        content = encode(mask, previous)
        np.testing.assert_array_equal(decode(content, shape_of(mask), previous), mask)
        assert len(content) <= (mask.size + 3) // 4


def chequered(shape: tuple[int, int]) -> Mask:
    mask: Mask = (np.indices(shape).sum(axis=0) % 2 * 3).astype(np.uint8)
    return mask


@pytest.mark.parametrize("shape", [WINDOW, (192, 160), (240, 240), (1, 1), (1, 300), (7, 1)])
def test_worst_cases_come_back_in_two_bits_a_pixel_at_most(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8)
    masks = [np.full(shape, 3, np.uint8), chequered(shape), noise, np.zeros(shape, np.uint8)]
    for previous in (None, *masks):
        for mask in masks:
            content = encode(mask, previous)
            assert len(content) <= (mask.size + 3) // 4
            np.testing.assert_array_equal(decode(content, shape, previous), mask)


def test_an_empty_mask_is_no_bytes() -> None:
    empty = np.zeros(WINDOW, np.uint8)
    assert encode(empty, None) == encode(empty, chequered(WINDOW)) == b""
    assert not decode(b"", WINDOW, None).any()


def test_a_volume_is_small_and_comes_back(tumour: Mask) -> None:
    sizes, previous = [], None
    for mask in tumour:
        content = encode(mask, previous)
        np.testing.assert_array_equal(decode(content, WINDOW, previous), mask)
        sizes.append(len(content))
        previous = mask
    assert np.mean(sizes) < 80
    alone = len(encode(tumour[len(tumour) // 2], None))
    assert max(sizes) < alone < 250


def test_a_mask_that_needs_the_one_before_is_refused_without(tumour: Mask) -> None:
    with pytest.raises(CodecError, match="slice before"):
        decode(encode(tumour[20], tumour[19]), WINDOW, None)


def test_a_mask_alone_needs_nothing(tumour: Mask) -> None:
    content = encode(tumour[20], None)
    np.testing.assert_array_equal(decode(content, WINDOW, tumour[3]), tumour[20])


def test_the_same_mask_again_is_a_byte_or_two(tumour: Mask) -> None:
    mask = tumour[len(tumour) // 2]
    assert len(encode(mask, mask)) < len(encode(mask, None)) / 4


@settings(max_examples=300)
@given(content=st.binary(max_size=120), alone=st.booleans())
def test_any_bytes_raise_codec_error_alone(content: bytes, alone: bool) -> None:
    previous = None if alone else chequered((16, 24))
    try:
        mask = decode(content, (16, 24), previous)
    except CodecError:
        return
    assert mask.shape == (16, 24)
    assert mask.max() <= 3


def test_damaged_masks_raise_codec_error_alone(tumour: Mask) -> None:
    mask, previous = tumour[20], tumour[19]
    content = encode(mask, previous)
    chance = random.Random(3)
    for _ in range(60):
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        for cut_at in (len(content), chance.randrange(1, len(content))):
            try:
                back = decode(bytes(damaged[:cut_at]), WINDOW, previous)
            except CodecError:
                continue
            assert back.shape == WINDOW
            assert back.max() <= 3


@pytest.mark.parametrize("content", [b"\xff" * 7000, b"\1" * 7000, bytes(6999) + b"\1"])
def test_garbage_is_bounded_in_memory_and_time(content: bytes) -> None:
    previous = chequered(WINDOW)
    decode(encode(previous, None), WINDOW, None)
    tracemalloc.start()
    began = time.thread_time()
    try:
        decode(content, WINDOW, previous)
    except CodecError:
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 16e6
    assert time.thread_time() - began < 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\0" * 97, "97 bytes"),
        (b"\1" * 200, "200 bytes"),
        (b"\1\0", "zeros"),
        (b"\1" * 90, "follow|only"),
    ],
)
def test_what_no_encoder_writes_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(CodecError, match=said):
        decode(content, (16, 24), np.zeros((16, 24), np.uint8))


def test_labels_beyond_the_last_pixel_are_refused() -> None:
    assert pack(np.array([[1, 2, 3]], np.uint8)) == b"\x39"
    with pytest.raises(CodecError, match="beyond"):
        decode(b"\x79", (1, 3), None)


def test_masks_that_cannot_be_coded_are_refused() -> None:
    with pytest.raises(CodecError, match="label 4"):
        encode(np.full((3, 3), 4, np.uint8), None)
    with pytest.raises(CodecError, match="after one of"):
        encode(np.ones((3, 3), np.uint8), np.ones((3, 4), np.uint8))


@given(mask=any_masks)
def test_planes_are_the_regions_within_zeros(mask: Mask) -> None:
    grid = Grid(*shape_of(mask))
    planes = np.zeros((REGIONS, grid.size), np.uint8)
    planes_of(mask, grid, planes)
    np.testing.assert_array_equal(grid.image(planes), to_regions(mask))
    assert planes.sum() == to_regions(mask).sum()
    np.testing.assert_array_equal(mask_of(planes, grid), mask)


@given(mask=any_masks, reach=st.sampled_from([1, 3]))
def test_mixed_means_some_but_not_all(mask: Mask, reach: int) -> None:
    grid = Grid(*shape_of(mask))
    planes = np.zeros((REGIONS, grid.size), np.uint8)
    planes_of(mask, grid, planes)
    around = np.pad(mask > 0, reach)
    windows = np.lib.stride_tricks.sliding_window_view(around, (2 * reach + 1,) * 2)
    expected = windows.any(axis=(2, 3)) & ~windows.all(axis=(2, 3))
    np.testing.assert_array_equal(grid.image(mixed(planes[0], reach, grid)), expected)


def test_the_tables_ask_for_what_both_ends_know() -> None:
    tables = shipped()
    left, region = 0, -1
    asked: list[set[int]] = [set() for _ in range(REGIONS)]
    for node in tables.trees:
        if not left:
            left, region = 1, region + 1
        if node >= LEAF:
            left -= 1
            assert 0 < node - LEAF < LEAF
        else:
            left += 1
            asked[region].add(node)
    assert (left, region) == (0, REGIONS - 1)
    for region, numbers in enumerate(asked):
        for plane, row, column in (tables.questions[number] for number in numbers):
            assert abs(row) <= REACH >= abs(column)
            if plane < REGIONS:
                assert plane < region or (plane == region and (row, column) < (0, 0))
    assert all(0 < chance < LEAF for chance in tables.seeds)
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
    assert encode(mask, previous) == content
    np.testing.assert_array_equal(decode(content, shape, previous), mask)


@pytest.mark.parametrize("vector", VECTORS["range_coder"])
def test_range_coder_vectors(vector: dict[str, Any]) -> None:
    content = bytes.fromhex(vector["bytes"])
    encoder, decoder = RangeEncoder(), RangeDecoder(content)
    for bit, chance in vector.get("decisions", []):
        encoder.bits([bit], [chance])
        assert decoder.bit(chance) == bit
    for value, count in vector.get("numbers", []):
        encoder.number(value, count)
        assert decoder.number(count) == value
    assert encoder.finish() == content
    decoder.finish()
