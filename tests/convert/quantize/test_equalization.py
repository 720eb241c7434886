import numpy as np
import pytest
from numpy.typing import NDArray

from convert.quantize.equalization import equalize
from convert.tflite.editor import constant
from convert.tflite.interpreter import output_values, tensor_values
from convert.tflite.reader import read_model
from tests.convert.conftest import WINDOW, random_network
from tests.convert.float_files import FloatFile, of_unet

SLICES = np.random.default_rng(0).normal(0, 1, (6, *WINDOW, 4)).astype(np.float32)


def widened(factor: float = 50.0) -> bytes:
    """A U-Net's file with a channel of its skip `factor` times too wide, of the same function."""
    network = random_network((4, 6))
    parts = network.state_dict(keep_vars=True)
    for norm in ("encoder.0.1.1", "lift.0.1"):  # of the skip, and of what it is added to
        parts[f"{norm}.weight"].data[2] *= factor
        parts[f"{norm}.bias"].data[2] *= factor
    for convolution in ("decoder.0.0", "encoder.1.0.0"):
        parts[f"{convolution}.weight"].data[:, 2] /= factor
    return of_unet(network, WINDOW)


def widths(content: bytes, slices: NDArray[np.float32] = SLICES) -> dict[int, float]:
    """The widest channel over the median one, for each tensor."""
    peaks: dict[int, NDArray[np.float32]] = {}
    for values in tensor_values(content, slices):
        for index, of in values.items():
            top = np.abs(of).max(axis=(0, 1, 2))
            peaks[index] = np.maximum(peaks.get(index, top), top)
    return {index: float(top.max() / np.median(top[top > 0])) for index, top in peaks.items()}


def test_the_float_network_computes_the_same_bits() -> None:
    content = widened()
    even = equalize(content, SLICES)
    assert even != content
    np.testing.assert_array_equal(output_values(even, SLICES), output_values(content, SLICES))


def test_a_wide_channel_of_a_skip_is_made_small() -> None:
    before, after = widths(widened()), widths(equalize(widened(), SLICES))
    skips = [index for index, width in before.items() if width > 20]
    assert len(skips) >= 4  # the skip, its pooled form, what is lifted, their sum
    assert all(after[index] < 8 for index in skips)


def test_weights_keep_their_precision() -> None:
    """A column of weights far below the others of its row would be rounded away in their place."""

    def smallest(content: bytes) -> float:
        model = read_model(content)
        found = []
        for operator in (o for o in model.subgraphs[0].operators if len(o.inputs) == 3):
            values = constant(model, model.subgraphs[0].tensors[operator.inputs[1]])
            assert values is not None
            rows = np.abs(values).max(axis=(1, 2))
            found.append(float((rows / rows.max(axis=1, keepdims=True)).max(axis=0).min()))
        return min(found)

    assert smallest(widened()) < 1 / 40
    assert smallest(equalize(widened(), SLICES)) > 1 / 10


def test_an_even_network_is_left_as_it_is() -> None:
    made = FloatFile((8, 8, 2))
    x = made.conv(made.input, np.eye(2).reshape(2, 1, 1, 2), [6, 6])
    content = made.file(made.conv(x, np.ones((1, 1, 1, 2)), [0], relu=False))
    slices = np.random.default_rng(0).uniform(-5, 5, (3, 8, 8, 2)).astype(np.float32)
    even = equalize(content, slices)
    for one, other in zip(read_model(content).buffers, read_model(even).buffers, strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def test_concatenated_skips_have_factors_of_their_own() -> None:
    made = FloatFile((8, 8, 2))
    one = np.eye(2).reshape(2, 1, 1, 2)
    wide = made.conv(made.input, 64 * one, [0, 0])
    small = made.conv(made.input, one, [0, 0])
    last = np.array([[1, 1, 64, 64]]).reshape(1, 1, 1, 4) / 64
    content = made.file(made.conv(made.concat(wide, small), last, [0], relu=False))
    slices = np.random.default_rng(0).normal(0, 1, (3, 8, 8, 2)).astype(np.float32)
    even = equalize(content, slices)
    np.testing.assert_array_equal(output_values(even, slices), output_values(content, slices))
    values = next(tensor_values(even, slices))
    assert float(values[wide].max() / values[small].max()) == pytest.approx(1, rel=1.1)


def test_ops_that_may_not_pass_factors_keep_their_channels() -> None:
    made = FloatFile((8, 8, 2))
    x = made.conv(made.input, [[[[64.0, 0]]], [[[0, 1.0]]]], [0, 0], relu=False)
    y = made.prelu(x, [0.1, 0.2])
    content = made.file(made.conv(y, [[[[1 / 64, 1.0]]]], [0], relu=False))
    slices = np.random.default_rng(0).normal(0, 1, (3, 8, 8, 2)).astype(np.float32)
    even = equalize(content, slices)
    before, after = next(tensor_values(content, slices)), next(tensor_values(even, slices))
    np.testing.assert_array_equal(before[x], after[x])
    np.testing.assert_array_equal(output_values(even, slices), output_values(content, slices))


def test_input_and_output_keep_their_channels() -> None:
    made = FloatFile((8, 8, 2))
    x = made.conv(made.input, [[[[1 / 64, 1.0]]], [[[1 / 64, -1.0]]]], [0, 0])
    content = made.file(made.conv(x, [[[[1.0, 0]]], [[[0, 64.0]]]], [0, 0], relu=False))
    slices = np.random.default_rng(0).normal(0, 1, (3, 8, 8, 2)).astype(np.float32)
    slices[..., 0] *= 64
    even = equalize(content, slices)
    np.testing.assert_array_equal(output_values(even, slices), output_values(content, slices))


def test_dead_channels_stay_dead() -> None:
    made = FloatFile((4, 4, 1))
    x = made.conv(made.input, [[[[1.0]]], [[[0.0]]]], [0, 0])
    content = made.file(made.conv(x, [[[[1.0, 1.0]]]], [0], relu=False))
    slices = np.ones((1, 4, 4, 1), np.float32)
    np.testing.assert_array_equal(output_values(equalize(content, slices), slices), slices)
