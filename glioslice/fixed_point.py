"""TFLite's fixed-point arithmetic: products with a real number, in 32-bit integers.

The formulas are those of gemmlowp's fixedpoint.h (SaturatingRoundingDoublingHighMul,
RoundingDivideByPOT) and of TFLite's quantization_util.cc (QuantizeMultiplier) and common.cc
(MultiplyByQuantizedMultiplier).

TFLite can be built to round such a product once or twice. The reference kernels of LiteRT 2.3.0
round twice: rounding once differs from them in intermediate tensors of the shipped files (the tests
show it).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
"""All values are held in int64, where none of these formulas overflows."""

LIMIT = 1 << 31
MAX_EXPONENT = 30


@dataclass(frozen=True, eq=False)
class Multiplier:
    """Real numbers `mantissa` / 2^31 * 2^`exponent`; mantissas are 0 or from 2^30 to 2^31 - 1."""

    mantissa: Integers
    exponent: Integers


def multiplier_of(real: NDArray[np.float64]) -> Multiplier:
    """Return the nearest multipliers to positive real numbers, ties up; 0 for those under 2^-32.

    Raises OverflowError where one is 2^30 or more: no int32 could be multiplied with it.
    """
    fraction, exponent = np.frexp(real)
    mantissa = np.floor(fraction * LIMIT + 0.5).astype(np.int64)
    up = mantissa == LIMIT
    mantissa, exponent = np.where(up, LIMIT // 2, mantissa), exponent.astype(np.int64) + up
    if (exponent > MAX_EXPONENT).any():
        raise OverflowError(f"its scales ask for a product with {real.max():g}")
    tiny = exponent < -31
    return Multiplier(np.where(tiny, 0, mantissa), np.where(tiny, 0, exponent))


def rescale(x: Integers, by: Multiplier) -> Integers:
    """Return `x` times `by`, rounded to 31 bits below the point and then to an integer.

    round_away(round_up(x 2^max(e, 0) m / 2^31) / 2^max(-e, 0)), ties up and then away from zero.
    Raises OverflowError where `x` or x 2^max(e, 0) leaves int32: C leaves the result undefined.
    """
    shifted = _in_32_bits(_in_32_bits(x) << np.maximum(by.exponent, 0))
    return divide_by_power(high_product(shifted, by.mantissa), np.maximum(-by.exponent, 0))


def high_product(x: Integers, m: Integers) -> Integers:
    """Return x m / 2^31 to the nearest integer, ties up, of int32 `x` and `m` from 0 to 2^31 - 1.

    That is SaturatingRoundingDoublingHighMul; it saturates for negative `m` only.
    """
    return (x * m + (1 << 30)) >> 31


def divide_by_power(x: Integers, power: Integers) -> Integers:
    """Return x / 2^power to the nearest integer, ties away from zero, power from 0 to 31.

    That is RoundingDivideByPOT.
    """
    mask = (1 << power) - 1
    return (x >> power) + ((x & mask) > (mask >> 1) + (x < 0))


def _in_32_bits(x: Integers) -> Integers:
    if x.size and (x.min() < -LIMIT or x.max() >= LIMIT):
        raise OverflowError("a sum does not fit in 32 bits")
    return x
