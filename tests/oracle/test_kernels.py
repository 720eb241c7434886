"""Each op alone, in all its variants, compared with LiteRT's reference kernels."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from tests.oracle import interpreter
from tests.oracle.small_files import SmallFile, litert, random_int8

MANY = settings(max_examples=100, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
ZEROS = st.sampled_from((-128, -127, 0, 127)) | st.integers(-128, 127)
SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
# Powers of two make ties, where the roundings differ; other numbers hardly ever do.
SCALES = st.integers(-8, 0).map(lambda n: 2.0**n) | st.floats(2.0**-8, 1, width=32)
SAME, VALID = 0, 1


def assert_same(content: bytes, x: NDArray[np.int8]) -> None:
    """Every tensor is bit for bit what the reference kernels make of it."""
    graph = interpreter.load(content)
    computed = interpreter.run(graph, x)
    assert set(computed) == {graph.input.index, *(op.output.index for op in graph.ops)}
    runtime = litert(content, x)
    for index, values in computed.items():
        assert values.dtype == np.int8
        np.testing.assert_array_equal(values, runtime.get_tensor(index))


@st.composite
def windows(draw: st.DrawFn, dilated: bool) -> dict[str, Any]:
    """A window's options, an image that it fits, and its number of outputs in TensorFlow."""
    padding = draw(st.sampled_from((SAME, VALID)))
    shape, sizes, taps, options = [draw(st.integers(1, 2))], [], [], {"padding": padding}
    for side in "HW":
        taps.append(draw(st.integers(1, 4)))
        stride = draw(st.integers(1, 3))
        dilation = draw(st.integers(1, 3)) if dilated else 1
        reach = (taps[-1] - 1) * dilation + 1
        shape.append(draw(st.integers(reach if padding == VALID else 1, 14)))
        sizes.append(math.ceil((shape[-1] - (reach - 1 if padding == VALID else 0)) / stride))
        options |= {f"stride{side}": stride}
        options |= {f"dilation{side}Factor": dilation} if dilated else {}
    options["fusedActivationFunction"] = draw(st.integers(0, 3))
    return {"shape": tuple(shape), "sizes": sizes, "taps": tuple(taps), "options": options}


@st.composite
def convolutions(draw: st.DrawFn, depthwise: bool) -> tuple[bytes, NDArray[np.int8]]:
    """A file of one convolution and an input."""
    window, outputs = draw(windows(dilated=True)), draw(st.integers(1, 5))
    groups, depth = draw(st.integers(1, 4)), 1 if depthwise else draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(SEEDS))
    channels, options = groups * outputs, window["options"]
    scale, bias_scale = draw(SCALES), 2.0**-6
    per_channel = np.full(channels, bias_scale) * np.exp2(rng.uniform(-2, 2, channels))
    scales = draw(st.sampled_from((bias_scale, per_channel)))
    file = SmallFile()
    x = file.tensor((*window["shape"], groups * depth), scale, draw(ZEROS))
    if depthwise:
        weights = rng.integers(-127, 128, (1, *window["taps"], channels), dtype=np.int8)
        options["depthMultiplier"] = outputs
    else:
        weights = rng.integers(-127, 128, (channels, *window["taps"], depth), dtype=np.int8)
    w = file.constant(weights, np.asarray(scales, np.float32), axis=3 if depthwise else 0)
    bias = rng.integers(-(2**14), 2**14, channels, dtype=np.int32)
    b = file.constant(bias, np.asarray(scale * np.asarray(scales), np.float32))
    y = file.tensor(
        (window["shape"][0], *window["sizes"], channels),
        draw(SCALES | st.floats(1, 64, width=32)),
        draw(ZEROS),
    )
    file.op("DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", [x, w, b], y, **options)
    return file.content(), random_int8(rng, (*window["shape"], groups * depth))


@MANY
@given(convolutions(depthwise=False))
def test_conv_2d(case: tuple[bytes, NDArray[np.int8]]) -> None:
    assert_same(*case)


@MANY
@given(convolutions(depthwise=True))
def test_depthwise_conv_2d(case: tuple[bytes, NDArray[np.int8]]) -> None:
    assert_same(*case)


@MANY
@given(
    st.sampled_from(("MAX_POOL_2D", "AVERAGE_POOL_2D")),
    windows(dilated=False),
    st.integers(1, 5),
    SCALES,
    ZEROS,
    SEEDS,
)
def test_pools(
    name: str, window: dict[str, Any], channels: int, scale: float, zero: int, seed: int
) -> None:
    shape = (*window["shape"], channels)
    file = SmallFile()
    x = file.tensor(shape, scale, zero)
    y = file.tensor((shape[0], *window["sizes"], channels), scale, zero)
    height, width = window["taps"]
    file.op(name, [x], y, filterHeight=height, filterWidth=width, **window["options"])
    assert_same(file.content(), random_int8(np.random.default_rng(seed), shape))


