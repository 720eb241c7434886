from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from convert.onnx_model import make_runner, node_label, onnx_steps, prepare_onnx, read_onnx
from convert.verify.graph_checks import check_nodes
from convert.verify.parity import torch_steps
from glioslice.errors import GliosliceError
from tests.convert import external_networks
from tests.convert.external_networks import images, onnx_of_any


@pytest.mark.parametrize(
    ("name", "op", "called"),
    [
        ("/encoder/encoder.0/encoder.0.1/Conv", "Conv", "encoder.0.1"),
        ("/encoder/encoder.0/act/Relu", "Relu", "encoder.0.act"),
        ("/Concat_1", "Concat", "Concat_1"),
        ("Conv_12", "Conv", "Conv_12"),
        ("", "Conv", "made"),
    ],
)
def test_nodes_are_labelled_by_their_torch_module(name: str, op: str, called: str) -> None:
    assert node_label(onnx.helper.make_node(op, ["a"], ["made"], name=name)) == called


def test_a_prepared_model_computes_what_the_network_does(tmp_path: Path) -> None:
    network, given = external_networks.skips(), images(1)
    file = onnx_of_any(tmp_path / "net.onnx", network, (3, 24, 32), free=(0, 2, 3))
    model, sizes = prepare_onnx(read_onnx(file), (3, 24, 32))
    assert sizes == (3, 24, 32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(given)).numpy()
    np.testing.assert_allclose(make_runner(model)(given), wanted, atol=1e-5)
    shape = [d.dim_value for d in model.graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, 2, 24, 32]


def test_steps_equal_those_of_torch(tmp_path: Path) -> None:
    network, given = external_networks.skips(), np.moveaxis(images(2), 1, -1)
    file = onnx_of_any(tmp_path / "net.onnx", network, (3, 24, 32))
    model, _ = prepare_onnx(read_onnx(file), None)
    made = onnx_steps(model, given)[1]
    assert [step.names for step in made if step.weighted] == [
        ("top.0",), ("low.0",), ("join.0",), ("head",)
    ]  # fmt: skip
    outputs = {step.names[0]: step.output for step in torch_steps(network, given)[1]}
    np.testing.assert_allclose(made[0].output, outputs["top.0"], atol=1e-5)
    np.testing.assert_allclose(made[-1].output, outputs["head"], atol=1e-5)


@pytest.mark.parametrize(
    ("network", "shape", "kind", "breaks"),
    [
        (torch.nn.Sequential(torch.nn.PReLU()), (3, 8, 8), "PRelu", True),
        (torch.nn.Sequential(torch.nn.InstanceNorm2d(3)), (3, 8, 8), "InstanceNorm", True),
        (torch.nn.Sequential(torch.nn.Hardswish()), (3, 8, 8), "HardSwish", False),
        (torch.nn.ConvTranspose2d(4, 4, 2, groups=2), (4, 8, 8), "ConvTranspose", False),
        (torch.nn.Conv2d(4, 8, 3, groups=4), (4, 8, 8), "Conv", False),
    ],
)
def test_unsupported_nodes_are_rejected_and_costly_ones_give_a_warning(
    network: torch.nn.Module, shape: tuple[int, ...], kind: str, breaks: bool, tmp_path: Path
) -> None:
    model = read_onnx(onnx_of_any(tmp_path / "net.onnx", network.eval(), shape))
    if breaks:
        with pytest.raises(GliosliceError, match=rf"\({kind}.*use "):
            check_nodes(model)
    else:
        [warning] = check_nodes(model)
        assert f"({kind})" in warning
        assert "; use " in warning


def test_plain_nodes_pass(tmp_path: Path) -> None:
    model = read_onnx(onnx_of_any(tmp_path / "net.onnx", external_networks.skips(), (3, 24, 32)))
    assert check_nodes(model) == ()
    grouped = torch.nn.Conv2d(4, 8, 3, groups=2)
    assert check_nodes(read_onnx(onnx_of_any(tmp_path / "g.onnx", grouped, (4, 8, 8)))) == ()
