"""Networks broken on purpose: another strategy repairs int8, or it is rejected with the layer."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from convert import own_model
from convert.tflite.reader import read_model
from convert.tflite.writer import serialize
from convert.to_tflite import convert
from convert.verify.acceptance import (
    STANDARD,
    Evaluation,
    GateResult,
    Limits,
    apply_gate,
    explain_rejection,
)
from convert.verify.layer_errors import Layer
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import CARD
from tests.convert.commands import expect_error, files_in, run_convert
from tests.convert.conftest import WINDOW, MakeRun, set_card
from tests.convert.float_files import FloatFile, of_unet, scale_weights
from tests.convert.hard_networks import WithPReLU, handmade_unet
from training.checkpoint import make_card, write_model
from training.network import Network, NetworkConfig

Broken = Callable[..., Path]


def dice(mean: float) -> dict[str, float]:
    return {"WT": mean, "TC": mean, "ET": mean, "mean": mean}


def layer(name: str, share: float) -> Layer:
    return Layer(0, "CONV_2D", name, (1,), 0.0, 1.0, 0.0, 20.0, 20.0, share, 1, 1)


def test_with_masks_the_gate_compares_dice() -> None:
    fp32 = Evaluation(dice(0.8), 1.0)
    for mean, held in ((0.796, True), (0.795, True), (0.7949, False), (0.9, True)):
        found = apply_gate(Evaluation(dice(mean), 0.5), fp32, STANDARD)
        assert (found.by, found.passed) == ("drop", held)
    assert apply_gate(Evaluation(dice(0.7), 1.0), fp32, Limits(max_drop=0.2)).passed


def test_without_masks_the_gate_compares_agreement() -> None:
    fp32 = Evaluation(None, 1.0)
    for agreement, held in ((0.995, True), (0.9949, False)):
        found = apply_gate(Evaluation(None, agreement), fp32, STANDARD)
        assert (found.by, found.passed) == ("agreement", held)
    assert "99.4900%" in str(apply_gate(Evaluation(None, 0.9949), fp32, STANDARD))


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"max_drop": -0.1}, "--max-drop"),
        ({"max_drop": float("nan")}, "--max-drop"),
        ({"min_agreement": 1.5}, "--min-agreement"),
        ({"max_bytes": 0}, "--max-bytes"),
    ],
)
def test_invalid_limits(limits: dict[str, float], named: str) -> None:
    with pytest.raises(GliosliceError, match=named):
        Limits(**limits)  # type: ignore[arg-type]


def test_a_rejection_names_the_worst_layers_first() -> None:
    tried = [GateResult("drop", value, 0.005) for value in (0.3, 0.1, 0.2)]
    found = [layer("a", 0.1), layer("b", 0.6), layer("c", 0.05), layer("d", 0.25)]
    output = explain_rejection("net-int8.tflite", tried, found)
    assert "0.1000 below fp32" in output
    assert "b (CONV_2D, 60%), d (CONV_2D, 25%), a (CONV_2D, 10%)" in output
    assert "3 attempts" in output


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broken:
    """Write a model folder of a network; its float file needs no onnx2tf."""

    def write(network: Network, name: str = "tiny") -> Path:
        def float_files(final: Network, *_: object) -> dict[str, bytes]:
            return dict.fromkeys(("fp16", "fp32"), of_unet(final, WINDOW))

        monkeypatch.setattr(own_model, "export_float_files", float_files)
        return write_handmade(tmp_path / "run", network, name)

    return write


def write_handmade(folder: Path, network: Network, name: str = "tiny") -> Path:
    card = make_card(network, name, {"cases": [], "seed": 0}, [], [])
    card["input"]["window"] = list(WINDOW)
    write_model(folder, network, card)
    return folder


@pytest.mark.slow
def test_a_healthy_network_passes_in_the_first_attempt(broken: Broken, cases: Path) -> None:
    run = broken(handmade_unet())
    convert(run, run.parent / "out", data=cases)
    report = read_json(run.parent / "out" / "report.json")
    assert report["gate"]["by"] == "drop"
    assert report["gate"]["int8"]["strategy"] == "usual calibration"
    assert report["gate"]["fp16"]["passed"]
    assert report["files"][0]["dice"]["WT"] > 0.9  # otherwise the test would prove nothing
    names = [entry["name"] for entry in report["layers"]]
    assert names[:3] == ["input", "encoder.0.0", "encoder.0.1"]


@pytest.mark.slow
def test_a_skip_with_a_channel_too_wide_is_repaired(broken: Broken, cases: Path) -> None:
    run = broken(handmade_unet("wide"))
    convert(run, run.parent / "out", data=cases)
    report = read_json(run.parent / "out" / "report.json")
    tried = report["gate"]["int8"]["tried"]
    assert [one["passed"] for one in tried] == [False, False, False, True]
    assert report["gate"]["int8"]["strategy"] == "equalised channels"
    int8, _, fp32 = report["files"]
    assert fp32["dice"]["mean"] - int8["dice"]["mean"] <= 0.005


@pytest.mark.slow
def test_a_skip_that_cannot_be_repaired_is_rejected_and_named(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = broken(handmade_unet("cancelling"))
    out = run.parent / "out"
    expect_error(run, "--data", cases, "--out", out, "--precision", "int8")
    output = capsys.readouterr()
    assert "most of its error arises at encoder.0.1 (CONV_2D" in output.err
    assert "nothing was written" in output.err
    assert output.out.count(": failed") == 5
    assert "MMAC" in output.out
    assert files_in(out) == []


@pytest.mark.slow
def test_only_fp16_is_written_where_int8_was_not_requested(broken: Broken, cases: Path) -> None:
    run = broken(handmade_unet("cancelling"))
    out = run.parent / "out"
    convert(run, out, data=cases)
    assert "tiny-fp16.tflite" in files_in(out)
    assert "tiny-int8.tflite" not in files_in(out)
    assert "compare/tiny-int8.tflite" in files_in(out)
    assert set(read_json(out / CARD)["files"]) == {"tiny.safetensors", "tiny-fp16.tflite"}
    gate = read_json(out / "report.json")["gate"]
    assert gate["int8"]["strategy"] is None
    assert "encoder.0.1" in gate["int8"]["refused"]


@pytest.mark.slow
def test_a_target_requires_int8(broken: Broken, cases: Path) -> None:
    run = broken(handmade_unet("cancelling"))
    out = run.parent / "out"
    with pytest.raises(GliosliceError, match=r"encoder\.0\.1.*nothing was written"):
        convert(run, out, data=cases, targets=("micro",))
    assert files_in(out) == []


@pytest.mark.slow
def test_a_file_that_is_not_compatible_with_a_target_is_no_product(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = broken(handmade_unet())
    out = run.parent / "out"
    expect_error(run, "--data", cases, "--out", out, "--target", "micro", "--target", "pi")
    output = capsys.readouterr()
    assert "pi: 1 RESIZE_NEAREST_NEIGHBOR left to slower kernels" in output.err
    assert "micro: compatible" in output.out
    assert files_in(out) == []
    convert(run, out, data=cases, targets=("micro", "coral"))
    assert {"model.c", "model.h", "tiny-int8.tflite"} <= set(files_in(out))
    entries = read_json(out / "report.json")["targets"]
    assert [(entry["target"], entry["ok"]) for entry in entries] == [
        ("micro", True),
        ("coral", True),
    ]
    assert "model.h" not in read_json(out / CARD)["files"]


@pytest.mark.slow
def test_a_size_without_fp16_is_rejected(broken: Broken, cases: Path) -> None:
    run = broken(handmade_unet("cancelling"), "compact")
    with pytest.raises(GliosliceError, match=r"encoder\.0\.1"):
        convert(run, run.parent / "out", data=cases)


@pytest.mark.slow
def test_a_wider_limit_lets_it_pass(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = broken(handmade_unet("cancelling")), "out"
    monkeypatch.chdir(run.parent)
    arguments = [run, "--data", cases, "--out", out, "--max-drop", "1", "--max-bytes", "9000"]
    run_convert(*arguments)
    assert "tiny-int8.tflite" in files_in(Path(out))
    expect_error(*arguments[:-1], 3000)
    assert "more than the 3,000" in capsys.readouterr().err


@pytest.mark.slow
def test_without_masks_agreement_is_gated_and_reported(
    broken: Broken, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    unmasked = tmp_path / "unmasked"
    for path in (p for p in cases.rglob("*.nii.gz") if not p.name.endswith("_seg.nii.gz")):
        (unmasked / path.parent.name).mkdir(parents=True, exist_ok=True)
        (unmasked / path.parent.name / path.name).symlink_to(path)
    run = broken(handmade_unet())
    convert(run, tmp_path / "out", data=unmasked)
    report = read_json(tmp_path / "out" / "report.json")
    assert (report["gate"]["by"], report["gate"]["limit"]) == ("agreement", 0.995)
    assert report["gate"]["int8"]["strategy"] == "usual calibration"
    assert not report["judged_on"]["masks"]
    run = broken(handmade_unet("cancelling"))
    expect_error(run, "--data", unmasked, "--out", tmp_path / "no", "--precision", "int8")
    assert "agreement with the network" in capsys.readouterr().err


def test_prelu_is_named_before_any_work(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = broken(handmade_unet())
    card = read_json(run / CARD)
    card["network"]["design"] = "tests.convert.hard_networks:WithPReLU"
    write_model(run, WithPReLU(NetworkConfig((4, 6))), card | {"files": {}})
    expect_error(run, "--data", cases, "--out", run.parent / "out")
    output = capsys.readouterr().err
    assert "encoder.1.0.2 (PReLU)" in output
    assert "use ReLU" in output
    assert files_in(run.parent / "out") == []


def test_an_op_that_glioslice_does_not_emit_is_named(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a converter puts in an op of its own, the network is still computed."""
    run = broken(handmade_unet())
    monkeypatch.setattr(own_model, "export_float_files", with_an_op_of_its_own)
    expect_error(run, "--data", cases, "--out", run.parent / "out")
    output = capsys.readouterr().err
    assert "ops that glioslice does not emit: ABS after head" in output
    assert files_in(run.parent / "out") == []


