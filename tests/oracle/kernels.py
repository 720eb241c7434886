"""The ops of an int8 network as TFLite's reference kernels define them, as functions of arrays.

Arrays are (images, rows, columns, channels) of int8. In the formulas x, w, y are the integers in
the arrays, s_x and z_x are the scale and the zero point of x, `rescale` is that of
`tests.oracle.fixed_point`, and clamp limits values to int8 and to the range of the fused
activation. Windows move over an image as in TFLite's padding.h.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from tests.oracle.fixed_point import Integers, divide_by_power, rescale, to_multiplier
from tests.oracle.tflite_reader import OracleOp

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]

SAME, VALID = 0, 1
ACTIVATIONS: Mapping[int, tuple[float, float]] = {
    0: (-np.inf, np.inf),  # none
    1: (0, np.inf),  # RELU
    2: (-1, 1),  # RELU_N1_TO_1
    3: (0, 6),  # RELU6
}
MAX_SIDE = 1024
"""Largest window, stride or dilation: bounds the run time of a damaged file."""


@dataclass(frozen=True)
class Axis:
    """How a window moves along one axis: `size` outputs, and the pixels that each tap contributes.

    `taps` are (tap, pixels read, outputs written), two slices of equal length. Pixels outside the
    image are left out, so that no padding is added or computed.
    """

    size: int
    taps: tuple[tuple[int, slice, slice], ...]


def make_axis(length: int, taps: int, stride: int, dilation: int, same: bool) -> Axis:
    """Return the axis of `taps` taps over `length` pixels.

    Output i reads pixel i stride + tap dilation - p. SAME has ceil(length / stride) outputs, VALID
    as many as need no padding, 0 or less if there are none. p is half of the padding, rounded down.
    """
    reach = (taps - 1) * dilation + 1
    size = -(-length // stride) if same else (length + stride - reach) // stride
    before = max((size - 1) * stride + reach - length, 0) // 2
    inside = []
    for tap in range(taps):
        start = tap * dilation - before
        first, stop = max(-(start // stride), 0), min(-((start - length) // stride), size)
        if first < stop:
            read = slice(start + first * stride, start + (stop - 1) * stride + 1, stride)
            inside.append((tap, read, slice(first, stop)))
    return Axis(size, tuple(inside))


def windows(rows: Axis, columns: Axis) -> Iterator[tuple[int, int, Any, Any]]:
    """Yield each tap's row and column, and where it reads and writes in (images, rows, columns)."""
    images = slice(None)
    for row, read_y, write_y in rows.taps:
        for column, read_x, write_x in columns.taps:
            yield row, column, (images, read_y, read_x), (images, write_y, write_x)


