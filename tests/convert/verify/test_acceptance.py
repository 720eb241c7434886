"""Breaking a network on purpose: the gate repairs it, or refuses and names the layer."""

import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from convert import own_model, to_tflite
from convert.tflite.editor import written
from convert.tflite.reader import read_model
from convert.to_tflite import convert
from convert.verify.acceptance import STANDARD, Limits, Measure, Verdict, measure, refusal
from convert.verify.layer_errors import Layer
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import CARD
from tests.convert.breaks import by_hand
from tests.convert.conftest import WINDOW, MakeRun, set_card
from tests.convert.designs import WithPReLU
from tests.convert.float_files import FloatFile, of_unet
from tests.convert.test_to_tflite import left
from tests.convert.verify.test_parity import changed
from training.checkpoint import trained_card, write_model
from training.network import Network, NetworkConfig

Broken = Callable[..., Path]


def dice(mean: float) -> dict[str, float]:
    return {"WT": mean, "TC": mean, "ET": mean, "mean": mean}


def layer(name: str, share: float) -> Layer:
    return Layer(0, "CONV_2D", name, (1,), 0.0, 1.0, 0.0, 20.0, 20.0, share, 1, 1)


def test_with_masks_dice_counts() -> None:
    fp32 = Verdict(dice(0.8), 1.0)
    for mean, held in ((0.796, True), (0.795, True), (0.7949, False), (0.9, True)):
        found = measure(Verdict(dice(mean), 0.5), fp32, STANDARD)
        assert (found.by, found.held) == ("drop", held)
    assert measure(Verdict(dice(0.7), 1.0), fp32, Limits(max_drop=0.2)).held


def test_without_masks_agreement_with_the_network_counts() -> None:
    fp32 = Verdict(None, 1.0)
    for agreement, held in ((0.995, True), (0.9949, False)):
        found = measure(Verdict(None, agreement), fp32, STANDARD)
        assert (found.by, found.held) == ("agreement", held)
    assert "99.4900%" in str(measure(Verdict(None, 0.9949), fp32, STANDARD))


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"max_drop": -0.1}, "--max-drop"),
        ({"max_drop": float("nan")}, "--max-drop"),
        ({"min_agreement": 1.5}, "--min-agreement"),
        ({"max_bytes": 0}, "--max-bytes"),
    ],
)
def test_limits_that_are_none(limits: dict[str, float], named: str) -> None:
    with pytest.raises(GliosliceError, match=named):
        Limits(**limits)  # type: ignore[arg-type]


def test_a_refusal_names_the_worst_layers_first() -> None:
    tried = [Measure("drop", value, 0.005) for value in (0.3, 0.1, 0.2)]
    found = [layer("a", 0.1), layer("b", 0.6), layer("c", 0.05), layer("d", 0.25)]
    said = refusal("net-int8.tflite", tried, found)
    assert "0.1000 below fp32" in said
    assert "b (CONV_2D, 60%), d (CONV_2D, 25%), a (CONV_2D, 10%)" in said
    assert "3 rungs" in said


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Broken:
    """Write a model folder of a network made by hand; its float file needs no onnx2tf."""

    def write(network: Network, name: str = "tiny") -> Path:
        def float_files(final: Network, *_: object) -> dict[str, bytes]:
            return dict.fromkeys(("fp16", "fp32"), of_unet(final, WINDOW))

        monkeypatch.setattr(own_model, "float_files", float_files)
        return write_by_hand(tmp_path / "run", network, name)

    return write


def write_by_hand(folder: Path, network: Network, name: str = "tiny") -> Path:
    card = trained_card(network, name, {"cases": [], "seed": 0}, [], [])
    card["input"]["window"] = list(WINDOW)
    write_model(folder, network, card)
    return folder


