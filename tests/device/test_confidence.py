"""The quality byte is what its definition says, the same for int8 and float, and cheap to trust."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from device.confidence import MOST, PER_LOGIT, STRIP, quality_of
from device.engine import Engine
from device.segment import slices_of
from glioslice.cases import phantom_case
from glioslice.model_card import shipped
from glioslice.wire.messages import UNKNOWN

SIDE = 40


def by_hand(logits: NDArray[np.int8], scale: Fraction, zero_point: int) -> int:
    """The definition, pixel by pixel and in fractions."""
    steps = logits.astype(int) - zero_point

    def far(step: int) -> int:
        return min(MOST, int(abs(step) * scale * PER_LOGIT + Fraction(1, 2)))

    means = []
    for region in range(3):
        inside = np.pad(steps[..., region] > 0, STRIP)
        strip = [
            far(int(steps[x, y, region]))
            for x, y in np.argwhere(steps[..., region] > 0)
            if not inside[x : x + 2 * STRIP + 1, y : y + 2 * STRIP + 1].all()
        ]
        if strip:
            means.append(256 * sum(strip) // len(strip))
    if not means:
        return far(int(steps.max()))
    return sum(means) // len(means) // 256


def hill(height: float, radius: float = 15.0) -> NDArray[np.float32]:
    """Logits that climb from the border of a disc to `height` in its middle; one region of it."""
    x, y = np.mgrid[:SIDE, :SIDE]
    climb = height * (1 - np.hypot(x - SIDE // 2, y - SIDE // 2) / radius)
    logits = np.full((SIDE, SIDE, 3), -3.0, np.float32)
    logits[..., 0] = np.maximum(climb, -3)
    return logits


SCALES = (0.125, 0.25, 0.28125)
"""Exact in binary, as those of files are not: the last bits are another matter."""


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.int8, (24, 20, 3), fill=st.integers(-128, 127)),
    st.sampled_from(SCALES),
    st.integers(-128, 127),
)
def test_the_byte_is_the_definition(logits: NDArray[np.int8], scale: float, zero: int) -> None:
    assert quality_of(logits, scale, zero) == by_hand(logits, Fraction(scale), zero)


@pytest.mark.parametrize("seed", range(4))
def test_the_byte_of_regions_with_an_inside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(-90, -40, (64, 64, 3)).astype(np.int8)
    for region, size in enumerate((50, 30, 20)):
        inside = slice(7, 7 + size)
        logits[inside, inside, region] = rng.integers(-30, 127, (size, size))
    logits[7:57, 7:57, 0] = np.maximum(logits[7:57, 7:57, 0], -19)
    logits[20:44, 20:44, 0] = 120
    assert quality_of(logits, 0.125, -20) == by_hand(logits, Fraction(1, 8), -20)


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.int8, (20, 24, 3), fill=st.integers(-128, 127)),
    st.sampled_from(SCALES),
    st.integers(-60, 60),
)
def test_floats_give_what_int8_gives(logits: NDArray[np.int8], scale: float, zero: int) -> None:
    floats = (logits.astype(np.float32) - zero) * np.float32(scale)
    assert quality_of(floats, 0.0, 0) == quality_of(logits, scale, zero)


def test_a_steep_border_says_more_than_a_faint_one() -> None:
    said = [quality_of(hill(height), 0.0, 0) for height in (0.2, 1, 2, 5, 10, 100)]
    assert said == sorted(set(said))
    assert said[0] < 15 and said[-1] > 240


def test_what_lies_deep_inside_says_nothing() -> None:
    logits = np.full((64, 64, 3), -4.0, np.float32)
    logits[10:50, 10:50, 0] = 1.0
    before = quality_of(logits, 0.0, 0)
    assert before == PER_LOGIT
    logits[10 + STRIP : 50 - STRIP, 10 + STRIP : 50 - STRIP, 0] = 9.0
    assert quality_of(logits, 0.0, 0) == before
    logits[10 + STRIP - 1, 20:40, 0] = 9.0  # of the innermost row of the strip
    assert quality_of(logits, 0.0, 0) > before


def test_regions_count_alike_however_large() -> None:
    logits = np.full((64, 64, 3), -4.0, np.float32)
    logits[8:56, 8:56, 0] = 2.0
    logits[30, 30, 2] = 1.0
    assert quality_of(logits, 0.0, 0) == (128 + 64) // 2


@pytest.mark.parametrize(("nearest", "byte"), [(0.0, 0), (-0.5, 32), (-2.0, 128), (-9.0, MOST)])
def test_an_empty_mask_says_how_far_its_nearest_pixel_is(nearest: float, byte: int) -> None:
    logits = np.full((SIDE, SIDE, 3), -12.0, np.float32)
    logits[7, 9, 1] = nearest
    assert quality_of(logits, 0.0, 0) == byte
    int8 = (np.clip(logits / 0.125, -128, None)).astype(np.int8)
    assert quality_of(int8, 0.125, 0) == byte


def test_the_ends_of_int8() -> None:
    lowest = np.full((SIDE, SIDE, 3), -128, np.int8)
    assert quality_of(lowest, 0.28, 127) == MOST
    assert quality_of(lowest, 0.28, -128) == 0
    assert quality_of(np.full_like(lowest, 127), 0.28, -128) == MOST


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_not_known(broken: float) -> None:
    logits = hill(3)
    logits[3, 4, 1] = broken
    assert quality_of(logits, 0.0, 0) == UNKNOWN


def test_shipped_files_agree_about_the_phantom() -> None:
    """nano in int8 and fp16: the same network, so nearly the same byte, and one inference each."""
    case = phantom_case(0)
    said: dict[str, list[int]] = {}
    for name in ("nano-int8.tflite", "nano-fp16.tflite"):
        engine = Engine(shipped("nano") / name)
        slices, _ = slices_of(case.images, engine.card)
        said[name] = []
        for scored in slices[20::15]:
            logits = engine.invoke(engine.prepare(scored))
            assert logits.shape == (*engine.card.window, 3)
            np.testing.assert_array_equal(engine.regions(logits), engine.run(scored))
            said[name].append(engine.quality(logits))
    int8, fp16 = said.values()
    assert len(set(int8)) > 1
    assert np.abs(np.subtract(int8, fp16)).max() <= 32  # half a logit