def conv_2d(op: OracleOp, x: Int8, w: Int8, b: Int32) -> Int8:
    """Return y = clamp(z_y + rescale(b + sum of w (x - z_x), s_x s_w / s_y)), sums over w's taps.

    `w` is (outputs, rows, columns, inputs of a group), s_w one for all or one for each output.
    Pixels outside the image add nothing.

    The sum is computed in float64 by BLAS. It is exact: products are integers of at most
    2^7 * 2^8 and float64 holds every integer up to 2^53, so that 2^38 products can be added in any
    order without rounding.
    """
    given, filters = op.inputs[:2]
    outputs, depth = w.shape[0], w.shape[3]
    groups = x.shape[3] // depth
    fits = x.shape[3] == groups * depth and outputs % groups == 0
    fits = fits and filters.scales.size in (1, outputs)
    _check(op, fits and b.shape == (outputs,), "a filter of the wrong size")
    rows, columns = _axes(op, x.shape, w.shape[1:3])
    centred = x.astype(np.float64) - given.zero_point
    total = np.zeros((x.shape[0], rows.size, columns.size, outputs))
    for row, column, read, write in windows(rows, columns):
        for group in range(groups):
            ins = slice(group * depth, (group + 1) * depth)
            outs = slice(group * outputs // groups, (group + 1) * outputs // groups)
            taps = w[outs, row, column].T.astype(np.float64)
            total[(*write, outs)] += centred[(*read, ins)] @ taps
    by = to_multiplier(given.scale * filters.scales.astype(np.float64) / op.output.scale)
    return _clamp(op, op.output.zero_point + rescale(total.astype(np.int64) + b, by))


def depthwise_conv_2d(op: OracleOp, x: Int8, w: Int8, b: Int32) -> Int8:
    """Return CONV_2D with one group per channel of `x`; `w` is (1, rows, columns, outputs)."""
    _check(op, w.shape[0] == 1, "a filter of the wrong size")
    return conv_2d(op, x, w.transpose(3, 1, 2, 0), b)


def max_pool_2d(op: OracleOp, x: Int8) -> Int8:
    """Return y = clamp(the largest x in the part of the window inside the image)."""
    _check_same_scale(op)
    rows, columns = _axes(op, x.shape, (op.options["filter_h"], op.options["filter_w"]))
    y = np.full((x.shape[0], rows.size, columns.size, x.shape[3]), -128, np.int64)
    for _, _, read, write in windows(rows, columns):
        np.maximum(y[write], x[read], out=y[write])
    return _clamp(op, y)


def average_pool_2d(op: OracleOp, x: Int8) -> Int8:
    """Return y = clamp(sign(a) floor((|a| + floor(n / 2)) / n)): the mean, ties away from zero.

    a is the sum over the n pixels of the window that lie inside the image.
    """
    _check_same_scale(op)
    rows, columns = _axes(op, x.shape, (op.options["filter_h"], op.options["filter_w"]))
    total = np.zeros((x.shape[0], rows.size, columns.size, x.shape[3]), np.int64)
    count = np.zeros((1, rows.size, columns.size, 1), np.int64)
    for _, _, read, write in windows(rows, columns):
        total[write] += x[read]
        count[write] += 1
    return _clamp(op, np.sign(total) * ((abs(total) + count // 2) // count))


def add(op: OracleOp, a: Int8, b: Int8) -> Int8:
    """Return y = clamp(z_y + rescale(A + B, 2 s / (2^20 s_y))) with s = max(s_a, s_b).

    A = rescale(2^20 (a - z_a), s_a / 2s) and B likewise: both have 20 fractional bits.
    """
    twice = 2 * max(tensor.scale for tensor in op.inputs)
    lifted = [
        rescale(
            (values.astype(np.int64) - tensor.zero_point) << 20,
            to_multiplier(np.array([tensor.scale / twice])),
        )
        for tensor, values in zip(op.inputs, (a, b), strict=True)
    ]
    by = to_multiplier(np.array([twice / (2**20 * op.output.scale)]))
    _check(op, by.exponent[0] <= 0, "an output scale that no kernel takes")
    return _clamp(op, op.output.zero_point + rescale(lifted[0] + lifted[1], by))


def concatenation(op: OracleOp, *parts: Int8) -> Int8:
    """Return the inputs concatenated along the axis."""
    _check_same_scale(op)
    _check(op, op.options["activation"] == 0, "a fused activation that no kernel takes")
    return np.concatenate(parts, op.options["axis"])


def pad(op: OracleOp, x: Int8, widths: Int32) -> Int8:
    """Return `x` padded with z_y; `widths` (4, 2) are the pixels before and after."""
    _check_same_scale(op)
    _check(op, widths.shape == (4, 2) and bool((widths >= 0).all()), "widths that no kernel takes")
    sizes = zip(x.shape, widths.tolist(), strict=True)
    _check_shape(op, tuple(size + before + after for size, (before, after) in sizes))
    return np.pad(x, widths.tolist(), constant_values=op.output.zero_point)


def quantize(op: OracleOp, x: Int8) -> Int8:
    """Return y = clamp(z_y + rescale(x - z_x, s_x / s_y)): a change of scale."""
    given = op.inputs[0]
    by = to_multiplier(np.array([given.scale / op.output.scale]))
    return _clamp(op, op.output.zero_point + rescale(x.astype(np.int64) - given.zero_point, by))


def resize_bilinear(op: OracleOp, x: Int8, size: Int32) -> Int8:
    """Return the bilinear interpolation of x at i n / m in rows and columns.

    In 1024ths of a pixel, output i lies at p = i floor((1024 n + floor(m / 2)) / m) for n pixels
    that become m: between pixels floor(p / 1024) and ceil(p / 1024), clipped to the last one, with
    weights by distance. The mean of the four pixels is rounded once, ties away from zero.

    Raises GliosliceError for sizes at which the kernel reads beyond the image, because its step is
    rounded up, and for aligned corners and half-pixel centres, which glioslice does not emit.
    """
    _check_resize(op, x, size)
    _check_same_scale(op)
    y = x.astype(np.int64)
    for axis, (n, m) in enumerate(zip(x.shape[1:3], size.tolist(), strict=True), start=1):
        places = np.arange(m) * ((1024 * n + m // 2) // m)
        low, high = places // 1024, np.minimum(-(-places // 1024), n - 1)
        _check(op, low[-1] < n, "a size at which kernels read beyond the image")
        shape = [1, 1, 1, 1]
        shape[axis] = m
        part = (places - 1024 * low).reshape(shape)
        y = y.take(low, axis) * (1024 - part) + y.take(high, axis) * part
    mean: Int8 = divide_by_power(y, np.array(20)).astype(np.int8)
    return mean


def resize_nearest_neighbor(op: OracleOp, x: Int8, size: Int32) -> Int8:
    """Return y[i, j] = x[f(i), f(j)], f(i) = min(floor(i n / m), n - 1) from n pixels to m.

    n / m and its product with i are float32. Raises GliosliceError for aligned corners and
    half-pixel centres, which glioslice does not emit.
    """
    _check_resize(op, x, size)
    rows, columns = (
        np.minimum(np.arange(m, dtype=np.float32) * (np.float32(n) / np.float32(m)), n - 1)
        for n, m in zip(x.shape[1:3], size, strict=True)
    )
    return x[:, rows.astype(np.intp)][:, :, columns.astype(np.intp)]


def _check_resize(op: OracleOp, x: Int8, size: Int32) -> None:
    """Check that a resize has no options and the size of its output."""
    _check(op, not any(op.options.values()), "aligned corners or half-pixel centres")
    _check(op, size.shape == (2,), "a size that is not rows and columns")
    _check_shape(op, (x.shape[0], *size.tolist(), x.shape[3]))


def _axes(op: OracleOp, shape: tuple[int, ...], window: tuple[int, ...]) -> tuple[Axis, Axis]:
    rows, columns = (
        (length, taps, op.options[f"stride_{side}"], op.options.get(f"dilation_{side}", 1))
        for length, taps, side in zip(shape[1:3], window, "hw", strict=True)
    )
    sane = all(0 < number <= MAX_SIDE for number in (*rows[1:], *columns[1:]))
    _check(op, sane and op.options["padding"] in (SAME, VALID), "a window that no kernel takes")
    same = op.options["padding"] == SAME
    axes = make_axis(*rows, same), make_axis(*columns, same)
    _check(op, all(axis.size > 0 for axis in axes), "a window larger than the image")
    return axes


def _clamp(op: OracleOp, values: Integers) -> Int8:
    """Return values as int8, clamped to the activation: z_y + round(real / s_y) in float32."""
    activation = op.options.get("activation", 0)
    _check(op, activation in ACTIVATIONS, "an activation that is not RELU, RELU6 or RELU_N1_TO_1")
    with np.errstate(over="ignore"):
        reals = np.array(ACTIVATIONS[activation], np.float32) / np.float32(op.output.scale)
    steps = np.copysign(np.floor(abs(reals.astype(np.float64)) + 0.5), reals)  # ties away from 0
    low, high = np.clip(op.output.zero_point + steps, -128, 127).astype(np.int64)
    clamped: Int8 = np.clip(values, low, high).astype(np.int8)
    return clamped


def _check(op: OracleOp, condition: bool, problem: str) -> None:
    if not condition:
        raise GliosliceError(f"{op}, has {problem}; the file is damaged or not one of glioslice")


def _check_same_scale(op: OracleOp) -> None:
    """Check that int8 inputs and output have equal scales and zero points, as kernels assume."""
    own = (op.output.scale, op.output.zero_point)
    images = [tensor for tensor in op.inputs if tensor.dtype == np.int8]
    same = all((tensor.scale, tensor.zero_point) == own for tensor in images)
    _check(op, same, "an output with another scale than its input")


def _check_shape(op: OracleOp, shape: tuple[int, ...]) -> None:
    _check(op, shape == op.output.shape, f"an output of {op.output.shape}, not {shape}")
