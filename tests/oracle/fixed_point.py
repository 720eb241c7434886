"""TFLite's fixed-point arithmetic: multiplication by real numbers in 32-bit integers.

The formulas are those of gemmlowp's fixedpoint.h (SaturatingRoundingDoublingHighMul,
RoundingDivideByPOT) and of TFLite's quantization_util.cc (QuantizeMultiplier) and common.cc
(MultiplyByQuantizedMultiplier).

TFLite can be built to round such a product once or twice. The reference kernels of LiteRT 2.3.0
round twice. Rounding once gives other intermediate tensors of the shipped files, as a test shows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
"""Values are int64, in which none of these formulas overflows."""

LIMIT = 1 << 31
MAX_EXPONENT = 30


@dataclass(frozen=True, eq=False)
class Multiplier:
    """Real numbers `mantissa` / 2^31 * 2^`exponent`, with mantissas of 0 or 2^30 to 2^31 - 1."""

    mantissa: Integers
    exponent: Integers


def to_multiplier(real: NDArray[np.float64]) -> Multiplier:
    """Return the nearest multipliers to positive real numbers, ties up; 0 for those below 2^-32.

    Raises OverflowError for 2^30 or more, with which no int32 can be multiplied.
    """
    fraction, exponent = np.frexp(real)
    mantissa = np.floor(fraction * LIMIT + 0.5).astype(np.int64)
    carry = mantissa == LIMIT
    mantissa, exponent = np.where(carry, LIMIT // 2, mantissa), exponent.astype(np.int64) + carry
    if (exponent > MAX_EXPONENT).any():
        raise OverflowError(f"its scales require a multiplier of {real.max():g}")
    tiny = exponent < -31
    return Multiplier(np.where(tiny, 0, mantissa), np.where(tiny, 0, exponent))


def rescale(x: Integers, by: Multiplier) -> Integers:
    """Return `x` times `by`, rounded twice as TFLite does.

    round_away(round_up(x 2^max(e, 0) m / 2^31) / 2^max(-e, 0)): ties first up, then away from zero.
    Raises OverflowError if `x` or x 2^max(e, 0) exceeds int32, where C leaves the result undefined.
    """
    shifted = _check_int32(_check_int32(x) << np.maximum(by.exponent, 0))
    return divide_by_power(high_product(shifted, by.mantissa), np.maximum(-by.exponent, 0))


def high_product(x: Integers, m: Integers) -> Integers:
    """Return x m / 2^31 rounded to the nearest integer, ties up; `m` is from 0 to 2^31 - 1.

    SaturatingRoundingDoublingHighMul, which saturates for negative `m` only.
    """
    return (x * m + (1 << 30)) >> 31


def divide_by_power(x: Integers, power: Integers) -> Integers:
    """Return x / 2^power rounded to the nearest integer, ties away from zero; power is 0 to 31.

    RoundingDivideByPOT.
    """
    mask = (1 << power) - 1
    return (x >> power) + ((x & mask) > (mask >> 1) + (x < 0))


def _check_int32(x: Integers) -> Integers:
    if x.size and (x.min() < -LIMIT or x.max() >= LIMIT):
        raise OverflowError("a sum does not fit in 32 bits")
    return x
