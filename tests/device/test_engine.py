"""The engine runs our files and refuses all others with a clear message."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device.engine import Engine, load_interpreter
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256, write_json
from glioslice.model_card import shipped_folder
from tests.conftest import ROOT

PRODUCTS = (
    ("nano", "nano-int8.tflite"),
    ("nano", "nano-fp16.tflite"),
    ("compact", "compact-int8.tflite"),
)


def foreign(folder: Path, content: bytes) -> Path:
    """A model folder whose card lists `content`, whatever it is."""
    shutil.copy(shipped_folder("nano") / "card.json", folder)
    model = folder / "foreign.tflite"
    model.write_bytes(content)
    card = read_json(folder / "card.json")
    write_json(folder / "card.json", card | {"files": {model.name: {"sha256": sha256(model)}}})
    return model


@pytest.mark.parametrize(("size", "name"), PRODUCTS)
def test_shipped_files_fit_and_run(size: str, name: str) -> None:
    model = shipped_folder(size) / name
    assert model.stat().st_size <= 60_000
    engine = Engine(model)
    assert engine.runtime == "ai-edge-litert 2.3.0"  # what boards get
    regions = engine.run(np.zeros((160, 192, 4), np.float32))
    assert regions.shape == (3, 160, 192)
    assert regions.dtype == bool


def test_int8_input_is_quantized_and_fp16_input_is_not() -> None:
    z = np.random.default_rng(0).normal(0, 1, (160, 192, 4)).astype(np.float32)
    int8 = Engine(shipped_folder("nano") / "nano-int8.tflite")
    assert int8.prepare(z).dtype == np.int8
    np.testing.assert_allclose(
        (int8.prepare(z) - np.float32(int8.input.zero_point)) * int8.input.scale, z, atol=0.02
    )
    assert int8.input.scale == pytest.approx(10 / 255, rel=1e-3)
    np.testing.assert_array_equal(Engine(shipped_folder("nano") / "nano-fp16.tflite").prepare(z), z)


def test_threads_do_not_change_the_masks() -> None:
    z = np.random.default_rng(1).normal(0, 1, (160, 192, 4)).astype(np.float32)
    model = shipped_folder("compact") / "compact-int8.tflite"
    one, two = Engine(model, threads=1).run(z), Engine(model, threads=2).run(z)
    np.testing.assert_array_equal(one, two)


def test_a_file_that_is_not_tflite(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="not a TFLite file"):
        Engine(foreign(tmp_path, b"GIF89a, with some bytes more"))


def test_a_file_of_another_card(tmp_path: Path) -> None:
    model = foreign(tmp_path, (shipped_folder("nano") / "nano-int8.tflite").read_bytes())
    Engine(model)
    model.write_bytes((shipped_folder("compact") / "compact-int8.tflite").read_bytes())
    with pytest.raises(GliosliceError, match="SHA-256"):
        Engine(model)


def test_no_card(tmp_path: Path) -> None:
    shutil.copy(shipped_folder("nano") / "nano-int8.tflite", tmp_path)
    with pytest.raises(GliosliceError, match=r"no card\.json beside it"):
        Engine(tmp_path / "nano-int8.tflite")


def test_a_missing_delegate() -> None:
    with pytest.raises(GliosliceError, match=r"delegate libnothing\.so\.1 could not be loaded"):
        Engine(shipped_folder("nano") / "nano-int8.tflite", delegate="libnothing.so.1")


FAILING = """
void *tflite_plugin_create_delegate(char **k, char **v, int n, void (*report)(const char *)) {
  report("no device\\n"); return 0; }
void tflite_plugin_destroy_delegate(void *delegate) {}
"""


def test_a_library_that_is_not_a_delegate_and_one_without_its_accelerator(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, source in (("empty", ""), ("failing", FAILING)):
        (tmp_path / f"{name}.c").write_text(source)
        compiler = shutil.which("cc") or pytest.skip("no C compiler on this machine")
        command = [compiler, "-shared", "-fPIC", "-o", f"{name}.so", f"{name}.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
    messages = {
        "empty": "could not be loaded .*; install it",
        "failing": r"finds no .*no device",
    }
    for name, message in messages.items():
        with pytest.raises(GliosliceError, match=message):
            Engine(
                shipped_folder("nano") / "nano-int8.tflite", delegate=str(tmp_path / f"{name}.so")
            )
    assert "Traceback" not in capfd.readouterr().err


def test_output_of_the_runtime_is_logged_or_part_of_the_error(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Interpreter:
        def __init__(self, fails: bool) -> None:
            os.write(2, b"INFO: ready\nERROR: node 3 is odd\n")
            if fails:
                raise RuntimeError("refused")

        def allocate_tensors(self) -> None: ...

    module = type("module", (), {"Interpreter": Interpreter})
    monkeypatch.setattr("device.engine.installed_runtime", lambda: ("runtime 1.0", module))
    with caplog.at_level(logging.DEBUG, "device.engine"):
        load_interpreter(Path("m.tflite"), fails=False)
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.DEBUG, "INFO: ready"),
        (logging.WARNING, "ERROR: node 3 is odd"),
    ]
    assert "INFO: ready" not in capfd.readouterr().err
    with pytest.raises(GliosliceError, match=r"m\.tflite: .*refused.*node 3 is odd"):
        load_interpreter(Path("m.tflite"), fails=True)


def test_a_process_without_stderr_runs_the_engine() -> None:
    program = (
        "import os; os.close(2)\n"
        "from pathlib import Path; from device.engine import Engine\n"
        f"print(Engine(Path({str(shipped_folder('nano') / 'nano-int8.tflite')!r})).kernels)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "XNNPACK\n")


def keras_file(function: Any, shape: tuple[int, ...]) -> bytes:
    import tensorflow as tf

    inputs = tf.keras.Input(shape[1:], batch_size=1)
    model = tf.keras.Model(inputs, tf.keras.layers.Lambda(function)(inputs))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.allow_custom_ops = True
    content: bytes = converter.convert()
    return content


@pytest.mark.slow
def test_a_network_of_another_shape(tmp_path: Path) -> None:
    content = keras_file(lambda x: x[..., :3] * 2.0, (1, 64, 64, 4))
    with pytest.raises(GliosliceError, match=r"its input is float32 \(1, 64, 64, 4\)"):
        Engine(foreign(tmp_path, content))


@pytest.mark.slow
def test_an_op_that_the_runtime_lacks(tmp_path: Path) -> None:
    import tensorflow as tf

    content = keras_file(lambda x: tf.math.igamma(x, x)[..., :3], (1, 160, 192, 4))
    with pytest.raises(GliosliceError, match=r"refused by ai-edge-litert .*Igamma"):
        Engine(foreign(tmp_path, content))
