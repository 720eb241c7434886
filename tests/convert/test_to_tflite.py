import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from convert import to_tflite
from convert.artifacts import SIZE_LIMIT, choose_precisions, pack_files
from convert.export import export, fold_thresholds
from convert.to_tflite import convert
from device.engine import Engine
from glioslice.cases import case_digest, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256
from glioslice.model_card import CARD, read_card
from tests.convert.commands import expect_error, files_in, run_convert
from tests.convert.conftest import MakeRun, random_network, set_card
from training.network import SIZES, count_macs, count_parameters

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_output_is_a_model_folder(converted: tuple[Path, Path]) -> None:
    run, out = converted
    assert files_in(out) == [
        CARD,
        "compare/tiny-fp32.tflite",
        "report.json",
        "report.svg",
        "tiny-fp16.tflite",
        "tiny-int8.tflite",
        "tiny.safetensors",
    ]
    before, after = read_json(run / CARD), read_json(out / CARD)
    files = after.pop("files")
    assert after == {k: v for k, v in before.items() if k != "files"}
    assert set(files) == {"tiny.safetensors", "tiny-int8.tflite", "tiny-fp16.tflite"}
    for name, entry in files.items():
        path = out / name
        assert (entry["sha256"], entry["bytes"]) == (sha256(path), path.stat().st_size)
    assert {Engine(out / f"tiny-{p}.tflite").input.dtype for p in ("int8", "fp16")} == {
        np.dtype(np.int8),
        np.dtype(np.float32),
    }


@pytest.mark.slow
def test_the_report_holds_scores_of_all_files(converted: tuple[Path, Path]) -> None:
    report = read_json(converted[1] / "report.json")
    network = random_network((4, 6))
    assert report["parameters"] == count_parameters(network)
    assert report["macs"] == count_macs(network, (32, 48))
    assert report["judged_on"] == {
        "what": "cases", "names": ["case_3"], "masks": True, "seen_in_training": False
    }  # fmt: skip
    assert report["calibrated_on"]["slices"] == 4 * 8
    files = {entry["precision"]: entry for entry in report["files"]}
    assert {p: entry["product"] for p, entry in files.items()} == {
        "int8": True, "fp16": True, "fp32": False
    }  # fmt: skip
    for entry in files.values():
        assert set(entry) == {"name", "precision", "product", "bytes", "dice", "agreement"}
        assert set(entry["dice"]) == {"WT", "TC", "ET", "mean"}
    assert files["fp32"]["agreement"] > 0.9999
    assert files["fp16"]["agreement"] > 0.995
    assert files["int8"]["agreement"] > 0.95


