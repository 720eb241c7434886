"""The choice of settings that need no training, from what is kept."""

from typing import Any

import pytest

from benchmarks.choosing import PAGE, SIZE, Choice, Tried
from benchmarks.cleanup import CLEANUP
from benchmarks.runs import FOLDS, patients
from benchmarks.tables import pooled
from benchmarks.thresholds import THRESHOLDS

each = pytest.mark.parametrize("choice", [CLEANUP, THRESHOLDS], ids=lambda choice: choice.name)


@each
def test_what_is_kept_is_whole_and_holds_the_scores_of_the_folds(choice: Choice[Any]) -> None:
    tried = choice.read()
    assert {(one.case, one.setting) for one in tried} == {
        (patient.case, setting) for patient in patients() for setting in choice.grid
    }
    raw = {one.case: one.dice for one in tried if one.setting == choice.as_is}
    scored = {score.case: score.dice for score in pooled(SIZE)}
    assert raw.keys() == scored.keys()
    for case, dice in raw.items():
        assert dice == pytest.approx(scored[case], abs=2e-5), case


@each
def test_the_page_says_what_is_kept(choice: Choice[Any]) -> None:
    assert choice.page(choice.read()) in PAGE.read_text()


@each
def test_what_is_kept_is_written_as_it_was_read(choice: Choice[Any]) -> None:
    assert choice.text_of(choice.read()) == choice.file.read_text()


@each
def test_a_fold_has_no_part_in_its_own_setting(choice: Choice[Any]) -> None:
    """Patients of fold 1 alone love one setting, everyone else another."""
    mine, theirs = choice.grid[5], choice.grid[9]
    tried = [
        Tried(p.case, setting, (float(setting == (mine if p.fold == 1 else theirs)),) * 3)
        for p in patients()
        for setting in choice.grid
    ]
    assert choice.best(tried, [2, 3, 4]) == theirs
    assert choice.best(tried, [1]) == mine
    first = choice.page(tried).splitlines()[2]
    assert first.endswith("| 0.000 | 0.000 |")
    assert choice.best(tried, FOLDS) == theirs
