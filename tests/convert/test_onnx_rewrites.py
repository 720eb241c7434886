"""Foreign networks that the converter misreads: rewritten, they compute the same and convert."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from convert.calibration import check_images
from convert.external_model import load_onnx, make_external_model
from convert.onnx_model import make_runner, prepare_onnx, read_onnx
from convert.onnx_rewrites import ChannelsLast, rewrite
from convert.to_tflite import convert
from convert.verify.acceptance import STANDARD, Limits
from glioslice.errors import GliosliceError
from tests.convert import external_networks
from tests.convert.external_networks import images, onnx_of_any

SHAPE = (3, 24, 32)


class Chain(nn.Module):
    """A convolution, with or without ReLU, whatever `middle` does, and a head."""

    def __init__(self, middle: nn.Module, activation: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.head = nn.Conv2d(3, 8, 3), middle, nn.Conv2d(8, 2, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        made: Tensor = self.head(self.middle(torch.relu(x) if self.activation else x))
        return made


class Scaled(nn.Module):
    """A residual block scaled by a number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * torch.relu(self.inner(x))


def centred(network: nn.Module) -> nn.Module:
    network.eval()
    with torch.no_grad():
        made = network(torch.from_numpy(images())).movedim(1, -1)
        network.head.bias -= made.flatten(0, -2).median(0).values  # type: ignore[union-attr]
    return network


def channels_last(path: Path, change: Callable[[Any], None] | None = None) -> Path:
    """Write the network as tf2onnx makes it of a Keras network."""
    model = onnx.load(str(path))
    graph = model.graph
    made = graph.output[0].name
    first = helper.make_node("Transpose", ["x"], [graph.input[0].name], perm=[0, 3, 1, 2])
    last = helper.make_node("Transpose", [made], ["Identity:0"], perm=[0, 2, 3, 1])
    graph.node.insert(0, first)
    graph.node.append(last)
    del graph.input[:], graph.output[:]
    batch: list[str | int | None] = ["batch", 24, 32, 3]
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, batch))
    output = helper.make_tensor_value_info("Identity:0", TensorProto.FLOAT, ["b", 24, 32, 2])
    graph.output.append(output)
    if change is not None:
        change(graph)
    onnx.save(model, str(path.with_name("last.onnx")))
    return path.with_name("last.onnx")


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return onnx_of_any(tmp_path / "first.onnx", external_networks.skips(), SHAPE)


def test_channels_last_become_channels_first(first: Path) -> None:
    one, other = load_onnx(first, None), load_onnx(channels_last(first), None)
    assert other.channels_last == ChannelsLast(input=True, output=True)
    assert one.channels_last == ChannelsLast()
    assert one.shape == other.shape == SHAPE
    batch = images(1)
    np.testing.assert_array_equal(other.run(batch), one.run(batch))
    np.testing.assert_array_equal(make_runner(other.model)(batch), one.run(batch))
    assert "Transpose" not in {node.op_type for node in other.model.graph.node}


def test_images_and_masks_of_channels_last_networks_in_either_order(first: Path) -> None:
    network = load_onnx(channels_last(first), None)
    given = images()
    masks = np.stack([network.run(one[None])[0] > 0 for one in given])
    own = check_images(np.moveaxis(given, 1, -1), np.moveaxis(masks, 1, -1), "own.npz")
    source = make_external_model(network, own, 0.0, STANDARD)
    np.testing.assert_array_equal(source.samples.images, given)
    assert source.samples.masks is not None
    np.testing.assert_array_equal(source.samples.masks, masks)
    other = make_external_model(network, check_images(given, None, "a.npy"), 0.0, STANDARD)
    np.testing.assert_array_equal(other.samples.images, given)


def scale_first(graph: Any) -> None:
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(2, np.float32), "two"))
    graph.node.insert(0, helper.make_node("Mul", ["x", "two"], ["scaled"]))
    graph.node[1].input[0] = "scaled"


def sigmoid_last(graph: Any) -> None:
    graph.node[-1].output[0] = "moved"
    graph.node.append(helper.make_node("Softmax", ["moved"], ["Identity:0"], axis=-1))


@pytest.mark.parametrize(
    ("change", "named"), [(scale_first, "its input"), (sigmoid_last, "its output")]
)
def test_channels_that_are_moved_elsewhere_are_refused(
    first: Path, change: Callable[[Any], None], named: str
) -> None:
    with pytest.raises(GliosliceError, match=f"last.onnx: {named} .* channels last.*first"):
        load_onnx(channels_last(first, change), None)


