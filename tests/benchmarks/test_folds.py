"""The list of folds, and that no network was trained on a patient it is scored on."""

from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from benchmarks import folds
from benchmarks.folds import (
    FOLDS,
    FOLDS_FOLDER,
    PLAN,
    FoldRun,
    find_run,
    held_out_cases,
    patients,
)
from benchmarks.scores import RAW, WAYS, read_scores
from glioslice.errors import GliosliceError
from glioslice.model_card import CARD, read_card, read_verified_card
from training.extra_images import read_lesion_patients

TRAINED = [run for run in PLAN if (run.folder / CARD).is_file()]
SCORED = [run for run in PLAN if read_scores(run)]


def test_all_patients_are_spread_by_grade_and_source() -> None:
    rows = patients()
    assert len({p.case for p in rows}) == len(rows) == 60
    assert set(Counter(p.fold for p in rows).values()) == {15}
    for grade in ("high", "low", "unknown"):
        counts = [sum((p.fold, p.grade) == (fold, grade) for p in rows) for fold in FOLDS]
        assert max(counts) - min(counts) <= 1
    for name in {folds.source(p.case) for p in rows}:
        counts = [sum((p.fold, folds.source(p.case)) == (f, name) for p in rows) for f in FOLDS]
        assert max(counts) - min(counts) <= 2
    given = [(p.case, p.grade) for p in rows]
    earlier = {p.case: p.fold for p in rows[::2]}
    dealt = folds.assign_folds(reversed(given), earlier)
    assert {p.case: p.fold for p in dealt if p.case in earlier} == earlier
    assert set(Counter(p.fold for p in dealt).values()) == {15}


@pytest.mark.real
def test_the_committed_folds_of_all_patients_are_reproducible(
    real_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patients()  # folds.csv, before another folder replaces its own
    monkeypatch.setattr(folds, "FOLDS_FOLDER", tmp_path)
    folds.deal(real_cases.parent / "patients.csv")
    assert (tmp_path / "folds.csv").read_bytes() == (FOLDS_FOLDER / "folds.csv").read_bytes()


@pytest.mark.parametrize("run", TRAINED, ids=lambda run: run.name)
def test_a_run_has_not_seen_its_own_patients(run: FoldRun) -> None:
    card = read_card(run.folder)
    trained = {case["case"] for case in card.content["training"]["cases"]}
    assert trained == {p.case for p in patients()} - set(held_out_cases(run.fold))
    assert {c["case"] for c in card.content["held_out"]["cases"]} == set(held_out_cases(run.fold))
    assert set(card.content["calibrated_on"]) <= trained
    assert card.content["training"]["epochs_done"] == card.content["training"]["epochs"]
    files = {card.content["files"][f.name]["precision"]: f for f in run.folder.glob("*.tflite")}
    assert set(files) == set(run.precisions)
    for file in files.values():
        read_verified_card(file)


@pytest.mark.real
@pytest.mark.parametrize("run", TRAINED, ids=lambda run: run.name)
def test_a_fold_leaves_with_its_cubes(run: FoldRun, real_cases: Path) -> None:
    lesion_patients = read_lesion_patients(real_cases.parent / "patients.csv")
    wanted = sorted(
        lesion_patients[case] for case in held_out_cases(run.fold) if case in lesion_patients
    )
    assert read_card(run.folder).content["training"]["cubes"]["left_out"] == wanted


@pytest.mark.parametrize("run", SCORED, ids=lambda run: run.name)
def test_every_patient_of_the_fold_is_scored(run: FoldRun) -> None:
    rows = Counter((s.case, s.precision, s.masks) for s in read_scores(run))
    kinds = [(precision, RAW) for precision in run.precisions]
    others = {masks for _, _, masks in rows} - {RAW}  # added to runs when they are scored again
    kinds += [("int8", masks) for masks in WAYS if masks in others]
    wanted = product(held_out_cases(run.fold), kinds)
    assert rows == Counter((case, *kind) for case, kind in wanted)


def test_names_of_runs() -> None:
    assert FoldRun("compact", 2).name == "compact-2"
    assert find_run("compact-2-seed-1") == FoldRun("compact", 2, "seed-1")
    with pytest.raises(GliosliceError, match="no run 'compact-9'; there are compact-1"):
        find_run("compact-9")
    assert len({run.name for run in PLAN}) == len(PLAN)


def test_the_command_holds_the_fold_out() -> None:
    options = folds.data_options(3, Path("data"))
    assert set(options[options.index("--hold-out") + 1].split(",")) == set(held_out_cases(3))
    assert FoldRun("nano", 3, "seed-1").training_options == ("--size", "nano", "--seed", "1")
