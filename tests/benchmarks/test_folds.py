"""The list of folds, and that no network was trained on a patient it is scored on."""

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from benchmarks import folds
from benchmarks.folds import FOLDS, KEPT, PLAN, RIVALS, Run, left_out, named, patients
from benchmarks.scores import read_scores
from glioslice.errors import GliosliceError
from glioslice.model_card import CARD, read_card, read_card_of
from training.lesion_patches import lesion_patients
from training.network import build, macs, named_config, parameters

TRAINED = [run for run in PLAN if (run.folder / CARD).is_file()]
SCORED = [run for run in PLAN if read_scores(run)]


def test_every_patient_is_in_one_fold_and_grades_are_spread() -> None:
    assert len({p.case for p in patients()}) == len(patients()) == 39
    for counts in (
        Counter(p.fold for p in patients()),
        *(
            Counter({f: sum((p.fold, p.grade) == (f, g) for p in patients()) for f in FOLDS})
            for g in ("high", "low", "unknown")
        ),
    ):
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.real
def test_the_committed_list_is_dealt_again(
    real_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folds, "KEPT", tmp_path)
    folds.deal(real_cases.parent / "patients.csv", {p.case for p in patients()})
    assert (tmp_path / "folds.csv").read_bytes() == (KEPT / "folds.csv").read_bytes()


@pytest.mark.parametrize("run", TRAINED, ids=lambda run: run.name)
def test_a_run_has_not_seen_its_own_patients(run: Run) -> None:
    card = read_card(run.folder)
    trained = {case["case"] for case in card.content["training"]["cases"]}
    assert trained == {p.case for p in patients()} - set(left_out(run.fold))
    assert {c["case"] for c in card.content["held_out"]["cases"]} == set(left_out(run.fold))
    assert set(card.content["calibrated_on"]) <= trained
    assert card.content["training"]["epochs_done"] == card.content["training"]["epochs"]
    files = {card.content["files"][f.name]["precision"]: f for f in run.folder.glob("*.tflite")}
    assert set(files) == set(run.precisions) or run.size in RIVALS
    for file in files.values():
        read_card_of(file)


@pytest.mark.real
@pytest.mark.parametrize("run", TRAINED, ids=lambda run: run.name)
def test_a_fold_leaves_with_its_cubes(run: Run, real_cases: Path) -> None:
    whose = lesion_patients(real_cases.parent / "patients.csv")
    wanted = sorted(whose[case] for case in left_out(run.fold) if case in whose)
    assert read_card(run.folder).content["training"]["cubes"]["left_out"] == wanted


@pytest.mark.parametrize("run", SCORED, ids=lambda run: run.name)
def test_every_patient_of_the_fold_is_scored(run: Run) -> None:
    rows = Counter((s.case, s.precision, s.missing) for s in read_scores(run))
    kinds = [(precision, "") for precision in run.precisions]
    if run.size not in RIVALS:
        kinds += [("int8", modality) for modality in ("flair", "t1", "t1ce", "t2")]
    wanted = product(left_out(run.fold), kinds)
    assert rows == Counter((case, *kind) for case, kind in wanted)


def test_what_is_called_how() -> None:
    assert Run("compact", 2).name == "compact-2"
    assert Run("benchmarks.baseline_networks:MESHNET", 1).name == "meshnet-1"
    assert named("compact-2-seed-1") == Run("compact", 2, "seed-1")
    with pytest.raises(GliosliceError, match="no run 'compact-9'; there are compact-1"):
        named("compact-9")
    assert len({run.name for run in PLAN}) == len(PLAN)


def test_the_command_leaves_the_fold_out() -> None:
    words = folds.train_words(3, Path("data"))
    assert set(words[words.index("--hold-out") + 1].split(",")) == set(left_out(3))
    assert Run("nano", 3, "seed-2").words == ("--size", "nano", "--seed", "2")


def test_the_rivals_are_what_the_page_says() -> None:
    sizes = {}
    for rival in RIVALS:
        name, config = named_config(rival)
        network = build(config)
        sizes[name] = parameters(network)
        assert macs(network, (160, 192)) > 220e6  # no slice of ours may cost so much
    assert sizes["meshnet"] <= 100_000
    assert 1.5e6 < sizes["plain_unet"] < 2.5e6
