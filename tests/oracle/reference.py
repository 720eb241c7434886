"""How the window of a convolution or a pool moves over an image, as TFLite's padding.h has it.

TFLite's fixed-point arithmetic: products with a real number, in 32-bit integers.

The formulas are those of gemmlowp's fixedpoint.h (SaturatingRoundingDoublingHighMul,
RoundingDivideByPOT) and of TFLite's quantization_util.cc (QuantizeMultiplier) and common.cc
(MultiplyByQuantizedMultiplier).

TFLite can be built to round such a product once or twice. The reference kernels of LiteRT 2.3.0
round twice: rounding once differs from them in intermediate tensors of the shipped files (the tests
show it).

The ops of an int8 network as TFLite's reference kernels define them, each a function of arrays.

Arrays are (images, rows, columns, channels) of int8. In the formulas x, w, y are the integers in
the arrays, s_x and z_x the scale and the zero point of x; `rescale` and its rounding are
`tests.oracle.reference`, and clamp cuts to int8 and to the range of the fused activation.

An int8 TFLite file computed in numpy, bit for bit as TFLite's reference kernels compute it.

    y = reference.invoke(Path("compact-int8.tflite").read_bytes(), x)

What runs reference kernels, such as TFLite Micro's, is held against this byte for byte,
intermediate tensors included. XNNPACK scales in float32 and rounds once where these kernels round
twice: by itself, a convolution then differs by one step in under 1 % of its values, at the end of
a network the logits by several steps. What runs on XNNPACK is held against XNNPACK.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from tests.oracle.tflite_file import INT8, INT32, Graph, Op, read_graph


@dataclass(frozen=True)
class Axis:
    """How a window moves along an axis: `size` outputs, and what each of its taps adds to them.

    `taps` are (tap, pixels read, outputs written), two slices of equal length. What a tap would
    read outside the image is left out: there is no padding to be added and none to be computed.
    """

    size: int
    taps: tuple[tuple[int, slice, slice], ...]


def axis_of(length: int, taps: int, stride: int, dilation: int, same: bool) -> Axis:
    """Return how `taps` taps move over `length` pixels: output i reads i stride + tap dilation - p.

    SAME has ceil(length / stride) outputs, VALID as many as need no padding (0 or less if there are
    none); p is half of the padding, and where it is odd, the smaller half.
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
"""Of a window, a stride or a dilation: bounds how long a damaged file keeps one waiting."""


