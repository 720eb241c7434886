"""The confidence byte matches its definition, for int8 and for float logits."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from device.confidence import BORDER_WIDTH, MAX_DISTANCE, STEPS_PER_LOGIT, mask_confidence
from device.engine import Engine
from glioslice.cases import phantom_case
from glioslice.model_card import shipped_folder
from glioslice.preprocessing import slice_volume
from glioslice.wire.messages import UNKNOWN

SIDE = 40


def reference_confidence(logits: NDArray[np.int8], scale: Fraction, zero_point: int) -> int:
    """The definition, pixel by pixel with exact fractions."""
    steps = logits.astype(int) - zero_point

    def far(step: int) -> int:
        return min(MAX_DISTANCE, int(abs(step) * scale * STEPS_PER_LOGIT + Fraction(1, 2)))

    means = []
    for region in range(3):
        inside = np.pad(steps[..., region] > 0, BORDER_WIDTH)
        strip = [
            far(int(steps[x, y, region]))
            for x, y in np.argwhere(steps[..., region] > 0)
            if not inside[x : x + 2 * BORDER_WIDTH + 1, y : y + 2 * BORDER_WIDTH + 1].all()
        ]
        if strip:
            means.append(256 * sum(strip) // len(strip))
    if not means:
        return far(int(steps.max()))
    return sum(means) // len(means) // 256


def hill(height: float, radius: float = 15.0) -> NDArray[np.float32]:
    """Logits of one region that rise from the border of a disc to `height` in its centre."""
    x, y = np.mgrid[:SIDE, :SIDE]
    climb = height * (1 - np.hypot(x - SIDE // 2, y - SIDE // 2) / radius)
    logits = np.full((SIDE, SIDE, 3), -3.0, np.float32)
    logits[..., 0] = np.maximum(climb, -3)
    return logits


SCALES = (0.125, 0.25, 0.28125)
"""Exact in binary, unlike those of real files, so that the fractions match exactly."""


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.int8, (24, 20, 3), fill=st.integers(-128, 127)),
    st.sampled_from(SCALES),
    st.integers(-128, 127),
)
def test_the_byte_matches_the_definition(logits: NDArray[np.int8], scale: float, zero: int) -> None:
    assert mask_confidence(logits, scale, zero) == reference_confidence(
        logits, Fraction(scale), zero
    )


@pytest.mark.parametrize("seed", range(4))
def test_regions_with_an_interior_match_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.integers(-90, -40, (64, 64, 3)).astype(np.int8)
    for region, size in enumerate((50, 30, 20)):
        inside = slice(7, 7 + size)
        logits[inside, inside, region] = rng.integers(-30, 127, (size, size))
    logits[7:57, 7:57, 0] = np.maximum(logits[7:57, 7:57, 0], -19)
    logits[20:44, 20:44, 0] = 120
    assert mask_confidence(logits, 0.125, -20) == reference_confidence(logits, Fraction(1, 8), -20)


@settings(deadline=None, max_examples=40)
@given(
    arrays(np.int8, (20, 24, 3), fill=st.integers(-128, 127)),
    st.sampled_from(SCALES),
    st.integers(-60, 60),
)
def test_float_logits_give_the_byte_of_int8_logits(
    logits: NDArray[np.int8], scale: float, zero: int
) -> None:
    floats = (logits.astype(np.float32) - zero) * np.float32(scale)
    assert mask_confidence(floats, 0.0, 0) == mask_confidence(logits, scale, zero)


def test_a_steep_border_has_more_confidence_than_a_faint_one() -> None:
    values = [mask_confidence(hill(height), 0.0, 0) for height in (0.2, 1, 2, 5, 10, 100)]
    assert values == sorted(set(values))
    assert values[0] < 15 and values[-1] > 240


def test_the_interior_does_not_count() -> None:
    logits = np.full((64, 64, 3), -4.0, np.float32)
    logits[10:50, 10:50, 0] = 1.0
    before = mask_confidence(logits, 0.0, 0)
    assert before == STEPS_PER_LOGIT
    logits[10 + BORDER_WIDTH : 50 - BORDER_WIDTH, 10 + BORDER_WIDTH : 50 - BORDER_WIDTH, 0] = 9.0
    assert mask_confidence(logits, 0.0, 0) == before
    logits[10 + BORDER_WIDTH - 1, 20:40, 0] = 9.0  # of the innermost row of the strip
    assert mask_confidence(logits, 0.0, 0) > before


def test_regions_have_equal_weight() -> None:
    logits = np.full((64, 64, 3), -4.0, np.float32)
    logits[8:56, 8:56, 0] = 2.0
    logits[30, 30, 2] = 1.0
    assert mask_confidence(logits, 0.0, 0) == (128 + 64) // 2


@pytest.mark.parametrize(
    ("nearest", "byte"), [(0.0, 0), (-0.5, 32), (-2.0, 128), (-9.0, MAX_DISTANCE)]
)
def test_an_empty_mask_has_the_distance_of_its_nearest_pixel(nearest: float, byte: int) -> None:
    logits = np.full((SIDE, SIDE, 3), -12.0, np.float32)
    logits[7, 9, 1] = nearest
    assert mask_confidence(logits, 0.0, 0) == byte
    int8 = (np.clip(logits / 0.125, -128, None)).astype(np.int8)
    assert mask_confidence(int8, 0.125, 0) == byte


def test_the_limits_of_int8() -> None:
    lowest = np.full((SIDE, SIDE, 3), -128, np.int8)
    assert mask_confidence(lowest, 0.28, 127) == MAX_DISTANCE
    assert mask_confidence(lowest, 0.28, -128) == 0
    assert mask_confidence(np.full_like(lowest, 127), 0.28, -128) == MAX_DISTANCE


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_have_no_confidence(broken: float) -> None:
    logits = hill(3)
    logits[3, 4, 1] = broken
    assert mask_confidence(logits, 0.0, 0) == UNKNOWN


@pytest.mark.slow
def test_shipped_files_agree_about_the_phantom() -> None:
    """nano in int8 and fp16: the same network, so nearly the same byte."""
    case = phantom_case(0)
    values: dict[str, list[int]] = {}
    for name in ("nano-int8.tflite", "nano-fp16.tflite"):
        engine = Engine(shipped_folder("nano") / name)
        slices, _ = slice_volume(case.images, engine.card.window, engine.card.clip)
        values[name] = []
        for scored in slices[20::15]:
            logits = engine.logits(engine.prepare(scored))
            assert logits.shape == (*engine.card.window, 3)
            np.testing.assert_array_equal(engine.regions(logits), engine.run(scored))
            values[name].append(
                mask_confidence(logits, engine.logit_scale, engine.logit_zero_point)
            )
    int8, fp16 = values.values()
    assert len(set(int8)) > 1
    assert np.abs(np.subtract(int8, fp16)).max() <= 32  # half a logit
