"""The choice of how a volume is cleaned, from what is kept."""

import pytest

from benchmarks import cleanup
from benchmarks.cleanup import GRID, Tried
from benchmarks.runs import FOLDS, patients
from benchmarks.tables import pooled
from glioslice.cleanup import Rules


def test_what_is_kept_is_whole_and_begins_with_the_scores_of_the_folds() -> None:
    tried = cleanup.read()
    assert {(one.case, one.rules) for one in tried} == {
        (patient.case, rules) for patient in patients() for rules in GRID
    }
    raw = {one.case: one.dice for one in tried if one.rules == Rules()}
    scored = {score.case: score.dice for score in pooled(cleanup.SIZE)}
    assert raw.keys() == scored.keys()
    for case, dice in raw.items():
        assert dice == pytest.approx(scored[case], abs=2e-5), case


def test_the_page_says_what_is_kept() -> None:
    assert cleanup.page(cleanup.read()) in cleanup.PAGE.read_text()


def test_a_fold_has_no_part_in_its_own_rules() -> None:
    """Patients of fold 1 alone love one set of rules, everyone else another."""
    mine, theirs = GRID[5], GRID[9]
    tried = [
        Tried(patient.case, rules, (float(rules == (mine if patient.fold == 1 else theirs)),) * 3)
        for patient in patients()
        for rules in GRID
    ]
    assert cleanup.best(tried, [2, 3, 4]) == theirs
    assert cleanup.best(tried, [1]) == mine
    first = cleanup.page(tried).splitlines()[2]
    assert first.endswith("| 0.000 | 0.000 |")
    assert cleanup.best(tried, FOLDS) == theirs
