"""What evaluation writes for machines, and that seen cases stay out of the mean."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from benchmarks.accuracy_tables import int8
from benchmarks.folds import Run, left_out
from glioslice.cases import digest, find_case, read_case
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256
from glioslice.labels import REGIONS
from glioslice.model_card import shipped
from tests.conftest import ROOT, Write
from training.checkpoint import trained_card, write_model
from training.evaluate import load_network, mean_of
from training.network import SIZES, UNet


def evaluate(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "training/evaluate.py", *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_mean_is_over_scored_unseen_cases() -> None:
    def row(seen: bool, value: float | None) -> dict[str, Any]:
        dice = None if value is None else dict.fromkeys(("WT", "TC", "ET", "mean"), value)
        return {"case": "x", "seen": seen, "dice": dice}

    mean = mean_of([row(False, 0.5), row(False, 1.0), row(True, 0.0), row(False, None)])
    assert mean == dict.fromkeys(("WT", "TC", "ET", "mean"), 0.75)
    assert mean_of([row(True, 1.0)]) is None


@pytest.mark.slow
def test_json_masks_and_seen_cases(write_case: Write, tmp_path: Path) -> None:
    first = write_case("a", folder=tmp_path / "data")
    other = write_case("b", folder=tmp_path / "data")
    (other / "b_t1.nii.gz").write_bytes((other / "b_t2.nii.gz").read_bytes())
    seen = {"case": "whatever it was called", "digest": digest(read_case(find_case(first)))}
    torch.manual_seed(0)
    network = UNet(SIZES["nano"])
    write_model(tmp_path, network, trained_card(network, "nano", {"cases": [seen]}, [], []))
    words = ("--model", tmp_path / "nano.safetensors", "--data", tmp_path / "data")
    done = evaluate(*words, "--json", tmp_path / "o.json", "--masks", tmp_path / "masks")
    assert done.returncode == 0, done.stderr
    written = read_json(tmp_path / "o.json")
    assert written["model"] == "nano.safetensors"
    assert [(row["case"], row["seen"]) for row in written["cases"]] == [("a", True), ("b", False)]
    assert list(written["cases"][1]["dice"]) == ["WT", "TC", "ET", "mean"]
    assert written["mean"] == written["cases"][1]["dice"]
    assert "seen in training" in done.stdout
    mask = nib.Nifti1Image.from_filename(tmp_path / "masks" / "b.nii.gz")
    assert mask.shape == (28, 36, 20)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2, 4}


@pytest.mark.slow
def test_masks_are_the_same_bytes_in_two_runs(write_case: Write, tmp_path: Path) -> None:
    data = write_case()
    model = shipped("compact") / "compact-int8.tflite"
    for run in ("one", "two"):
        done = evaluate("--model", model, "--data", data, "--masks", tmp_path / run)
        assert done.returncode == 0, done.stderr
    one, two = (sha256(tmp_path / run / "Case_1.nii.gz") for run in ("one", "two"))
    assert one == two


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match=r"\.safetensors or \.tflite"):
        load_network(tmp_path / "model.pt")


def test_bad_words_end_with_one_line(tmp_path: Path) -> None:
    done = evaluate("--model", tmp_path / "m.tflite", "--data", tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'm.tflite'}: no such model file\n"


@pytest.mark.slow
@pytest.mark.real
def test_a_patient_not_seen_scores_as_committed(real_cases: Path, tmp_path: Path) -> None:
    """The command finds the figures of docs/accuracy.md."""
    run, case = Run("compact", 1), left_out(1)[0]
    words = ("--model", run.folder / "compact-int8.tflite", "--data", real_cases / case)
    done = evaluate(*words, "--json", tmp_path / "o.json")
    assert done.returncode == 0, done.stderr
    [row] = read_json(tmp_path / "o.json")["cases"]
    [committed] = [score for score in int8(run) if score.case == case]
    assert not row["seen"]
    assert [row["dice"][region] for region in REGIONS] == pytest.approx(committed.dice, abs=1e-5)