def refused(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["to_tflite.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        to_tflite.main()
    assert ended.value.code == 2


@pytest.mark.slow
def test_a_healthy_network_passes_on_the_first_rung(broken: Broken, cases: Path) -> None:
    run = broken(by_hand())
    convert(run, cases, run.parent / "out", None)
    report = read_json(run.parent / "out" / "report.json")
    assert report["gate"]["by"] == "drop"
    assert report["gate"]["int8"]["rung"] == "usual calibration"
    assert report["gate"]["fp16"]["held"]
    assert report["files"][0]["dice"]["WT"] > 0.9  # else the test would show nothing
    names = [entry["name"] for entry in report["layers"]]
    assert names[:3] == ["input", "encoder.0.0", "encoder.0.1"]


@pytest.mark.slow
def test_a_skip_with_a_channel_too_wide_is_repaired(broken: Broken, cases: Path) -> None:
    run = broken(by_hand("wide"))
    convert(run, cases, run.parent / "out", None)
    report = read_json(run.parent / "out" / "report.json")
    tried = report["gate"]["int8"]["tried"]
    assert [one["held"] for one in tried] == [False, False, False, True]
    assert report["gate"]["int8"]["rung"] == "equalised channels"
    int8, _, fp32 = report["files"]
    assert fp32["dice"]["mean"] - int8["dice"]["mean"] <= 0.005


@pytest.mark.slow
def test_a_skip_that_cannot_be_repaired_is_refused_and_named(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = broken(by_hand("cancelling"))
    out = run.parent / "out"
    refused(monkeypatch, run, "--data", cases, "--out", out, "--precision", "int8")
    said = capsys.readouterr()
    assert "most of its error enters at encoder.0.1 (CONV_2D" in said.err
    assert "nothing was written" in said.err
    assert said.out.count("did not hold") == 5
    assert "MMAC" in said.out
    assert left(out) == []


@pytest.mark.slow
def test_fp16_alone_is_left_where_int8_was_not_asked_for(broken: Broken, cases: Path) -> None:
    run = broken(by_hand("cancelling"))
    out = run.parent / "out"
    convert(run, cases, out, None)
    assert "tiny-fp16.tflite" in left(out)
    assert "tiny-int8.tflite" not in left(out)
    assert "compare/tiny-int8.tflite" in left(out)
    assert set(read_json(out / CARD)["files"]) == {"tiny.safetensors", "tiny-fp16.tflite"}
    gate = read_json(out / "report.json")["gate"]
    assert gate["int8"]["rung"] is None
    assert "encoder.0.1" in gate["int8"]["refused"]


@pytest.mark.slow
def test_a_target_is_of_int8_so_fp16_alone_does_not_do(broken: Broken, cases: Path) -> None:
    run = broken(by_hand("cancelling"))
    out = run.parent / "out"
    with pytest.raises(GliosliceError, match=r"encoder\.0\.1.*nothing was written"):
        convert(run, cases, out, None, targets=("micro",))
    assert left(out) == []


@pytest.mark.slow
def test_a_file_that_does_not_suit_a_target_is_no_product(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = broken(by_hand())
    out = run.parent / "out"
    refused(monkeypatch, run, "--data", cases, "--out", out, "--target", "micro", "--target", "pi")
    said = capsys.readouterr()
    wanted = "tiny-int8.tflite does not suit pi: 1 RESIZE_NEAREST_NEIGHBOR left to slower kernels"
    assert wanted in said.err
    assert "micro: suits" in said.out
    assert left(out) == []
    convert(run, cases, out, None, targets=("micro", "coral"))
    assert {"model.c", "model.h", "tiny-int8.tflite"} <= set(left(out))
    entries = read_json(out / "report.json")["targets"]
    assert [(entry["target"], entry["ok"]) for entry in entries] == [
        ("micro", True),
        ("coral", True),
    ]
    assert "model.h" not in read_json(out / CARD)["files"]


@pytest.mark.slow
def test_a_size_without_fp16_is_refused(broken: Broken, cases: Path) -> None:
    run = broken(by_hand("cancelling"), "compact")
    with pytest.raises(GliosliceError, match=r"encoder\.0\.1"):
        convert(run, cases, run.parent / "out", None)


@pytest.mark.slow
def test_a_wider_limit_lets_it_pass(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = broken(by_hand("cancelling")), "out"
    monkeypatch.chdir(run.parent)
    arguments = [run, "--data", cases, "--out", out, "--max-drop", "1", "--max-bytes", "9000"]
    monkeypatch.setattr(sys, "argv", ["to_tflite.py", *map(str, arguments)])
    to_tflite.main()
    assert "tiny-int8.tflite" in left(Path(out))
    refused(monkeypatch, *arguments[:-1], 3000)
    assert "more than the 3,000" in capsys.readouterr().err


@pytest.mark.slow
def test_without_masks_agreement_is_gated_and_the_report_says_so(
    broken: Broken, cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    bare = tmp_path / "bare"
    for path in (p for p in cases.rglob("*.nii.gz") if not p.name.endswith("_seg.nii.gz")):
        (bare / path.parent.name).mkdir(parents=True, exist_ok=True)
        (bare / path.parent.name / path.name).symlink_to(path)
    run = broken(by_hand())
    convert(run, bare, tmp_path / "out", None)
    report = read_json(tmp_path / "out" / "report.json")
    assert (report["gate"]["by"], report["gate"]["limit"]) == ("agreement", 0.995)
    assert report["gate"]["int8"]["rung"] == "usual calibration"
    assert not report["judged_on"]["masks"]
    run = broken(by_hand("cancelling"))
    refused(monkeypatch, run, "--data", bare, "--out", tmp_path / "no", "--precision", "int8")
    assert "agreement with the network" in capsys.readouterr().err


def test_prelu_put_back_is_named_before_any_work(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = broken(by_hand())
    card = read_json(run / CARD)
    card["network"]["design"] = "tests.convert.designs:WithPReLU"
    write_model(run, WithPReLU(NetworkConfig((4, 6))), card | {"files": {}})
    refused(monkeypatch, run, "--data", cases, "--out", run.parent / "out")
    said = capsys.readouterr().err
    assert "encoder.1.0.2 (PReLU)" in said
    assert "use ReLU" in said
    assert left(run.parent / "out") == []


def test_an_op_that_this_kit_does_not_emit_is_named(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a converter puts in an op of its own, the network is still computed."""
    run = broken(by_hand())
    monkeypatch.setattr(own_model, "float_files", with_an_op_of_its_own)
    refused(monkeypatch, run, "--data", cases, "--out", run.parent / "out")
    said = capsys.readouterr().err
    assert "ops that this kit does not emit: ABS after head" in said
    assert left(run.parent / "out") == []


def with_an_op_of_its_own(final: Network, *_: object) -> dict[str, bytes]:
    model = read_model(of_unet(final, WINDOW))
    main = model.subgraphs[0]
    made = FloatFile.of(model)
    made.unary(int(main.outputs[0]), "ABS")  # beside the output
    return dict.fromkeys(("fp16", "fp32"), written(model))


def test_another_size_than_the_card_says(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    network = read_json(run / CARD)["network"] | {"widths": [4, 8]}
    set_card(run, network=network)
    refused(monkeypatch, run, "--out", run.parent / "out")
    assert "not the weights of (4, 8)" in capsys.readouterr().err
    assert left(run.parent / "out") == []


def test_a_float_file_that_is_another_network_is_named(
    broken: Broken, cases: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = broken(by_hand())

    def float_files(final: Network, *_: object) -> dict[str, bytes]:
        content = changed(of_unet(final, WINDOW), 2, float("nan"))
        return dict.fromkeys(("fp16", "fp32"), content)

    monkeypatch.setattr(own_model, "float_files", float_files)
    with pytest.raises(GliosliceError, match=r"not the trained network from encoder\.1\.0"):
        convert(run, cases, run.parent / "out", None)
    assert left(run.parent / "out") == []


@pytest.mark.slow
def test_end_to_end_through_every_tool(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_by_hand(tmp_path / "run", by_hand("cancelling"))
    out = tmp_path / "out"
    refused(monkeypatch, run, "--data", cases, "--out", out, "--precision", "int8,fp16")
    assert "most of its error enters at encoder.0.1 (CONV_2D" in capsys.readouterr().err
    assert left(out) == []


def test_calibration_cases_without_brain(
    broken: Broken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    empty: NDArray[np.float32] = np.zeros((20, 20, 10), np.float32)
    for suffix in ("flair", "t1", "t1ce", "t2"):
        path = tmp_path / "data" / "hollow" / f"hollow_{suffix}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(empty, np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    refused(monkeypatch, broken(by_hand()), "--data", tmp_path / "data", "--out", tmp_path / "out")
    said = capsys.readouterr().err
    assert "hollow: no brain found" in said
    assert left(tmp_path / "out") == []
