"""The fixed-point primitives compared with exact fractions and with gemmlowp's formulas."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.oracle.fixed_point import divide_by_power, high_product, rescale, to_multiplier

INT32 = st.integers(-(2**31), 2**31 - 1)
MANTISSAS = st.just(0) | st.integers(2**30, 2**31 - 1)
REALS = st.floats(2.0**-60, 2.0**29, exclude_max=True)


def nearest_up(value: Fraction) -> int:
    """The nearest integer, a half up."""
    return math.floor(value + Fraction(1, 2))


def nearest_away(value: Fraction) -> int:
    """The nearest integer, a half away from zero."""
    return nearest_up(value) if value > 0 else -nearest_up(-value)


def one(*numbers: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return [np.array([number], np.int64) for number in numbers]


@given(INT32, MANTISSAS)
@example(-(2**31), 2**31 - 1)
@example(-1, 2**30)  # a tie below zero
@example(1, 2**30)
def test_high_product(x: int, mantissa: int) -> None:
    product = x * mantissa
    nudge = 2**30 if product >= 0 else 1 - 2**30
    gemmlowp = math.trunc(Fraction(product + nudge, 2**31))
    assert high_product(*one(x, mantissa)) == gemmlowp == nearest_up(Fraction(product, 2**31))


@given(INT32, st.integers(0, 31))
@example(-(2**31), 31)
@example(-3, 1)
@example(3, 1)
def test_divide_by_power(x: int, power: int) -> None:
    assert divide_by_power(*one(x, power)) == nearest_away(Fraction(x, 2**power))


@given(REALS)
@example(1.0)
@example(1 - 2.0**-53)  # rounds up to the next power of two
@example(2.0**-32)
@example(2.0**-32 * (1 - 2.0**-53))
@example(2.0**-32 * (1 - 2.0**-30))
@example((2**30 + 0.5) / 2**31)  # a tie
def test_to_multiplier(real: float) -> None:
    by = to_multiplier(np.array([real]))
    mantissa, exponent = int(by.mantissa[0]), int(by.exponent[0])
    if mantissa == 0:
        assert real < 2.0**-32
        assert exponent == 0
        return
    assert 2**30 <= mantissa < 2**31
    scaled = Fraction(real) / Fraction(2) ** exponent * 2**31
    # Above the power of two that it was rounded up to, steps are half as fine.
    assert mantissa == nearest_up(scaled) or mantissa == 2**30 == nearest_up(scaled * 2) / 2


@given(st.integers(-(2**24), 2**24 - 1), st.floats(2.0**-31, 64))
@example(-(2**24), 64.0)  # the largest that fits: 2^24 2^7
@example(2**24 - 1, 64.0)
def test_rescale(x: int, real: float) -> None:
    by = to_multiplier(np.array([real]))
    mantissa, exponent = int(by.mantissa[0]), int(by.exponent[0])
    first = nearest_up(Fraction(x * 2 ** max(exponent, 0) * mantissa, 2**31))
    second = nearest_away(Fraction(first, 2 ** max(-exponent, 0)))
    [result] = rescale(np.array([x]), by)
    assert result == second
    assert abs(result - x * real) <= 1  # half a step each time


def test_rescale_of_many_channels_at_once() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**20), 2**20, (2, 3, 4, 5))
    reals = rng.uniform(1e-4, 4, 5)
    together = rescale(x, to_multiplier(reals))
    for channel, real in enumerate(reals):
        alone = rescale(x[..., channel], to_multiplier(np.array([real])))
        np.testing.assert_array_equal(together[..., channel], alone)


@pytest.mark.parametrize(("x", "real"), [(2**31, 0.5), (-(2**31) - 1, 0.5), (2**30, 3.0)])
def test_what_c_leaves_undefined_is_refused(x: int, real: float) -> None:
    with pytest.raises(OverflowError, match="32 bits"):
        rescale(np.array([x]), to_multiplier(np.array([real])))


def test_a_product_that_no_int32_can_hold_is_refused() -> None:
    assert to_multiplier(np.array([2.0**29])).exponent == 30
    with pytest.raises(OverflowError, match="multiplier of 1"):
        to_multiplier(np.array([2.0**30]))
