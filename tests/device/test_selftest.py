"""The self-test passes on what boards run, and fails on anything else."""

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
from device.engine import BUILT_IN, DelegateReport, Engine
from device.goldens import GOLDENS, golden_slices, read_goldens, write_goldens
from glioslice.files import read_json, sha256, write_json
from glioslice.model_card import CARD, shipped_folder
from tests.device.conftest import MODEL

Command = Callable[..., tuple[int, str]]
WINDOW = (160, 192)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command; return its exit code and its output."""

    def run(*options: object) -> tuple[int, str]:
        code = 0
        try:
            selftest.main([str(option) for option in options])
        except SystemExit as ended:
            code = int(ended.code or 0)
        output = capfd.readouterr()
        return code, output.out + output.err

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder that a test may damage."""
    shutil.copytree(
        shipped_folder("nano"), tmp_path / "nano", ignore=shutil.ignore_patterns("compare")
    )
    return tmp_path / "nano" / MODEL


def update_card(model: Path) -> None:
    """Make the card list the file as it is now."""
    card = read_json(model.parent / CARD)
    card["files"][model.name]["sha256"] = sha256(model)
    write_json(model.parent / CARD, card)


def flip_a_bit(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def test_the_runtime_of_boards_passes(command: Command, tmp_path: Path) -> None:
    code, output = command(
        "--model", shipped_folder("nano") / MODEL, "--json", tmp_path / "found.json"
    )
    assert code == 0, output
    assert output.count("\nok ") == 6
    assert "XNNPACK, mirrored: 5 of 5 slices, byte for byte" in output
    assert "XNNPACK: 5 of 5 slices, byte for byte" in output
    assert "ai-edge-litert 2.3.0, reference: 1 of 1 slices, byte for byte" in output
    report = json.loads((tmp_path / "found.json").read_text())
    assert report["passed"] and [f["passed"] for f in report["findings"]] == [True] * 6
    assert {"temperature_c", "clock_mhz", "throttled"} <= set(report)


@pytest.mark.slow
def test_tflite_runtime_passes_by_the_reference_kernels(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RUNTIMES", engine_module.RUNTIMES[1:])
    code, output = command("--model", shipped_folder("nano") / MODEL)
    assert code == 0, output
    assert "tflite-runtime 2.14.0, built-in has no goldens; 0 of" in output
    assert "tflite-runtime 2.14.0, reference: 1 of 1 slices, byte for byte" in output


def test_a_flipped_bit_of_the_model(command: Command, model: Path) -> None:
    flip_a_bit(model)
    code, output = command("--model", model)
    assert code == 1
    assert "FAILED  model:" in output and "changed or damaged" in output
    assert "self-test FAILED" in output and "golden masks" not in output


def test_a_flipped_bit_that_the_card_lists(command: Command, model: Path) -> None:
    flip_a_bit(model)
    update_card(model)
    code, output = command("--model", model)
    assert code == 1
    assert "FAILED  golden masks" in output and "belongs to another file" in output


def test_a_changed_golden_mask(command: Command, model: Path) -> None:
    goldens = read_goldens(model.parent, WINDOW)
    masks = {source: made.copy() for source, made in goldens.masks.items()}
    masks["ai-edge-litert 2.3.0, XNNPACK"][0, 3, 4] ^= 1
    write_goldens(model.parent, replace(goldens, masks=masks))
    code, output = command("--model", model)
    assert code == 1
    assert "XNNPACK: 1 pixels in 1 slices differ" in output
    assert "ok      reference mask" in output


def test_an_interpreter_without_xnnpack(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_delegates(**options: Any) -> Any:
        kernels = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return litert.Interpreter(**{**options, "experimental_op_resolver_type": kernels})

    module = SimpleNamespace(Interpreter=without_delegates, OpResolverType=litert.OpResolverType)
    monkeypatch.setattr(
        engine_module, "installed_runtime", lambda: ("ai-edge-litert 2.3.0", module)
    )
    fallback = selftest.check_kernels(Engine(shipped_folder("nano") / MODEL), None)
    assert fallback.passed is False
    assert "kernels built-in, 0 of 24 ops" in fallback.text
    assert selftest.check_kernels(engine, None).passed


def test_a_delegate_that_runs_nothing_fails(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = selftest.check_kernels(engine, "libedgetpu.so.1")
    assert result.passed is False and "libedgetpu.so.1 runs nothing" in result.text
    complete = DelegateReport(ops=1, remaining=(), remaining_indices=(), parts=1, compiled=1)
    monkeypatch.setattr(engine, "delegate_report", lambda: complete)
    assert selftest.check_kernels(engine, "libedgetpu.so.1").passed
    left_over = replace(complete, remaining=("edgetpu-custom-op",))
    monkeypatch.setattr(engine, "delegate_report", lambda: left_over)
    assert selftest.check_kernels(engine, "libedgetpu.so.1").passed is False


@pytest.mark.parametrize(("pixels", "passed"), [(1, True), (500, False)])
def test_kernels_without_goldens_may_differ_slightly(
    pixels: int, passed: bool, engine: Engine
) -> None:
    goldens = read_goldens(shipped_folder("nano"), WINDOW)
    masks = iter(goldens.masks["reference"])

    def invoke(_: object) -> Any:
        labels = next(masks).copy()
        labels.flat[: pixels // 5 + 1] ^= 3
        return np.stack([labels > 0, (labels == 1) | (labels == 3), labels == 3])

    other = SimpleNamespace(
        kernels=BUILT_IN, runtime="another 1.0", mirroring=False, logits=invoke,
        regions=lambda logits: logits,
    )  # fmt: skip
    result = selftest.check_masks(cast(Engine, other), goldens, golden_slices(engine))
    assert result.passed is passed
    assert "another 1.0, built-in has no goldens" in result.text


def test_a_card_that_asks_for_mirroring_needs_its_goldens(command: Command, model: Path) -> None:
    card = read_json(model.parent / CARD)
    card["output"]["mirroring"] = True
    write_json(model.parent / CARD, card)
    assert command("--model", model)[0] == 0
    goldens = read_goldens(model.parent, WINDOW)
    plain = {key: made for key, made in goldens.masks.items() if "mirrored" not in key}
    write_goldens(model.parent, replace(goldens, masks=plain))
    code, output = command("--model", model)
    assert code == 2 and "make it again with tools/goldens.py" in output


def test_a_float_file_has_no_goldens(command: Command) -> None:
    code, output = command("--model", shipped_folder("nano") / "nano-fp16.tflite")
    assert code == 0
    assert "not run golden masks" in output


@pytest.mark.parametrize(
    ("goldens", "line"),
    [
        (None, "goldens.json: no such file"),
        ("{}", "goldens.json: malformed (KeyError('masks'))"),
        ('{"file": "f", "sha256": "0", "masks": {"reference": ["AAAA"]}}', "malformed"),
    ],
)
def test_missing_or_malformed_goldens_are_bad_input(
    goldens: str | None, line: str, command: Command, model: Path
) -> None:
    (model.parent / GOLDENS).unlink()
    if goldens:
        (model.parent / GOLDENS).write_text(goldens)
    code, output = command("--model", model)
    assert code == 2 and line in output


def test_a_missing_model_is_bad_input(command: Command, tmp_path: Path) -> None:
    code, output = command("--model", tmp_path / "none.tflite")
    assert code == 2
    last = output.splitlines()[-1]
    assert last.startswith("error: ") and f"{tmp_path}/none.tflite" in last