def conv_2d(op: Op, x: Int8, w: Int8, b: Int32) -> Int8:
    """Return y = clamp(z_y + rescale(b + sum of w (x - z_x), s_x s_w / s_y)), sums over w's taps.

    `w` is (outputs, rows, columns, inputs of a group), s_w one for all or one for each output.
    What lies outside the image adds nothing.

    The sum is taken in float64, so that BLAS does it. It is exact: a product is an integer of at
    most 2^7 * 2^8, float64 holds every integer up to 2^53, so up to 2^38 of them can be added in
    any order and nothing is rounded.
    """
    given, filters = op.inputs[:2]
    outputs, depth = w.shape[0], w.shape[3]
    groups = x.shape[3] // depth
    fits = x.shape[3] == groups * depth and outputs % groups == 0
    fits = fits and filters.scales.size in (1, outputs)
    _check(op, fits and b.shape == (outputs,), "a filter of another size")
    rows, columns = _axes(op, x.shape, w.shape[1:3])
    centred = x.astype(np.float64) - given.zero_point
    total = np.zeros((x.shape[0], rows.size, columns.size, outputs))
    for row, column, read, write in windows(rows, columns):
        for group in range(groups):
            ins = slice(group * depth, (group + 1) * depth)
            outs = slice(group * outputs // groups, (group + 1) * outputs // groups)
            taps = w[outs, row, column].T.astype(np.float64)
            total[(*write, outs)] += centred[(*read, ins)] @ taps
    by = multiplier_of(given.scale * filters.scales.astype(np.float64) / op.output.scale)
    return _clamp(op, op.output.zero_point + rescale(total.astype(np.int64) + b, by))


def depthwise_conv_2d(op: Op, x: Int8, w: Int8, b: Int32) -> Int8:
    """Return CONV_2D with a group for each channel of `x`; `w` is (1, rows, columns, outputs)."""
    _check(op, w.shape[0] == 1, "a filter of another size")
    return conv_2d(op, x, w.transpose(3, 1, 2, 0), b)


def max_pool_2d(op: Op, x: Int8) -> Int8:
    """Return y = clamp(the largest x in the window's part inside the image)."""
    _check_same_scale(op)
    rows, columns = _axes(op, x.shape, (op.options["filter_h"], op.options["filter_w"]))
    y = np.full((x.shape[0], rows.size, columns.size, x.shape[3]), -128, np.int64)
    for _, _, read, write in windows(rows, columns):
        np.maximum(y[write], x[read], out=y[write])
    return _clamp(op, y)


def average_pool_2d(op: Op, x: Int8) -> Int8:
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


def add(op: Op, a: Int8, b: Int8) -> Int8:
    """Return y = clamp(z_y + rescale(A + B, 2 s / (2^20 s_y))) with s = max(s_a, s_b).

    A = rescale(2^20 (a - z_a), s_a / 2s), B alike: the two meet with 20 bits below the point.
    """
    twice = 2 * max(tensor.scale for tensor in op.inputs)
    lifted = [
        rescale(
            (values.astype(np.int64) - tensor.zero_point) << 20,
            multiplier_of(np.array([tensor.scale / twice])),
        )
        for tensor, values in zip(op.inputs, (a, b), strict=True)
    ]
    by = multiplier_of(np.array([twice / (2**20 * op.output.scale)]))
    _check(op, by.exponent[0] <= 0, "an output scale that no kernel takes")
    return _clamp(op, op.output.zero_point + rescale(lifted[0] + lifted[1], by))


def concatenation(op: Op, *parts: Int8) -> Int8:
    """Return the inputs one after the other along the axis."""
    _check_same_scale(op)
    _check(op, op.options["activation"] == 0, "a fused activation that no kernel takes")
    return np.concatenate(parts, op.options["axis"])


def pad(op: Op, x: Int8, widths: Int32) -> Int8:
    """Return `x` with z_y around it; `widths` (4, 2) say how many before and after."""
    _check_same_scale(op)
    _check(op, widths.shape == (4, 2) and bool((widths >= 0).all()), "widths that no kernel takes")
    sizes = zip(x.shape, widths.tolist(), strict=True)
    _check_shape(op, tuple(size + before + after for size, (before, after) in sizes))
    return np.pad(x, widths.tolist(), constant_values=op.output.zero_point)


def quantize(op: Op, x: Int8) -> Int8:
    """Return y = clamp(z_y + rescale(x - z_x, s_x / s_y)): from one scale to another."""
    given = op.inputs[0]
    by = multiplier_of(np.array([given.scale / op.output.scale]))
    return _clamp(op, op.output.zero_point + rescale(x.astype(np.int64) - given.zero_point, by))


def resize_bilinear(op: Op, x: Int8, size: Int32) -> Int8:
    """Return y[i, j], x at (i n / m) in rows and columns alike, a weighted mean of four pixels.

    In 1024ths of a pixel, output i lies at p = i floor((1024 n + floor(m / 2)) / m) for n pixels
    that become m: between pixels floor(p / 1024) and ceil(p / 1024), the last one at most, weighed
    by their nearness. The mean is rounded once, ties away from zero. Refused are sizes for which
    the kernel reads past the image, because the step was rounded up, and aligned corners and
    half-pixel centres, which this kit does not emit.
    """
    _check_plain(op, x, size)
    _check_same_scale(op)
    y = x.astype(np.int64)
    for axis, (n, m) in enumerate(zip(x.shape[1:3], size.tolist(), strict=True), start=1):
        places = np.arange(m) * ((1024 * n + m // 2) // m)
        low, high = places // 1024, np.minimum(-(-places // 1024), n - 1)
        _check(op, low[-1] < n, "a size for which kernels read past the image")
        shape = [1, 1, 1, 1]
        shape[axis] = m
        part = (places - 1024 * low).reshape(shape)
        y = y.take(low, axis) * (1024 - part) + y.take(high, axis) * part
    mean: Int8 = divide_by_power(y, np.array(20)).astype(np.int8)
    return mean


def resize_nearest_neighbor(op: Op, x: Int8, size: Int32) -> Int8:
    """Return y[i, j] = x[f(i), f(j)], f(i) = min(floor(i n / m), n - 1) from n pixels to m.

    n / m and its product with i are float32. Aligned corners and half-pixel centres, which this kit
    does not emit, are refused.
    """
    _check_plain(op, x, size)
    rows, columns = (
        np.minimum(np.arange(m, dtype=np.float32) * (np.float32(n) / np.float32(m)), n - 1)
        for n, m in zip(x.shape[1:3], size, strict=True)
    )
    return x[:, rows.astype(np.intp)][:, :, columns.astype(np.intp)]


def _check_plain(op: Op, x: Int8, size: Int32) -> None:
    """Check that a resize is of the plain form, to the rows and columns of its output."""
    _check(op, not any(op.options.values()), "another form than the plain one")
    _check(op, size.shape == (2,), "a size that is not rows and columns")
    _check_shape(op, (x.shape[0], *size.tolist(), x.shape[3]))


def _axes(op: Op, shape: tuple[int, ...], window: tuple[int, ...]) -> tuple[Axis, Axis]:
    rows, columns = (
        (length, taps, op.options[f"stride_{side}"], op.options.get(f"dilation_{side}", 1))
        for length, taps, side in zip(shape[1:3], window, "hw", strict=True)
    )
    sane = all(0 < number <= MAX_SIDE for number in (*rows[1:], *columns[1:]))
    _check(op, sane and op.options["padding"] in (SAME, VALID), "a window that no kernel takes")
    same = op.options["padding"] == SAME
    axes = axis_of(*rows, same), axis_of(*columns, same)
    _check(op, all(axis.size > 0 for axis in axes), "a window larger than the image")
    return axes


def _clamp(op: Op, values: Integers) -> Int8:
    """Return values as int8, cut to the activation's range: z_y + round(real / s_y) in float32."""
    activation = op.options.get("activation", 0)
    _check(op, activation in ACTIVATIONS, "an activation that is not RELU, RELU6 or RELU_N1_TO_1")
    with np.errstate(over="ignore"):
        reals = np.array(ACTIVATIONS[activation], np.float32) / np.float32(op.output.scale)
    steps = np.copysign(np.floor(abs(reals.astype(np.float64)) + 0.5), reals)  # ties away from 0
    low, high = np.clip(op.output.zero_point + steps, -128, 127).astype(np.int64)
    clamped: Int8 = np.clip(values, low, high).astype(np.int8)
    return clamped


def _check(op: Op, holds: bool, what: str) -> None:
    if not holds:
        raise GliosliceError(f"{op}, has {what}; the file is damaged or not of this kit")


def _check_same_scale(op: Op) -> None:
    """Check what the kernels rely on: equal scales and zero points of int8 inputs and output."""
    own = (op.output.scale, op.output.zero_point)
    images = [tensor for tensor in op.inputs if tensor.dtype == np.int8]
    same = all((tensor.scale, tensor.zero_point) == own for tensor in images)
    _check(op, same, "an output of another scale than its input")


def _check_shape(op: Op, shape: tuple[int, ...]) -> None:
    _check(op, shape == op.output.shape, f"an output of {op.output.shape}, not {shape}")


@dataclass(frozen=True)
class Kernel:
    """How an op is computed, as a function of it and of its inputs' arrays, and their types.

    Of a type that is `repeated`, any number of inputs may come.
    """

    compute: Callable[..., NDArray[np.int8]]
    types: tuple[np.dtype[Any], ...]
    repeated: bool = False

    def takes(self, op: Op) -> bool:
        """Tell whether these are the types of the inputs of `op`."""
        given = tuple(tensor.dtype for tensor in op.inputs)
        return set(given) == set(self.types) if self.repeated else given == self.types


KERNELS: Mapping[str, Kernel] = {
    "ADD": Kernel(add, (INT8, INT8)),
    "AVERAGE_POOL_2D": Kernel(average_pool_2d, (INT8,)),
    "CONCATENATION": Kernel(concatenation, (INT8,), repeated=True),
    "CONV_2D": Kernel(conv_2d, (INT8, INT8, INT32)),
    "DEPTHWISE_CONV_2D": Kernel(depthwise_conv_2d, (INT8, INT8, INT32)),
    "MAX_POOL_2D": Kernel(max_pool_2d, (INT8,)),
    "PAD": Kernel(pad, (INT8, INT32)),
    "QUANTIZE": Kernel(quantize, (INT8,)),
    "RESIZE_BILINEAR": Kernel(resize_bilinear, (INT8, INT32)),
    "RESIZE_NEAREST_NEIGHBOR": Kernel(resize_nearest_neighbor, (INT8, INT32)),
}

UNFIT = (ValueError, IndexError, OverflowError)
"""What numpy raises for shapes that do not go together, and `fixed_point` for scales."""


def load(content: bytes) -> Graph:
    """Return the network of a TFLite file once it is sure that all its ops are known here.

    Raises GliosliceError as `read_graph` does, and naming an op that is not known, or that is not
    one of int8 tensors (images, rows, columns, channels) with one scale each.
    """
    graph = read_graph(content)
    for op in graph.ops:
        if op.name not in KERNELS:
            raise GliosliceError(
                f"{op}, has no reference arithmetic here; known are {', '.join(sorted(KERNELS))}"
            )
        images = [op.output, *(tensor for tensor in op.inputs if tensor.data is None)]
        if not KERNELS[op.name].takes(op) or not all(
            (tensor.dtype, len(tensor.shape), tensor.scales.size) == (INT8, 4, 1)
            for tensor in images
        ):
            raise GliosliceError(
                f"{op}, has other inputs or another output than int8 images of one scale each; "
                "only int8 files of this kit are computed here"
            )
    return graph


def run(graph: Graph, x: NDArray[np.int8]) -> dict[int, NDArray[np.int8]]:
    """Return every tensor that is computed for the input `x`, and `x`, by their index in the file.

    Raises GliosliceError if `x` is not int8 of the input's shape, or the tensors of an op do not
    fit together.
    """
    if x.dtype != np.int8 or x.shape != graph.input.shape:
        raise GliosliceError(
            f"the input is {x.dtype} {x.shape}; the network takes int8 {graph.input.shape}"
        )
    values: dict[int, NDArray[np.int8]] = {graph.input.index: x}
    for op in graph.ops:
        given = [values.get(t.index) if t.data is None else t.data for t in op.inputs]
        try:
            computed = KERNELS[op.name].compute(op, *given)
        except UNFIT as error:
            raise GliosliceError(
                f"{op}, cannot be computed ({error}); the file is damaged or not of this kit"
            ) from None
        if computed.shape != op.output.shape:
            raise GliosliceError(
                f"{op}, gives {computed.shape} where the file says {op.output.shape}; it is damaged"
            )
        values[op.output.index] = computed
    return values


def invoke(content: bytes, x: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return the network's output for `x`; raises GliosliceError as `load` and `run` do."""
    graph = load(content)
    return run(graph, x)[graph.output.index]
