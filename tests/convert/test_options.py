"""What people may get wrong with a network that is not ours: one line, and nothing is written."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from convert import to_tflite
from convert.options import shape_of
from glioslice.errors import GliosliceError
from tests.convert import external_networks
from tests.convert.external_networks import images, onnx_of_any
from tests.convert.test_to_tflite import left

HERE = "tests.convert.external_networks"
Says = Callable[..., str]


@pytest.fixture
def says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Says:
    """Run the command, which must refuse, and return its one line."""

    def run(*arguments: object) -> str:
        out = tmp_path / "out"
        line = ["to_tflite.py", *map(str, arguments), "--out", str(out)]
        monkeypatch.setattr(sys, "argv", line)
        with pytest.raises(SystemExit) as ended:
            to_tflite.main()
        assert ended.value.code == 2
        assert left(out) == []
        [said] = capsys.readouterr().err.splitlines()
        return said

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
    ("factory", "said"),
    [
        ("no.such.package:build", "cannot be imported (ModuleNotFoundError"),
        (f"{HERE}:nothing", "cannot be imported (AttributeError"),
        (HERE, "expected package.module:factory"),
        (f"{HERE}:broken", "making the network failed (RuntimeError: no weights here)"),
        (f"{HERE}:no_module", "makes int, no torch module"),
        (f"{HERE}:nan", "weight holds NaN"),
        (f"{HERE}:Twice", "it gives tuple; let it give one tensor"),
        (f"{HERE}:pooled", "it does not take (1, 3, 24, 32)"),
    ],
)
def test_modules(says: Says, array: Path, factory: str, said: str) -> None:
    assert said in says("--module", factory, "--calibration", array)


def test_a_layer_that_breaks_is_named_before_conversion(says: Says, array: Path) -> None:
    line = says("--module", f"{HERE}:prelu", "--calibration", array, "--threshold", "0.1")
    assert "1 (PRelu)" in line
    assert "use ReLU" in line


def test_no_onnx_file(says: Says, array: Path, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"PK\x03\x04 a zip file")
    assert "no ONNX model" in says("--onnx", tmp_path / "no.onnx", "--calibration", array)
    (tmp_path / "no.onnx").write_bytes(b"")
    assert "no ONNX model" in says("--onnx", tmp_path / "no.onnx", "--calibration", array)
    assert "No such file" in says("--onnx", tmp_path / "none.onnx", "--calibration", array)


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
    ("change", "said"),
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
    says: Says, array: Path, net: Path, change: Callable[[Any], object], said: str
) -> None:
    line = says("--onnx", edited(net, change), "--calibration", array)
    assert said in line
    assert line.count("net.onnx") == 1


def test_sizes_that_are_open_or_others(says: Says, array: Path, net: Path, tmp_path: Path) -> None:
    file = onnx_of_any(tmp_path / "free.onnx", external_networks.skips(), (3, 24, 32), free=(2,))
    assert "(1, 3, open, 32)" in says("--onnx", file, "--calibration", array)
    asked = ["--calibration", array, "--input-shape"]
    assert "leave --input-shape out" in says("--onnx", net, *asked, "1,3,24,40")
    assert "expected 1,CHANNELS" in says("--onnx", net, *asked, "3,24,40")


@pytest.mark.parametrize(
    ("arrays", "said"),
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
            "nothing is in those that judge",
        ),
    ],
)
def test_arrays(says: Says, net: Path, tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "array.npz", **arrays)
    assert said in says("--onnx", net, "--calibration", tmp_path / "array.npz")


def test_what_is_no_array(says: Says, net: Path, tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04 no zip", b"text"):
        (tmp_path / "array.npy").write_bytes(content)
        line = says("--onnx", net, "--calibration", tmp_path / "array.npy")
        assert "no .npy or .npz" in line
    np.save(tmp_path / "array.npy", np.array([{}], dtype=object))
    assert "no .npy or .npz" in says("--onnx", net, "--calibration", tmp_path / "array.npy")


def test_a_gate_that_could_not_fail_is_refused(says: Says, net: Path, array: Path) -> None:
    asked = ["--onnx", net, "--calibration", array]
    assert "so a file that always says so would pass" in says(*asked, "--threshold", "100")
    assert "so a file that always says so would pass" in says(*asked, "--min-agreement", "0.1")


def test_options_that_do_not_go_together(says: Says, net: Path, array: Path) -> None:
    both = says("--onnx", net, "--module", f"{HERE}:skips", "--calibration", array)
    assert "give one of them" in both
    assert "--calibration FILE.npy" in says("--onnx", net)
    assert "--data is for networks of this kit" in says("--onnx", net, "--data", ".")
    assert "--calibration is for --onnx" in says("run", "--calibration", array)
    line = says("--onnx", net, "--calibration", array, "--target", "pi", "--precision", "fp16")
    assert "add int8 to --precision" in line
    assert "a target is one of pi" in says("--onnx", net, "--target", "tpu")


def test_shapes() -> None:
    assert shape_of("1,3,160,192") == (3, 160, 192)
    for text in ("", "1,3,160", "2,3,160,160", "1,3,160,0", "1,a,2,2", "1,3,160,160,1"):
        with pytest.raises(GliosliceError, match="--input-shape"):
            shape_of(text)
