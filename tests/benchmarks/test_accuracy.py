"""The pages show the committed scores; a network is never scored on its training set.

The tables are computed from made-up scores.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import accuracy
from benchmarks.accuracy import APPENDIX, PAGE, score_runs, write_page
from benchmarks.folds import FOLDS_FOLDER, FoldRun, held_out_cases
from benchmarks.scores import BOTH, RULES
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json
from glioslice.model_card import CARD
from tests.benchmarks.made_scores import score_of, write_run
from tests.conftest import Write

PICTURES = ("dice-by-patient.svg", "dice-by-bytes.svg")


def test_the_pages_show_the_committed_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (PAGE.name, APPENDIX):
        shutil.copy(PAGE.with_name(name), tmp_path)
    monkeypatch.setattr(accuracy, "PAGE", tmp_path / PAGE.name)
    write_page()
    for name in (PAGE.name, APPENDIX, *PICTURES):
        assert (tmp_path / name).read_bytes() == (PAGE.parent / name).read_bytes(), name


def test_a_patient_of_the_fold_must_be_there(write_case: Write, tmp_path: Path) -> None:
    write_case("Somebody")
    with pytest.raises(GliosliceError, match=f"lacks {held_out_cases(1)[0]} of fold 1"):
        score_runs([FoldRun("compact", 1)], tmp_path)


def test_a_patient_that_was_trained_on_is_not_scored(
    write_case: Write, folds_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The case is given to a network whose card lists it as a training case."""
    from glioslice.cases import case_digest, read_case

    shutil.copytree(FOLDS_FOLDER / "compact-1", folds_folder / "compact-1")
    data = tmp_path_factory.mktemp("data")
    seen = case_digest(read_case(write_case("a", folder=data)))
    card = read_json(folds_folder / "compact-1" / CARD)
    card["training"]["cases"][0]["digest"] = seen
    write_json(folds_folder / "compact-1" / CARD, card)
    with pytest.raises(GliosliceError, match="compact-1: was trained on a, "):
        score_runs([FoldRun("compact", 1)], data)


