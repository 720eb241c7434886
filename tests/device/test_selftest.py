"""The self-test passes on what boards run, and fails on whatever is not that."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import ai_edge_litert.interpreter as litert
import numpy as np
import pytest

from device import engine as engine_module
from device import selftest
from device.delegates import Placement
from device.engine import BUILT_IN, Engine
from device.goldens import GOLDENS, golden_slices, read_goldens, write_goldens
from glioslice.files import read_json, sha256, write_json
from glioslice.model_card import CARD, shipped
from tests.device.conftest import MODEL

Command = Callable[..., tuple[int, str]]
WINDOW = (160, 192)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command; its exit code, and what it says."""

    def run(*words: object) -> tuple[int, str]:
        code = 0
        try:
            selftest.main([str(word) for word in words])
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capfd.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder that a test may damage."""
    shutil.copytree(shipped("nano"), tmp_path / "nano", ignore=shutil.ignore_patterns("compare"))
    return tmp_path / "nano" / MODEL


def bind(model: Path) -> None:
    """Let the card list the file as it is now."""
    card = read_json(model.parent / CARD)
    card["files"][model.name]["sha256"] = sha256(model)
    write_json(model.parent / CARD, card)


def flip_a_bit(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def test_all_passes_on_the_runtime_that_boards_get(command: Command, tmp_path: Path) -> None:
    code, said = command("--model", shipped("nano") / MODEL, "--json", tmp_path / "found.json")
    assert code == 0, said
    assert said.count("\nok ") == 4
    assert "XNNPACK: 5 of 5 slices, byte for byte" in said
    assert "ai-edge-litert 2.3.0, reference: 1 of 1 slices, byte for byte" in said
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["passed"] and [f["passed"] for f in told["findings"]] == [True] * 4
    assert {"temperature_c", "clock_mhz", "throttled"} <= set(told)


def test_tflite_runtime_passes_by_the_reference_kernels(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RUNTIMES", engine_module.RUNTIMES[1:])
    code, said = command("--model", shipped("nano") / MODEL)
    assert code == 0, said
    assert "tflite-runtime 2.14.0, built-in has none; 0 pixels differ" in said
    assert "tflite-runtime 2.14.0, reference: 1 of 1 slices, byte for byte" in said


def test_a_flipped_bit_of_the_model(command: Command, model: Path) -> None:
    flip_a_bit(model)
    code, said = command("--model", model)
    assert code == 1
    assert "FAILED  model:" in said and "changed or damaged" in said
    assert "self-test FAILED" in said and "golden masks" not in said


def test_a_flipped_bit_of_which_the_card_knows(command: Command, model: Path) -> None:
    flip_a_bit(model)
    bind(model)
    code, said = command("--model", model)
    assert code == 1
    assert "FAILED  golden masks: those beside nano-int8.tflite were made of another file" in said


def test_a_changed_golden(command: Command, model: Path) -> None:
    goldens = read_goldens(model.parent, WINDOW)
    masks = {source: made.copy() for source, made in goldens.masks.items()}
    masks["ai-edge-litert 2.3.0, XNNPACK"][0, 3, 4] ^= 1
    write_goldens(model.parent, replace(goldens, masks=masks))
    code, said = command("--model", model)
    assert code == 1
    assert "XNNPACK: 1 pixels of 1 slices are not the golden ones" in said
    assert "ok      reference mask" in said


def test_an_interpreter_without_xnnpack(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(**options: Any) -> Any:
        kernels = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return litert.Interpreter(**{**options, "experimental_op_resolver_type": kernels})

    module = SimpleNamespace(Interpreter=bare, OpResolverType=litert.OpResolverType)
    monkeypatch.setattr(
        engine_module, "installed_runtime", lambda: ("ai-edge-litert 2.3.0", module)
    )
    fallen = selftest.check_kernels(Engine(shipped("nano") / MODEL), None)
    assert fallen.passed is False
    assert "kernels built-in, 0 of 24 ops taken in 0 parts" in fallen.text
    assert selftest.check_kernels(engine, None).passed


def test_a_delegate_that_takes_nothing_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = selftest.check_kernels(engine, "libedgetpu.so.1")
    assert finding.passed is False and "libedgetpu.so.1 took nothing" in finding.text
    took = Placement(ops=1, left=(), places=(), parts=1, compiled=1)
    monkeypatch.setattr(engine, "placement", lambda: took)
    assert selftest.check_kernels(engine, "libedgetpu.so.1").passed
    monkeypatch.setattr(engine, "placement", lambda: replace(took, left=("edgetpu-custom-op",)))
    assert selftest.check_kernels(engine, "libedgetpu.so.1").passed is False


@pytest.mark.parametrize(("pixels", "passed"), [(1, True), (500, False)])
def test_kernels_without_goldens_may_differ_a_little(
    pixels: int, passed: bool, engine: Engine
) -> None:
    goldens = read_goldens(shipped("nano"), WINDOW)
    masks = iter(goldens.masks["reference"])

    def invoke(_: object) -> Any:
        labels = next(masks).copy()
        labels.flat[: pixels // 5 + 1] ^= 3
        return np.stack([labels > 0, (labels == 1) | (labels == 3), labels == 3])

    other = SimpleNamespace(
        kernels=BUILT_IN, runtime="another 1.0", invoke=invoke, regions=lambda logits: logits
    )
    finding = selftest.check_masks(cast(Engine, other), goldens, golden_slices(engine))
    assert finding.passed is passed
    assert "another 1.0, built-in has none" in finding.text


def test_a_float_file_has_no_goldens(command: Command) -> None:
    code, said = command("--model", shipped("nano") / "nano-fp16.tflite")
    assert code == 0
    assert "not run golden masks: a float file has none" in said


@pytest.mark.parametrize(
    ("goldens", "line"),
    [
        (None, "goldens.json: no such file"),
        ("{}", "goldens.json: malformed (KeyError('masks'))"),
        ('{"file": "f", "sha256": "0", "masks": {"reference": ["AAAA"]}}', "malformed"),
    ],
)
def test_what_is_not_there_is_bad_input(
    goldens: str | None, line: str, command: Command, model: Path
) -> None:
    (model.parent / GOLDENS).unlink()
    if goldens:
        (model.parent / GOLDENS).write_text(goldens)
    code, said = command("--model", model)
    assert code == 2 and line in said


def test_no_model_is_bad_input(command: Command, tmp_path: Path) -> None:
    code, said = command("--model", tmp_path / "none.tflite")
    assert code == 2
    assert said.splitlines()[-1] == f"error: {tmp_path}/none.tflite: no such model file"
