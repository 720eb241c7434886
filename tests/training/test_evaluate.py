"""The scores that evaluation writes; cases seen in training do not count.

The official package's scores: its volume Dice is ours, and its lesions are counted.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.accuracy import int8_scores
from benchmarks.folds import FoldRun, held_out_cases
from device.segment import segment
from glioslice.cases import case_digest, read_case
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256
from glioslice.labels import CORE, EDEMA, ENHANCING, REGIONS
from glioslice.metrics import region_dice
from glioslice.model_card import Card, read_card, shipped_folder
from tests.conftest import BRATS_2023, ROOT, Write
from training.checkpoint import make_card, write_model
from training.evaluate import (
    BATCH,
    format_lesion_wise,
    lesion_wise_scorer,
    main,
    mean_dice,
    predict_labels,
)
from training.network import SIZES, TorchNetwork, UNet


def evaluate(*options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "training/evaluate.py", *map(str, options)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def shipped_card() -> Card:
    return read_card(shipped_folder("nano"))


def test_mean_over_scored_unseen_cases() -> None:
    def row(seen: bool, value: float | None) -> dict[str, Any]:
        dice = None if value is None else dict.fromkeys(("WT", "TC", "ET", "mean"), value)
        return {"case": "x", "seen": seen, "dice": dice}

    mean = mean_dice([row(False, 0.5), row(False, 1.0), row(True, 0.0), row(False, None)])
    assert mean == dict.fromkeys(("WT", "TC", "ET", "mean"), 0.75)
    assert mean_dice([row(True, 1.0)]) is None


@pytest.mark.slow
def test_json_masks_and_seen_cases(write_case: Write, tmp_path: Path) -> None:
    first = write_case("a", folder=tmp_path / "data")
    other = write_case("b", folder=tmp_path / "data")
    (other / "b_t1.nii.gz").write_bytes((other / "b_t2.nii.gz").read_bytes())
    seen = {"case": "another name", "digest": case_digest(read_case(first))}
    torch.manual_seed(0)
    network = UNet(SIZES["nano"])
    write_model(tmp_path, network, make_card(network, "nano", {"cases": [seen]}, [], []))
    done = evaluate(
        tmp_path / "data",
        "--model",
        tmp_path,
        "--json",
        tmp_path / "o.json",
        "--masks",
        tmp_path / "masks",
    )
    assert done.returncode == 0, done.stderr
    written = read_json(tmp_path / "o.json")
    assert written["model"] == "nano.safetensors"
    assert [(row["case"], row["seen"]) for row in written["cases"]] == [("a", True), ("b", False)]
    assert list(written["cases"][1]["dice"]) == ["WT", "TC", "ET", "mean"]
    assert written["mean"] == written["cases"][1]["dice"]
    assert "seen in training" in done.stdout
    mask = nib.Nifti1Image.from_filename(tmp_path / "masks" / "b-mask.nii.gz")
    assert mask.shape == (28, 36, 20)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2, 4}


def test_a_checkpoint_takes_slices_in_batches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the batches, each slice has the mask that it has alone."""
    torch.manual_seed(0)
    network = UNet(SIZES["nano"]).eval()
    with torch.no_grad():  # as random as it is, each output would be on one side everywhere
        logits = network(torch.rand(2, 4, 160, 192) * 3.4 - 1.7)
        network.head.bias -= logits.movedim(1, 0).flatten(1).median(1).values
    card = shipped_card()
    images = np.random.default_rng(0).uniform(1, 100, (4, 40, 40, BATCH + 3)).astype(np.float32)
    sizes: list[int] = []

    class Counted(TorchNetwork):
        def run_batch(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
            sizes.append(len(z_scores))
            return super().run_batch(z_scores)

    labels = predict_labels(images, Counted(network, card), "segmenting x")
    assert sizes == [BATCH, 3]
    assert "segmenting x: 2 of 2" in capsys.readouterr().err
    sizes.clear()
    alone = segment(images, Counted(network, card)).labels
    assert sizes == [1] * (BATCH + 3)
    assert (labels == alone).mean() > 0.999  # float sums may round otherwise in another batch
    assert len(np.unique(alone)) > 1


def test_one_bad_case_does_not_end_the_others(
    write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        write_case(name, folder=tmp_path / "data")
    (tmp_path / "data" / "b" / "b_t2.nii.gz").write_bytes(b"no image")
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "data"), "--json", str(tmp_path / "o.json")])
    assert end.value.code == 2
    output = capsys.readouterr()
    assert "b_t2.nii.gz" in output.err
    assert "1 of 3 cases were not scored: b" in output.err
    assert [row["case"] for row in read_json(tmp_path / "o.json")["cases"]] == ["a", "c"]


def test_what_is_no_case_does_not_end_the_others(
    write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two FLAIR files are found before anything is read; children's labels need an edition."""
    for name in ("a", "b"):
        write_case(name, folder=tmp_path / "data")
    write_case("c-PED-1", BRATS_2023, enhancing=3, folder=tmp_path / "data")
    (tmp_path / "data" / "a" / "other_flair.nii").write_bytes(b"")
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "data"), "--json", str(tmp_path / "o.json")])
    assert end.value.code == 2
    output = capsys.readouterr()
    assert "2 of 3 cases were not scored: a, c-PED-1" in output.err
    assert "add --edition" in output.err
    assert [row["case"] for row in read_json(tmp_path / "o.json")["cases"]] == ["b", "c-PED-1"]
    main([str(tmp_path / "data" / "c-PED-1"), "--edition", "brats2023"])