def with_an_op_of_its_own(final: Network, *_: object) -> dict[str, bytes]:
    model = read_model(of_unet(final, WINDOW))
    main = model.subgraphs[0]
    made = FloatFile.of(model)
    made.unary(int(main.outputs[0]), "ABS")  # beside the output
    return dict.fromkeys(("fp16", "fp32"), serialize(model))


def test_another_size_than_in_the_card(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    network = read_json(run / CARD)["network"] | {"widths": [4, 8]}
    set_card(run, network=network)
    expect_error(run, "--out", run.parent / "out")
    assert "not the weights of a network of widths (4, 8)" in capsys.readouterr().err
    assert files_in(run.parent / "out") == []


def test_a_float_file_of_another_network_is_rejected(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = broken(handmade_unet())

    def float_files(final: Network, *_: object) -> dict[str, bytes]:
        content = scale_weights(of_unet(final, WINDOW), 2, float("nan"))
        return dict.fromkeys(("fp16", "fp32"), content)

    monkeypatch.setattr(own_model, "export_float_files", float_files)
    with pytest.raises(GliosliceError, match=r"from encoder\.1\.0"):
        convert(run, run.parent / "out", data=cases)
    assert files_in(run.parent / "out") == []


@pytest.mark.slow
def test_end_to_end_through_every_tool(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_handmade(tmp_path / "run", handmade_unet("cancelling"))
    out = tmp_path / "out"
    expect_error(run, "--data", cases, "--out", out, "--precision", "int8,fp16")
    assert "most of its error arises at encoder.0.1 (CONV_2D" in capsys.readouterr().err
    assert files_in(out) == []


def test_calibration_cases_without_brain(
    broken: Broken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    empty: NDArray[np.float32] = np.zeros((20, 20, 10), np.float32)
    for suffix in ("flair", "t1", "t1ce", "t2"):
        path = tmp_path / "data" / "hollow" / f"hollow_{suffix}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(empty, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    expect_error(broken(handmade_unet()), "--data", tmp_path / "data", "--out", tmp_path / "out")
    output = capsys.readouterr().err
    assert "hollow: no brain found" in output
    assert files_in(tmp_path / "out") == []
