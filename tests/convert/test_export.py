import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from convert import export as module
from convert.export import REDUCED_PRECISION, export, fold_thresholds
from convert.pack import pack
from convert.tflite.reader import read_model
from convert.tflite.writer import serialize
from convert.to_tflite import TARGETS
from convert.verify.graph_checks import check_graph, read_graph
from glioslice.errors import GliosliceError
from tests.convert.conftest import WINDOW, random_network
from training.network import NetworkConfig, UNet

OPS = {"CONV_2D", "MAX_POOL_2D", "ADD", "RESIZE_NEAREST_NEIGHBOR"}


def changed(content: bytes, **options: bool) -> bytes:
    """The file with options of its resizes changed."""
    model = read_model(content)
    for operator in model.subgraphs[0].operators:
        for name, value in options.items():
            if hasattr(operator.builtinOptions, name):
                setattr(operator.builtinOptions, name, value)
    return serialize(model)


@torch.no_grad()
def test_thresholds_are_folded_into_the_sign() -> None:
    network = random_network((4, 6))
    thresholds = (0.3, 0.5, 0.8)
    slices = torch.randn(2, 4, *WINDOW)
    above = torch.sigmoid(network(slices)) > torch.tensor(thresholds).view(1, 3, 1, 1)
    plain = torch.sigmoid(network(slices)) > 0.5
    assert (above != plain).float().mean() > 0.01  # otherwise the test would prove nothing
    folded = fold_thresholds(network, thresholds)(slices) > 0
    assert (folded == above).float().mean() > 0.9999  # rounding may move a pixel


@torch.no_grad()
def test_folding_leaves_the_network_alone() -> None:
    network = random_network((4, 6))
    slices = torch.randn(1, 4, *WINDOW)
    before = network(slices)
    fold_thresholds(network, (0.2, 0.2, 0.2))
    torch.testing.assert_close(network(slices), before, rtol=0, atol=0)


@pytest.mark.parametrize("thresholds", [(0.5, 0.5), (0.5, 0.5, 1.0), (0.0, 0.5, 0.5)])
def test_thresholds_must_be_probabilities(thresholds: tuple[float, ...]) -> None:
    with pytest.raises(GliosliceError, match="thresholds"):
        fold_thresholds(random_network((4, 6)), thresholds)


@pytest.mark.slow
def test_the_graph_has_only_expected_ops(exported: dict[str, bytes]) -> None:
    for precision, content in exported.items():
        graph = check_graph(content, precision, WINDOW, 4)
        assert set(graph.names) - {"DEQUANTIZE"} == OPS
        assert graph.output.shape == (1, *WINDOW, 3)
    assert set(read_graph(exported["int8"]).names) == OPS
    assert read_graph(exported["int8"]).output.dtype == "INT8"


@pytest.mark.slow
def test_fp16_may_not_compute_in_half_precision(exported: dict[str, bytes]) -> None:
    assert REDUCED_PRECISION not in exported["fp16"]


@pytest.mark.slow
def test_the_input_step_is_that_of_the_clip_range(exported: dict[str, bytes]) -> None:
    given = read_graph(exported["int8"]).input
    assert given.scale == pytest.approx(10 / 255, rel=1e-6)
    assert given.zero_point in (-1, 0)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["halfPixelCenters", "alignCorners"])
def test_another_kind_of_resize_is_rejected(exported: dict[str, bytes], form: str) -> None:
    check_graph(changed(exported["int8"]), "int8", WINDOW, 4)
    with pytest.raises(GliosliceError, match="half-pixel"):
        check_graph(changed(exported["int8"], **{form: True}), "int8", WINDOW, 4)


@pytest.mark.slow
def test_foreign_ops_shapes_and_types_are_rejected(exported: dict[str, bytes]) -> None:
    with pytest.raises(GliosliceError, match="DEQUANTIZE"):
        check_graph(exported["fp16"], "fp32", WINDOW, 4)
    with pytest.raises(GliosliceError, match="expected INT8"):
        check_graph(exported["fp32"], "int8", WINDOW, 4)
    with pytest.raises(GliosliceError, match="32, 48, 3"):
        check_graph(exported["fp32"], "fp32", WINDOW, 3)


@pytest.mark.slow
def test_the_same_network_gives_the_same_bytes(
    exported: dict[str, bytes], samples: NDArray[np.float32]
) -> None:
    again = export(fold_thresholds(random_network((4, 6)), (0.5, 0.5, 0.5)), WINDOW, samples)
    assert {p: pack(c) for p, c in again.items()} == {p: pack(c) for p, c in exported.items()}


def test_the_tools_are_quiet_until_one_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], samples: NDArray[np.float32]
) -> None:
    def fail(onnx: Path, calibration: NDArray[np.float32], folder: Path) -> None:
        print("noise")
        print("no such op: PRelu", file=sys.stderr)
        sys.exit(1)  # as onnx2tf does

    monkeypatch.setattr(module, "_to_tensorflow", fail)
    with pytest.raises(GliosliceError, match=r"no such op: PRelu.*full log: (.*)\)") as caught:
        export(fold_thresholds(random_network((4, 6)), (0.5,) * 3), WINDOW, samples)
    print("and back")
    assert capfd.readouterr().out == "and back\n"
    log = Path(str(caught.value).split("full log: ")[1].rstrip(")"))
    assert "noise" in log.read_text()
    log.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("stem", [1, 2])
def test_bilinear_upsampling_is_one_op_that_xnnpack_and_the_edge_tpu_take(stem: int) -> None:
    torch.manual_seed(0)
    network = UNet(NetworkConfig((4, 6, 8), upsampling="bilinear", stem=stem)).eval()
    slices = np.random.default_rng(0).normal(size=(4, *WINDOW, 4)).astype(np.float32)
    files = export(fold_thresholds(network, (0.5,) * 3), WINDOW, slices)
    for precision, content in files.items():
        graph = check_graph(pack(content), precision, WINDOW, 4)
        assert graph.names.count("RESIZE_BILINEAR") == 1 + stem  # the logits' is one more
        assert graph.names.count("PAD") == stem - 1
    for target in ("pi", "coral"):
        assert TARGETS[target](pack(files["int8"]), "tiny").ok
    interpreter = Interpreter(model_content=files["fp32"])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], slices[:1])
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    with torch.no_grad():
        wanted = network(torch.from_numpy(slices[:1]).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
