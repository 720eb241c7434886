"""Learning the mask codec's tables is deterministic, and the figures are of the shipped tables."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import mask_codecs
from benchmarks.folds import held_out_cases
from benchmarks.mask_codecs import (
    PAGE,
    RESULT,
    CodedMask,
    code_mask,
    framed_size,
    link_bytes,
    make_page,
    read_masks,
    size_and_times,
)
from glioslice.cases import find_cases
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256
from glioslice.wire.context_model import LEAF, PATH, REGION_COUNT, Tables
from glioslice.wire.mask_codecs import decode_change, encode_change
from tools import context_tables
from tools.context_tables import candidates, collect_samples, cost, learn, tally, words
from tools.wire_vectors import MASK_FILE, mask_vectors

Masks = NDArray[np.uint8]


@pytest.fixture(scope="module")
def spheres() -> Masks:
    """A tumour of spheres in each other, 40 x 44, over 24 slices."""
    z, x, y = np.mgrid[:24, :40, :44]
    distance = np.sqrt((2 * (z - 12)) ** 2 + (x - 18) ** 2 + (y - 24) ** 2)
    mask = np.zeros(distance.shape, np.uint8)
    for radius, label in ((15, 2), (9, 3), (5, 1)):
        mask[distance < radius] = label
    return mask


def size(volume: Masks, tables: Tables) -> int:
    total, previous = 0, None
    for mask in volume:
        content = encode_change(mask, previous, tables)
        shape = (mask.shape[0], mask.shape[1])
        np.testing.assert_array_equal(decode_change(content, shape, previous, tables), mask)
        total, previous = total + len(content), mask
    return total


def test_tables_learnt_from_masks_make_such_masks_small(
    spheres: Masks, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = learn([collect_samples(spheres)])
    assert learn([collect_samples(spheres)]).to_bytes() == tables.to_bytes()
    monkeypatch.setattr(context_tables, "MAX_LEAVES", 1)
    blind = learn([collect_samples(spheres)])
    assert all(node >= LEAF for node in blind.trees)
    assert len(blind.trees) == REGION_COUNT
    assert size(spheres, tables) < size(spheres, blind) * 0.75


def test_a_mirrored_volume_teaches_the_same(spheres: Masks) -> None:
    mirrored = learn([collect_samples(spheres[:, ::-1])])
    assert mirrored.to_bytes() == learn([collect_samples(spheres)]).to_bytes()


def test_context_values_are_counted_exactly() -> None:
    values = np.random.default_rng(1).integers(0, 2, (3000, 21)).astype(np.uint8)
    pixels = np.random.default_rng(2).permutation(3000)
    for some in (pixels, pixels[:255], pixels[:1], pixels[:0]):
        counted = tally(words(values), some)
        np.testing.assert_array_equal(counted[:21], values[some].sum(axis=0))
        assert not counted[21:].any()


def test_the_cost_is_the_entropy() -> None:
    np.testing.assert_allclose(cost(np.array([8, 8, 4, 0]), np.array([4, 0, 4, 0])), [8, 0, 0, 0])


@pytest.mark.parametrize("region", range(REGION_COUNT))
def test_no_context_is_a_candidate_twice(region: int) -> None:
    contexts = candidates(region)
    assert len(set(contexts)) == len(contexts)


def test_a_mask_that_is_not_restored_is_an_error(spheres: Masks) -> None:
    def wrong(_: bytes, shape: tuple[int, int]) -> Masks:
        return np.zeros(shape, np.uint8)

    with pytest.raises(GliosliceError, match="not restored"):
        code_mask(spheres[12], lambda _: b"", wrong)


def test_bytes_on_the_line() -> None:
    """Frame 7, packet 9, length 1 and message 8: so docs/wire.md has it."""
    assert framed_size(bytes(50)) == 50 + 7 + 9 + 1 + 8
    assert (
        size_and_times([CodedMask(bytes(10), 1, 2), CodedMask(bytes(20), 3, 4)])["bytes"]["mean"]
        == 15
    )


def test_a_slow_line_carries_empty_masks_together() -> None:
    tumour = [bytes([1, 2, 3]) * 17] * 30
    volume = [*[b""] * 40, *tumour, *[b""] * 50]
    messages = 30 * (51 + 9)  # with 3 bytes of time and 1 of length
    # A packet is 18 bytes and ends up in few frames; of each empty mask quality and time are left.
    assert messages + 90 * 4 < link_bytes(volume, 0.0) < messages + 90 * 4 + 200
    assert link_bytes(volume, 0.0) < link_bytes(volume, 1 / 90) < link_bytes(volume, 0.5)
    alone = framed_size(b"")
    assert link_bytes(tumour, 0.5) == 30 * framed_size(tumour[0])
    assert link_bytes([b""] * 10, 0.5) == 10 * (alone - 1)  # an Empty has no codec


def test_the_committed_figures_are_of_the_shipped_tables_and_on_the_page() -> None:
    result = read_json(RESULT)
    assert result["tables"]["sha256"] == sha256(PATH)
    assert result["patients"] == 39
    assert result["on_the_line"]["alone"] <= 100
    assert result["ours"]["encode_ms"]["p90"] <= 2
    assert result["ours"]["decode_ms"]["p90"] <= 5
    assert make_page(result) in PAGE.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_vectors_are_what_the_code_writes() -> None:
    assert json.loads(Path(MASK_FILE).read_text(encoding="utf-8")) == mask_vectors()


def test_learning_needs_patients() -> None:
    with pytest.raises(GliosliceError, match="--data"):
        mask_codecs.measure_codec(argparse.Namespace(data=None, learn=True))


@pytest.mark.real
@pytest.mark.slow
def test_real_masks_are_as_small_as_in_the_figures(real_cases: Path) -> None:
    """With the shipped tables, which know these patients: no larger than with those that do not."""
    result = read_json(RESULT)
    names = held_out_cases(1)[:3]
    sizes: list[int] = []
    for files in find_cases(real_cases):
        if files.name in names:
            previous = None
            for mask in read_masks(files):
                content = encode_change(mask, previous)
                back = decode_change(content, (mask.shape[0], mask.shape[1]), previous)
                np.testing.assert_array_equal(back, mask)
                sizes += [len(content)] if content else []
                previous = mask
    assert sizes
    assert np.mean(sizes) < 1.5 * result["ours"]["bytes"]["mean"]