@MANY
@given(
    SHAPES,
    st.sets(st.integers(0, 3)),
    st.tuples(SCALES, SCALES, SCALES),
    st.tuples(ZEROS, ZEROS, ZEROS),
    st.integers(0, 3),
    SEEDS,
)
def test_add(
    shape: tuple[int, ...],
    flat: set[int],
    scales: tuple[float, ...],
    zeros: tuple[int, ...],
    activation: int,
    seed: int,
) -> None:
    """To itself, and to a constant that is broadcast along some axes."""
    rng = np.random.default_rng(seed)
    file = SmallFile()
    x = file.tensor(shape, scales[0], zeros[0])
    other = random_int8(rng, tuple(1 if axis in flat else n for axis, n in enumerate(shape)))
    constant = file.constant(other, scales[1], zeros[1])
    doubled = file.op("ADD", [x, x], file.tensor(shape, scales[1], zeros[2]))
    y = file.tensor(shape, scales[2], zeros[2])
    file.op("ADD", [doubled, constant], y, fusedActivationFunction=activation)
    assert_same(file.content(), random_int8(rng, shape))


@MANY
@given(SHAPES, st.integers(-4, 3), st.integers(1, 4), SCALES, ZEROS, SEEDS)
def test_concatenation(
    shape: tuple[int, ...], axis: int, size: int, scale: float, zero: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    file = SmallFile()
    x = file.tensor(shape, scale, zero)
    more = np.array(shape)
    more[axis] = size
    constant = file.constant(random_int8(rng, tuple(more)), scale, zero)
    more[axis] += 2 * shape[axis]
    y = file.tensor(tuple(int(n) for n in more), scale, zero)
    file.op("CONCATENATION", [x, constant, x], y, axis=axis)
    assert_same(file.content(), random_int8(rng, shape))


@MANY
@given(SHAPES, st.lists(st.integers(0, 3), min_size=8, max_size=8), SCALES, ZEROS, SEEDS)
def test_pad(shape: tuple[int, ...], pads: list[int], scale: float, zero: int, seed: int) -> None:
    widths = np.array(pads, np.int32).reshape(4, 2)
    file = SmallFile()
    x, constant = file.tensor(shape, scale, zero), file.constant(widths)
    padded = tuple(int(n) for n in np.array(shape) + widths.sum(1))
    file.op("PAD", [x, constant], file.tensor(padded, scale, zero))
    assert_same(file.content(), random_int8(np.random.default_rng(seed), shape))


@MANY
@given(st.tuples(SCALES, SCALES), st.tuples(ZEROS, ZEROS))
def test_quantize(scales: tuple[float, float], zeros: tuple[int, int]) -> None:
    x = np.arange(-128, 128, dtype=np.int8).reshape(1, 16, 16, 1)
    file = SmallFile()
    given = file.tensor(x.shape, scales[0], zeros[0])
    file.op("QUANTIZE", [given], file.tensor(x.shape, scales[1], zeros[1]))
    assert_same(file.content(), x)


def resized(name: str, shape: tuple[int, ...], size: tuple[int, int]) -> bytes:
    file = SmallFile()
    x, constant = file.tensor(shape), file.constant(np.array(size, np.int32))
    file.op(name, [x, constant], file.tensor((shape[0], *size, shape[3])))
    return file.content()


@MANY
@given(SHAPES, st.tuples(st.integers(1, 300), st.integers(1, 300)), SEEDS)
@example((1, 2, 2, 1), (82, 94), 0)  # in float32, 41 times 2 / 82 is less than 1
def test_resize_nearest_neighbor(shape: tuple[int, ...], size: tuple[int, int], seed: int) -> None:
    content = resized("RESIZE_NEAREST_NEIGHBOR", shape, size)
    assert_same(content, random_int8(np.random.default_rng(seed), shape))


@MANY
@given(SHAPES, st.tuples(st.integers(1, 60), st.integers(1, 60)), SEEDS)
@example((1, 9, 5, 2), (18, 10), 0)  # what a network does
def test_resize_bilinear(shape: tuple[int, ...], size: tuple[int, int], seed: int) -> None:
    steps = ((n, m, (1024 * n + m // 2) // m) for n, m in zip(shape[1:3], size, strict=True))
    assume(all((m - 1) * step < 1024 * n for n, m, step in steps))  # else: the test below
    content = resized("RESIZE_BILINEAR", shape, size)
    assert_same(content, random_int8(np.random.default_rng(seed), shape))


def test_a_resize_that_reads_past_the_image_is_refused() -> None:
    x = np.zeros((1, 3, 1, 1), np.int8)
    with pytest.raises(GliosliceError, match="read beyond the image"):
        interpreter.invoke(resized("RESIZE_BILINEAR", x.shape, (129, 1)), x)