def test_a_single_channel_that_is_reshaped(tmp_path: Path) -> None:
    path = onnx_of_any(tmp_path / "one.onnx", external_networks.pooled(), (1, 24, 32))
    model = onnx.load(str(path))
    graph = model.graph
    shape = np.array([-1, 1, 24, 32])
    graph.initializer.append(onnx.numpy_helper.from_array(shape, "to"))
    graph.node.insert(0, helper.make_node("Reshape", ["x", "to"], [graph.input[0].name]))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 24, 32, 1]))
    onnx.save(model, str(path))
    network = load_onnx(path, None)
    assert network.shape == (1, 24, 32)
    assert network.channels_last == ChannelsLast(input=True)


POOLS = {
    "padded": nn.MaxPool2d(3, 2, padding=1),
    "ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "both": nn.MaxPool2d(5, 3, padding=2, ceil_mode=True),
    "dilated": nn.MaxPool2d(3, 1, padding=1, dilation=2),
    "plain": nn.MaxPool2d(2, 2),
}


def pooled_model(path: Path, pool: nn.Module, activation: bool) -> tuple[Any, Any]:
    onnx_of_any(path, Chain(pool, activation).eval(), SHAPE)
    model, _ = prepare_onnx(read_onnx(path), None)
    return model, rewrite(model)[0]


@pytest.mark.parametrize("activation", [True, False])
@pytest.mark.parametrize("name", list(POOLS))
def test_pooling_with_padding_computes_the_same(
    tmp_path: Path, name: str, activation: bool
) -> None:
    model, rewritten = pooled_model(tmp_path / "pool.onnx", POOLS[name], activation)
    batch = images(1)
    np.testing.assert_array_equal(make_runner(rewritten)(batch), make_runner(model)(batch))
    ops = [node.op_type for node in rewritten.graph.node]
    if name == "plain" or (name == "dilated" and not activation):
        assert not {"Pad", "Slice"} & set(ops)
        return
    assert ("Pad" in ops) == activation
    [pool] = [node for node in rewritten.graph.node if node.op_type == "MaxPool"]
    assert not {"pads", "ceil_mode"} & {attribute.name for attribute in pool.attribute}


def test_constants_are_computed(tmp_path: Path) -> None:
    network = Chain(nn.ReflectionPad2d(1)).eval()  # torch computes the amounts in six nodes
    path = onnx_of_any(tmp_path / "reflect.onnx", network, SHAPE)
    model, _ = prepare_onnx(read_onnx(path), None)
    rewritten, _ = rewrite(model)
    [pad] = [node for node in rewritten.graph.node if node.op_type == "Pad"]
    assert pad.input[1] in {tensor.name for tensor in rewritten.graph.initializer}
    assert len(rewritten.graph.node) < len(model.graph.node)
    batch = images(1)
    np.testing.assert_array_equal(make_runner(rewritten)(batch), make_runner(model)(batch))


@pytest.mark.slow
def test_layers_that_stopped_the_converter_are_converted(tmp_path: Path) -> None:
    middle = nn.Sequential(POOLS["padded"], Scaled(), nn.ReflectionPad2d(1))
    network, given = centred(Chain(middle)), images()
    with torch.no_grad():
        masks = network(torch.from_numpy(given)).numpy() > 0
    limits = Limits(max_drop=0.02)  # random weights lose more than trained ones
    out = convert(network, tmp_path / "out", images=given, masks=masks, limits=limits)
    assert {path.name for path in out.glob("*.tflite")} == {
        "chain-fp16.tflite", "chain-int8.tflite"
    }  # fmt: skip


@pytest.mark.slow
def test_channels_last_convert_to_the_bytes_of_channels_first(first: Path, tmp_path: Path) -> None:
    given = images()
    with torch.no_grad():
        masks = external_networks.skips()(torch.from_numpy(given)).numpy() > 0
    one = convert(first, tmp_path / "one", images=given, masks=masks)
    other = convert(
        channels_last(first), tmp_path / "other",
        images=np.moveaxis(given, 1, -1), masks=np.moveaxis(masks, 1, -1),
    )  # fmt: skip
    files = [(out / f"{name}-int8.tflite").read_bytes() for out, name in
             ((one, "first"), (other, "last"))]  # fmt: skip
    assert files[0] == files[1]


def test_a_network_in_training_mode_is_named(tmp_path: Path) -> None:
    path = tmp_path / "training.onnx"
    torch.onnx.export(
        external_networks.skips(), (torch.zeros(1, *SHAPE),), str(path), dynamo=False,
        opset_version=17, training=torch.onnx.TrainingMode.TRAINING, do_constant_folding=False,
    )  # fmt: skip
    samples = check_images(images(), None, "a.npy")
    with pytest.raises(GliosliceError, match=r"top\.1 \(BatchNormalization\).*network.eval"):
        make_external_model(load_onnx(path, None), samples, 0.0, STANDARD)