def test_masks_are_not_overwritten(
    write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for grade in ("HGG", "LGG"):
        write_case("a", folder=tmp_path / grade)
    one, masks = str(tmp_path / "HGG" / "a"), tmp_path / "masks"

    def refused(*options: str) -> str:
        with pytest.raises(SystemExit) as end:
            main([*options, "--masks", str(masks)])
        assert end.value.code == 2
        return capsys.readouterr().err

    assert "HGG/a, whose outputs it would overwrite" in refused(one, str(tmp_path / "LGG"))
    assert not masks.exists()
    main([one, "--masks", str(masks)])
    before = (masks / "a-mask.nii.gz").stat()
    assert "already exists" in refused(one)
    assert (masks / "a-mask.nii.gz").stat() == before
    main([one, "--masks", str(masks), "--force"])


@pytest.mark.slow
def test_masks_are_reproducible(write_case: Write, tmp_path: Path) -> None:
    data = write_case()
    model = shipped_folder("compact") / "compact-int8.tflite"
    for run in ("one", "two"):
        done = evaluate("--model", model, "--data", data, "--masks", tmp_path / run)
        assert done.returncode == 0, done.stderr
    one, two = (sha256(tmp_path / run / "Case_1-mask.nii.gz") for run in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("model", ["model.pt", "missing.tflite", "missing.safetensors"])
def test_a_model_that_cannot_be_read(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main([str(tmp_path), "--model", str(tmp_path / model)])
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert model in error
    assert error.count("\n") == 1


def test_a_case_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main([])
    assert raised.value.code == 2
    assert "no case given" in capsys.readouterr().err


def test_nothing_is_printed_for_a_folder_without_cases(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--model", "nano"])
    out, error = capsys.readouterr()
    assert out == ""
    assert "no case found" in error


def test_cases_by_position_and_by_option(
    write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (write_case(name, folder=tmp_path / "data") for name in ("a", "b"))
    main([str(one), "--data", str(two), "--model", "nano"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.real
def test_a_held_out_patient_scores_as_committed(real_cases: Path, tmp_path: Path) -> None:
    """The command reproduces the figures of docs/accuracy.md."""
    run, case = FoldRun("compact", 1), held_out_cases(1)[0]
    model = run.folder / "compact-int8.tflite"
    done = evaluate(real_cases / case, "--model", model, "--json", tmp_path / "o.json")
    assert done.returncode == 0, done.stderr
    [row] = read_json(tmp_path / "o.json")["cases"]
    [committed] = [score for score in int8_scores(run) if score.case == case]
    assert not row["seen"]
    assert [row["dice"][region] for region in REGIONS] == pytest.approx(committed.dice, abs=1e-5)


def head(seed: int) -> NDArray[np.uint8]:
    """Nested boxes at random places, which overlap those of other seeds in part."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 44, 36), np.uint8)
    for label, size in ((EDEMA, 16), (CORE, 10), (ENHANCING, 5)):
        x, y, z = rng.integers(8, 14, 3)
        labels[x : x + size, y : y + size, z : z + size] = label
    return labels


@pytest.mark.slow  # the package takes seconds to import
def test_our_volume_dice_is_the_official_one() -> None:
    score = lesion_wise_scorer()
    seen: list[float] = []
    for seed in range(4):
        labels, truth = head(2 * seed), head(2 * seed + 1)
        official, ours = score(labels, truth), region_dice(labels, truth)
        for region in REGIONS:
            assert official[region]["volume_dice"] == pytest.approx(ours[region], abs=1e-12)
        seen += ours.values()
    assert sum(0 < dice < 1 for dice in seen) > 6  # most overlap in part
    empty = np.zeros_like(head(0))
    assert {of["volume_dice"] for of in score(empty, head(0)).values()} == {0}
    assert {of["volume_dice"] for of in score(empty, empty).values()} == {None}  # ours: 1


@pytest.mark.slow  # the package takes seconds to import
def test_lesions_are_found_missed_or_invented() -> None:
    truth = np.zeros((40, 44, 36), np.uint8)
    truth[5:15, 5:15, 5:15] = EDEMA
    truth[25:30, 25:30, 25:30] = EDEMA
    labels = np.zeros_like(truth)
    labels[5:15, 5:15, 7:15] = EDEMA
    labels[30:34, 5:9, 5:9] = EDEMA
    labels[36:38, 40:42, 30:32] = EDEMA
    scores = lesion_wise_scorer()(labels, truth)
    whole = scores["WT"]
    assert (whole["found"], whole["missed"], whole["invented"]) == (1, 1, 2)
    assert whole["dice"] == pytest.approx(2 * 800 / 1800)  # of the pair alone
    assert whole["hd95"] == pytest.approx(2)
    assert "1 found, 1 missed, 2 invented" in format_lesion_wise(scores)
    assert "ET lesion-wise: Dice -, HD95 - mm; 0 found" in format_lesion_wise(scores)


@pytest.mark.slow
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brats_evaluation", None)  # importing it fails
    with pytest.raises(GliosliceError, match=r"pip install 'glioslice\[brats\]'"):
        lesion_wise_scorer()
