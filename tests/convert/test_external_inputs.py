"""Mistakes with an external network: one line of error, and nothing is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from convert.to_tflite import parse_shape
from glioslice.errors import GliosliceError
from tests.convert import external_networks
from tests.convert.commands import expect_error, files_in
from tests.convert.external_networks import images, onnx_of_any

HERE = "tests.convert.external_networks"
ErrorOf = Callable[..., str]


@pytest.fixture
def error_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> ErrorOf:
    """Run the command, which must fail, and return its line of error."""

    def run(*arguments: object) -> str:
        out = tmp_path / "out"
        expect_error(*arguments, "--out", out)
        assert files_in(out) == []
        [line] = capsys.readouterr().err.splitlines()
        return line

    return run


@pytest.fixture
def array(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", images())
    return tmp_path / "images.npy"


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return onnx_of_any(tmp_path / "net.onnx", external_networks.skips(), (3, 24, 32))


def edited(net: Path, change: Callable[[Any], object]) -> Path:
    model = onnx.load(str(net))
    change(model.graph)
    onnx.save(model, str(net))
    return net


@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("no.such.package:build", "cannot be imported (ModuleNotFoundError"),
        (f"{HERE}:nothing", "cannot be imported (AttributeError"),
        (HERE, "package.module:factory"),
        (f"{HERE}:broken", "making the network failed (RuntimeError: no weights here)"),
        (f"{HERE}:no_module", "makes int, not a torch module"),
        (f"{HERE}:nan", "weight holds NaN"),
        (f"{HERE}:Twice", "it returns tuple"),
        (f"{HERE}:pooled", "it does not take (1, 3, 24, 32)"),
    ],
)
def test_modules(error_of: ErrorOf, array: Path, factory: str, expected: str) -> None:
    assert expected in error_of("--module", factory, "--calibration", array)


def test_a_layer_that_breaks_is_named_before_conversion(error_of: ErrorOf, array: Path) -> None:
    line = error_of("--module", f"{HERE}:prelu", "--calibration", array, "--threshold", "0.1")
    assert "1 (PRelu)" in line
    assert "use ReLU" in line


def test_files_that_are_not_onnx(error_of: ErrorOf, array: Path, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"PK\x03\x04 a zip file")
    assert "not an ONNX model" in error_of("--onnx", tmp_path / "no.onnx", "--calibration", array)
    (tmp_path / "no.onnx").write_bytes(b"")
    assert "not an ONNX model" in error_of("--onnx", tmp_path / "no.onnx", "--calibration", array)
    assert "No such file" in error_of("--onnx", tmp_path / "none.onnx", "--calibration", array)


def rename_op(graph: Any) -> None:
    graph.node[0].op_type = "Foo"


def not_for_images(graph: Any) -> None:
    next(node for node in graph.node if node.op_type == "Relu").op_type = "Det"


def nan_weight(graph: Any) -> None:
    values = onnx.numpy_helper.to_array(graph.initializer[0]).copy()
    values.flat[0] = np.nan
    graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, graph.initializer[0].name))


def second_output(graph: Any) -> None:
    name = next(node for node in graph.node if node.op_type == "Relu").output[0]
    value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8, 24, 32])
    graph.output.append(value)


def flat_input(graph: Any) -> None:
    del graph.input[0].type.tensor_type.shape.dim[3]


def large_batch(graph: Any) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (rename_op, "Foo"),
        (not_for_images, "net.onnx"),
        (nan_weight, "holds NaN"),
        (second_output, "it has 2 outputs (y, "),
        (flat_input, "is not float32 of (1, channels, rows, columns)"),
        (large_batch, "batches of 4"),
    ],
)
def test_onnx_files(
    error_of: ErrorOf, array: Path, net: Path, change: Callable[[Any], object], expected: str
) -> None:
    line = error_of("--onnx", edited(net, change), "--calibration", array)
    assert expected in line
    assert line.count("net.onnx") == 1


def test_sizes_that_are_open_or_others(
    error_of: ErrorOf, array: Path, net: Path, tmp_path: Path
) -> None:
    file = onnx_of_any(tmp_path / "free.onnx", external_networks.skips(), (3, 24, 32), free=(2,))
    assert "(1, 3, open, 32)" in error_of("--onnx", file, "--calibration", array)
    arguments = ["--calibration", array, "--input-shape"]
    assert "leave --input-shape out" in error_of("--onnx", net, *arguments, "1,3,24,40")
    assert "expected 1,CHANNELS" in error_of("--onnx", net, *arguments, "3,24,40")


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"images": images(7)}, "holds 7 images; at least 8"),
        ({"images": images()[0]}, "expected float32 of (number, channels"),
        ({"images": images().astype(np.uint8)}, "images are uint8"),
        ({"images": np.where(images() > 4, np.inf, images())}, "NaN or infinite"),
        ({"images": images(shape=(4, 24, 32))}, "images are of (4, 24, 32)"),
        ({"pictures": images()}, "but no 'images'"),
        ({"images": images(), "masks": np.zeros((16, 24, 32))}, "masks are"),
        ({"images": images(), "masks": np.full((16, 2, 24, 32), 2)}, "masks are"),
        ({"images": images(), "masks": np.ones((16, 1, 24, 32), bool)}, "masks are of (1, 24, 32)"),
        (
            {"images": images(), "masks": np.zeros((16, 2, 24, 32), bool)},
            "masks of the evaluation images are empty",
        ),
    ],
)
def test_arrays(
    error_of: ErrorOf, net: Path, tmp_path: Path, arrays: dict[str, Any], expected: str
) -> None:
    np.savez(tmp_path / "array.npz", **arrays)
    assert expected in error_of("--onnx", net, "--calibration", tmp_path / "array.npz")


def test_files_that_are_not_arrays(error_of: ErrorOf, net: Path, tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 no zip", b"text"):
        (tmp_path / "array.npy").write_bytes(content)
        line = error_of("--onnx", net, "--calibration", tmp_path / "array.npy")
        assert "not a .npy or .npz" in line
    np.save(tmp_path / "array.npy", np.array([{}], dtype=object))
    assert "not a .npy or .npz" in error_of("--onnx", net, "--calibration", tmp_path / "array.npy")


def test_a_gate_that_could_not_fail_is_rejected(error_of: ErrorOf, net: Path, array: Path) -> None:
    arguments = ["--onnx", net, "--calibration", array]
    assert "a constant output would pass" in error_of(*arguments, "--threshold", "100")
    assert "a constant output would pass" in error_of(*arguments, "--min-agreement", "0.1")


def test_options_that_do_not_go_together(error_of: ErrorOf, net: Path, array: Path) -> None:
    both = error_of("--onnx", net, "--module", f"{HERE}:skips", "--calibration", array)
    assert "give one of them" in both
    assert "--calibration FILE.npy" in error_of("--onnx", net)
    assert "--data is for networks of glioslice" in error_of("--onnx", net, "--data", ".")
    assert "--calibration is for external networks" in error_of("nano", "--calibration", array)
    line = error_of("--onnx", net, "--calibration", array, "--target", "pi", "--precision", "fp16")
    assert "add int8 to --precision" in line
    assert "a target is one of pi" in error_of("--onnx", net, "--target", "tpu")


def test_input_shapes() -> None:
    assert parse_shape("1,3,160,192") == (3, 160, 192)
    for text in ("", "1,3,160", "2,3,160,160", "1,3,160,0", "1,a,2,2", "1,3,160,160,1"):
        with pytest.raises(GliosliceError, match="--input-shape"):
            parse_shape(text)