@pytest.mark.slow
def test_a_gate_that_judges_on_training_cases_says_so(
    cases: Path, make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    digests = tuple(case_digest(read_case(files)) for files in find_cases(cases))
    out = convert(make_run(digests=digests), tmp_path / "out", data=cases)
    [warning] = [r.getMessage() for r in caplog.records if "trained on" in r.getMessage()]
    judged = read_json(out / "report.json")["judged_on"]
    assert judged["seen_in_training"] is True
    assert judged["names"] and all(name in warning for name in judged["names"])


@pytest.mark.slow
def test_in_place_and_again_gives_the_same_bytes_and_keeps_the_card(
    converted: tuple[Path, Path], cases: Path, make_run: MakeRun
) -> None:
    digests = [case_digest(read_case(files)) for files in find_cases(cases)]
    # The same that calibrate without a card: all but the fourth.
    run = make_run(digests=tuple(d for i, d in enumerate(digests) if i != 3))
    set_card(run, held_out={"cases": ["case_3"]}, a_later_key=[1, 2])
    before = read_json(run / CARD)
    convert(run, run, data=cases)
    after = read_json(run / CARD)
    assert after.pop("files").items() >= before.pop("files").items()
    assert after == before
    for name in ("tiny-int8.tflite", "tiny-fp16.tflite", "compare/tiny-fp32.tflite"):
        assert (run / name).read_bytes() == (converted[1] / name).read_bytes()
    assert read_json(run / "report.json")["judged_on"]["names"] == ["case_3"]


@pytest.mark.slow
def test_without_arguments_the_shipped_files_are_compared(
    converted: tuple[Path, Path], cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_tflite, "SHIPPED_MODELS", ("tiny",))
    monkeypatch.setattr(to_tflite, "shipped_folder", lambda name: converted[1])
    monkeypatch.chdir(tmp_path)
    run_convert("--data", cases, "--precision", "int8")
    report = read_json(tmp_path / "build" / "tiny" / "report.json")
    files = {entry["name"]: entry for entry in report["files"]}
    assert files["tiny-int8.tflite"]["agreement_with_shipped"] == 1
    assert not files["tiny-fp16.tflite"]["product"]
    assert "compare/tiny-fp16.tflite" in files_in(tmp_path / "build" / "tiny")


@pytest.mark.slow
def test_a_product_over_the_limit_is_an_error_and_writes_nothing(
    make_run: MakeRun, cases: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run, out = make_run(widths=(4, 78)), tmp_path / "out"
    expect_error(run, "--data", cases, "--out", out)
    output = capsys.readouterr().err
    assert "more than the 60,000" in output
    assert "its int8 file has" in output or "use fewer channels" in output
    assert files_in(out) == []


@pytest.mark.slow
def test_the_sizes_fit(samples: NDArray[np.float32]) -> None:
    for size, precisions in (("compact", ("int8",)), ("nano", ("int8", "fp16"))):
        network = fold_thresholds(random_network(SIZES[size].widths), (0.5,) * 3)
        files = pack_files(size, export(network, (32, 48), samples), precisions)
        assert all(len(file.content) <= SIZE_LIMIT for file in files if file.product)


def test_default_precisions() -> None:
    assert choose_precisions(None, "compact") == ("int8",)
    assert choose_precisions(None, "nano") == ("int8", "fp16")
    assert choose_precisions("fp16, int8", "compact") == ("fp16", "int8")
    for option in ("int4", "fp32", "", "int8,bf16"):
        with pytest.raises(GliosliceError, match="--precision"):
            choose_precisions(option, "nano")


@pytest.mark.slow
def test_help_shows_an_example() -> None:
    command = [sys.executable, "convert/to_tflite.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "example:\n  glioslice convert " in done.stdout


def test_a_folder_without_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expect_error(tmp_path)
    assert "card.json" in capsys.readouterr().err


def test_a_missing_checkpoint(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    (run / "tiny.safetensors").unlink()
    expect_error(run)
    assert "tiny.safetensors" in capsys.readouterr().err


def rewrite(run: Path, **tensors: torch.Tensor) -> None:
    """Change tensors of the checkpoint, and bind it again."""
    path = run / "tiny.safetensors"
    save_file(load_file(path) | tensors, path)
    entry = read_card(run).content["files"][path.name] | {"sha256": sha256(path)}
    set_card(run, files={path.name: entry})


def test_weights_that_are_nan(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    rewrite(run, **{"head.bias": torch.tensor([0.0, float("nan"), 0.0])})
    expect_error(run)
    assert "NaN" in capsys.readouterr().err


def test_weights_of_another_shape(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run()
    rewrite(run, **{"head.bias": torch.zeros(4)})
    expect_error(run)
    assert "tiny.safetensors" in capsys.readouterr().err


def test_unknown_precision(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    expect_error(make_run(), "--precision", "int4")
    assert "int8 or fp16" in capsys.readouterr().err


def test_a_folder_without_cases(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "empty").mkdir()
    expect_error(make_run(), "--data", tmp_path / "empty", "--out", tmp_path / "out")
    assert "no case found" in capsys.readouterr().err
    assert files_in(tmp_path / "out") == []


def test_an_output_folder_that_cannot_be_written(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("in the way")
    expect_error(make_run(), "--out", tmp_path / "file" / "out")
    assert "cannot be written to" in capsys.readouterr().err


def test_a_source_that_is_no_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expect_error(tmp_path / "none")
    error = capsys.readouterr().err
    assert "nano" in error and "package.module:factory" in error
    (tmp_path / "net.tflite").write_bytes(b"TFL3")
    expect_error(tmp_path / "net.tflite")
    assert "glioslice pack" in capsys.readouterr().err