def cells(table: str) -> list[list[str]]:
    return [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def four_folds() -> None:
    for case, fold, wt in (("a", 1, 0.9), ("b", 2, 0.5), ("c", 3, 0.7), ("d", 4, 0.9)):
        whole = score_of(case, (wt + 0.01, 0.5, 0.0), "fp32")
        lost = score_of(case, (wt, 0.5, 0.0), outside=fold / 10)
        ruled = score_of(case, (wt + 0.01 * fold, 0.5, 0.03 - 0.01 * fold), masks=RULES)
        write_run(FoldRun("compact", fold), lost, whole, ruled)


@pytest.mark.usefixtures("folds_folder")
def test_dice_with_interval_and_median() -> None:
    four_folds()
    int8, rules, fp32 = cells(accuracy.dice_table())
    assert int8[:3] == ["compact int8", "raw", "4"]
    assert int8[3].startswith("0.750 (0.")
    assert int8[3].endswith("), 0.800")
    assert int8[5] == "0.000 (0.00-0.00), 0.000"
    assert int8[6].startswith("0.417 ")
    assert rules[:2] == ["compact int8", "rules"] and rules[3].startswith("0.775 ")
    assert fp32[3].startswith("0.760 ")


@pytest.mark.usefixtures("folds_folder")
def test_what_rules_gain_is_paired() -> None:
    four_folds()
    [row] = cells(accuracy.gain_table())
    assert row[:5] == ["compact", "rules", "+0.0250", "+0.0000", "+0.0050"]
    assert row[5].startswith("+0.0100 (+0.0100 to ")
    assert row[6:] == ["0 of 4", "+0.010", "+0.010"]


@pytest.mark.usefixtures("folds_folder")
def test_the_interval_is_that_of_resampled_patients() -> None:
    scores = [score_of(str(i), (i / 10, 0, 0)) for i in range(11)]
    low, high = accuracy.interval(scores, lambda s: s.dice[0])
    # Mean 0.5, standard error 0.316 / sqrt(11) = 0.095.
    assert low == pytest.approx(0.5 - 1.96 * 0.0953, abs=0.02)
    assert high == pytest.approx(0.5 + 1.96 * 0.0953, abs=0.02)


@pytest.mark.usefixtures("folds_folder")
def test_grades_stand_apart() -> None:
    four_folds()
    rows = {tuple(row[1:3]): row[3:5] for row in cells(accuracy.grade_table())}
    assert rows["raw", "high"] == ["2", "0.900"]
    assert rows["raw", "low"] == ["1", "0.500"]
    assert rows["raw", "unknown"] == ["1", "0.700"]
    assert rows["rules", "low"] == ["1", "0.520"]


@pytest.mark.usefixtures("folds_folder")
def test_what_low_grade_gains_without_false_enhancement() -> None:
    four_folds()
    found = score_of("b", (0.5, 0.5, 0.2), masks=BOTH)  # the low-grade patient of made_scores
    for expert, after in ((10.0, "0.400 to 0.400"), (0.0, "0.400 to 0.667")):
        write_run(FoldRun("compact", 2), replace(found, expert=(50.0, 20.0, expert)))
        assert after in accuracy.enhancement_text()


@pytest.mark.usefixtures("folds_folder")
def test_a_seed_counts_once_no_fold_is_missing() -> None:
    four_folds()
    for fold in (1, 2, 3, 4):
        rows = cells(accuracy.seed_table())
        assert rows == [["recipe", "4", "0.750", "0.500", "0.000", "0.417"]]
        write_run(
            FoldRun("compact", fold, "seed-1"), score_of("abcd"[fold - 1], (fold / 10, 0.5, 0.0))
        )
    _, seed = cells(accuracy.seed_table())
    assert seed == ["seed-1", "4", "0.250", "0.500", "0.000", "0.250"]


@pytest.mark.usefixtures("folds_folder")
def test_distances_volumes_and_what_lies_outside() -> None:
    four_folds()
    wt, _, et, *rules = cells(accuracy.distance_table())
    assert wt == ["compact", "raw", "WT", "2.0", "2.0", "1.0", "+1.0"]
    assert et[3:5] == ["373.1", "373.1"]
    assert [row[1] for row in rules] == ["rules"] * 3
    assert cells(accuracy.outside_table()) == [
        ["compact", "raw", "4", "0.25", "0.25", "0.40"],
        ["compact", "rules", "4", "0.00", "0.00", "0.00"],
    ]


@pytest.mark.usefixtures("folds_folder")
def test_what_is_found_in_healthy_phantoms(folds_folder: Path) -> None:
    for fold, volumes in ((1, (0.0, 0.5)), (2, (0.1, 3.0))):
        folder = folds_folder / f"nano-{fold}"
        folder.mkdir()
        rows = "".join(f"{seed},raw,{ml}\n{seed},rules,0.0\n" for seed, ml in enumerate(volumes))
        (folder / "healthy.csv").write_text(f"seed,masks,mL\n{rows}")
    raw, rules = cells(accuracy.healthy_table())
    assert raw == ["nano", "raw", "4", "0.30", "0.90", "3.00"]
    assert rules == ["nano", "rules", "4", "0.00", "0.00", "0.00"]


@pytest.mark.usefixtures("folds_folder")
def test_the_cost_of_precision_is_paired() -> None:
    four_folds()
    [row] = cells(accuracy.precision_table())
    assert row == ["compact int8", "-0.0033", "-0.0033", "-0.0033"]


@pytest.mark.usefixtures("folds_folder")
def test_every_patient_the_worst_first() -> None:
    four_folds()
    rows = cells(accuracy.patient_table())
    assert [row[0] for row in rows] == ["b", "c", "a", "d"]
    assert rows[0][1:4] == ["low", "2", "0.500"]


@pytest.mark.usefixtures("folds_folder")
def test_the_spread_is_the_difference_of_two_seeds() -> None:
    def both(variant: str, one: float, two: float) -> None:
        for fold, case, dice in ((1, "a", one), (2, "b", two)):
            write_run(FoldRun("compact", fold, variant), score_of(case, (dice, dice, dice)))

    both("recipe", 0.80, 0.60)
    assert accuracy.seed_spread() is None
    both("seed-1", 0.80, 0.64)
    assert accuracy.seed_spread() == pytest.approx(0.02)


@pytest.mark.usefixtures("folds_folder")
def test_an_experiment_is_a_row_with_the_commit_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accuracy, "ABLATION", tmp_path / "ablation.csv")
    columns = "experiment,folds,mean,baseline,gain,interval,decision,commit"
    row = "fade,1-2,0.7812,0.7801,+0.0011,-0.001 to +0.003,rejected,abc1234"
    accuracy.ABLATION.write_text(f"{columns}\n{row}\n")
    assert cells(accuracy.ablation_table()) == [
        [*("fade", "1-2", "0.7812", "0.7801", "+0.0011"), "-0.001 to +0.003", "rejected", "abc1234"]
    ]
