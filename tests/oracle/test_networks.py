"""Every tensor of whole int8 files, compared with LiteRT's reference kernels and with XNNPACK."""

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import OpResolverType
from numpy.typing import NDArray

from glioslice.cases import phantom_case
from glioslice.model_card import SHIPPED_MODELS, shipped_folder
from glioslice.preprocessing import brain_mask, extract_slices, find_crop, quantize, z_scores
from tests.oracle import interpreter, kernels
from tests.oracle.fixed_point import Integers, Multiplier
from tests.oracle.small_files import litert, random_int8

XNNPACK = OpResolverType.AUTO
FILES = [shipped_folder(size) / f"{size}-int8.tflite" for size in SHIPPED_MODELS]
quiet = pytest.mark.filterwarnings("ignore:.*Enabling `experimental_preserve_all_tensors`")
by_file = pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)


@pytest.fixture(scope="module")
def brain() -> NDArray[np.float32]:
    """Four slices of the phantom, three of them with tumour, as z-scores."""
    case = phantom_case(0)
    mask = brain_mask(case.images)
    crop = find_crop(mask)
    assert case.labels is not None
    tumour = np.flatnonzero(case.labels[..., slice(*crop.z)].any(axis=(0, 1)))
    shown = [tumour[0] // 2, *tumour[np.array([1, 2, 3]) * len(tumour) // 4]]
    return extract_slices(z_scores(case.images, mask), crop)[shown]


def differing(content: bytes, x: NDArray[np.int8]) -> dict[int, int]:
    """Return how many values differ from the reference kernels, for each tensor that does."""
    graph = interpreter.load(content)
    computed, runtime = interpreter.run(graph, x), litert(content, x)
    assert len(computed) == len(graph.ops) + 1  # every op was computed
    counts = {i: np.count_nonzero(v != runtime.get_tensor(i)) for i, v in computed.items()}
    return {index: count for index, count in counts.items() if count}


@by_file
def test_random_input(file: Path) -> None:
    content = file.read_bytes()
    x = random_int8(np.random.default_rng(0), interpreter.load(content).input.shape)
    assert not differing(content, x)


@pytest.mark.slow
@by_file
def test_extreme_inputs(file: Path) -> None:
    content = file.read_bytes()
    given = interpreter.load(content).input
    for value in (-128, given.zero_point, 127):
        assert not differing(content, np.full(given.shape, value, np.int8))
    ends = np.array([-128, 127], np.int8)
    assert not differing(content, np.random.default_rng(0).choice(ends, given.shape))


@pytest.mark.slow
@by_file
def test_phantom_slices(file: Path, brain: NDArray[np.float32]) -> None:
    content = file.read_bytes()
    given = interpreter.load(content).input
    for z in brain:
        assert not differing(content, quantize(z, given.scale, given.zero_point)[None])


def round_once(x: Integers, by: Multiplier) -> Integers:
    """What a TFLite built with TFLITE_SINGLE_ROUNDING computes (its common.cc)."""
    shift = 31 - by.exponent
    rounded: Integers = (x * by.mantissa + (1 << (shift - 1))) >> shift
    return rounded


@by_file
def test_litert_rounds_twice(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file.read_bytes()
    graph = interpreter.load(content)
    x = random_int8(np.random.default_rng(0), graph.input.shape)
    monkeypatch.setattr(kernels, "rescale", round_once)
    first = next(op for op in graph.ops if op.name == "CONV_2D")
    assert first.output.index in differing(content, x)


def round_in_float32(x: Integers, by: NDArray[np.float32]) -> Integers:
    """What XNNPACK computes: the product in float32, rounded once, ties to even."""
    steps: Integers = np.rint(x.astype(np.float32) * by).astype(np.int64)
    return steps


def ties_up(x: Integers, power: Integers) -> Integers:
    """What XNNPACK computes of the mean of four pixels."""
    return (x + (1 << (power - 1))) >> power


DIFFER = {"CONV_2D": 0.15, "RESIZE_BILINEAR": 0.35, "ADD": 0.0001}
"""The ops whose values may differ by a step between the two, and the share of them that may."""


@pytest.mark.slow
@quiet
@by_file
def test_xnnpack_differs_only_in_rounding(
    file: Path, brain: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each op by itself, on what XNNPACK has computed so far.

    Measured over both files: a convolution differs in up to 0.4 % of its values, by one step, or in
    a tenth where a channel's value over the background lies between two; a bilinear resize in those
    negative ones that do, up to 29 %; a sum, whose factors XNNPACK shortens, in a pixel or two.
    """
    content = file.read_bytes()
    graph = interpreter.load(content)
    for z in brain:
        x = quantize(z, graph.input.scale, graph.input.zero_point)[None]
        xnnpack = litert(content, x, XNNPACK)
        for op in graph.ops:
            given = [xnnpack.get_tensor(t.index) if t.data is None else t.data for t in op.inputs]
            compute, theirs = (
                interpreter.KERNELS[op.name].compute,
                xnnpack.get_tensor(op.output.index),
            )
            steps = abs(compute(op, *given).astype(int) - theirs)
            assert steps.max() <= (op.name in DIFFER)
            assert (steps > 0).mean() < DIFFER.get(op.name, 1)
            if op.name == "RESIZE_BILINEAR":
                with monkeypatch.context() as patch:
                    patch.setattr(kernels, "divide_by_power", ties_up)
                    np.testing.assert_array_equal(compute(op, *given), theirs)
            if op.name == "CONV_2D":
                by = op.inputs[0].scales * op.inputs[1].scales / op.output.scales  # in float32 too
                with monkeypatch.context() as patch:
                    patch.setattr(kernels, "to_multiplier", lambda _, by=by: by)
                    patch.setattr(kernels, "rescale", round_in_float32)
                    np.testing.assert_array_equal(compute(op, *given), theirs)


@pytest.mark.slow
@quiet
@by_file
def test_logits_of_xnnpack_differ_by_some_steps(file: Path, brain: NDArray[np.float32]) -> None:
    """Those single steps add up from op to op.

    Measured: up to 90 % of the logits differ, the largest by 16 steps; of some 1,900 pixels in a
    region, up to 24 are in it for one and not for the other.
    """
    content = file.read_bytes()
    graph = interpreter.load(content)
    zero = graph.output.zero_point
    for z in brain:
        x = quantize(z, graph.input.scale, graph.input.zero_point)[None]
        theirs = litert(content, x, XNNPACK).get_tensor(graph.output.index)
        ours = interpreter.run(graph, x)[graph.output.index]
        steps = abs(ours.astype(int) - theirs)
        assert 0 < steps.max() <= 20
        assert np.count_nonzero((ours > zero) != (theirs > zero)) <= 0.02 * np.sum(ours > zero)


@pytest.mark.slow
@pytest.mark.parametrize("sides", [(20, 28), (23, 17)])
def test_a_network_with_other_ops(sides: tuple[int, int]) -> None:
    """TensorFlow's conversion of concatenated skips, strides and dilations."""
    content = converted(sides)
    graph = interpreter.load(content)
    known = set(interpreter.KERNELS) - {"QUANTIZE", "RESIZE_BILINEAR"}
    assert {op.name for op in graph.ops} == known
    for seed in range(4):
        assert not differing(content, random_int8(np.random.default_rng(seed), graph.input.shape))


def converted(sides: tuple[int, int]) -> bytes:
    """An int8 file of a Keras network with random weights."""
    import tensorflow as tf

    layers, rng = tf.keras.layers, np.random.default_rng(0)

    def enlarged(low: "tf.Tensor", like: "tf.Tensor") -> "tf.Tensor":
        resize = tf.compat.v1.image.resize_nearest_neighbor
        return layers.Lambda(lambda t: resize(t, like.shape[1:3]))(low)

    tf.keras.utils.set_random_seed(0)
    same = {"padding": "same", "activation": "relu"}
    x = tf.keras.Input((*sides, 4), batch_size=1)
    a = layers.Conv2D(8, 3, **same)(x)
    b = layers.ZeroPadding2D(((1, 0), (2, 1)))(a)
    b = layers.Conv2D(10, 3, strides=2, activation="relu6")(b)
    b = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2, depth_multiplier=2)(b)
    c = layers.AveragePooling2D(2, padding="same")(b)
    c = layers.Conv2D(12, 3, dilation_rate=2, **same)(c)
    d = layers.Concatenate()([enlarged(c, b), b])
    d = layers.Conv2D(8, (3, 1), **same)(d)
    e = layers.Add()([enlarged(d, a), a])
    e = layers.Concatenate()([e, x, layers.MaxPooling2D(3, strides=1, padding="same")(a)])
    model = tf.keras.Model(x, layers.Conv2D(3, 1)(e))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: (
        [rng.normal(0, 1, (1, *sides, 4)).astype(np.float32)] for _ in range(8)
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    content: bytes = converter.convert()
    return content
