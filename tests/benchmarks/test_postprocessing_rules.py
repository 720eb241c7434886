"""The choice of post-processing rules, from the committed rows."""

import pytest

from benchmarks.accuracy_tables import pooled_scores
from benchmarks.folds import FOLDS, patients
from benchmarks.postprocessing_rules import (
    FILE,
    GRID,
    PAGE,
    SIZE,
    RuleScore,
    best_rules,
    make_section,
    read_rows,
    scores_csv,
)
from glioslice.postprocessing import PostprocessingRules


def test_the_committed_rows_are_complete_and_agree_with_the_scores_of_the_folds() -> None:
    scores = read_rows()
    assert {(one.case, one.rules) for one in scores} == {
        (patient.case, rules) for patient in patients() for rules in GRID
    }
    raw = {one.case: one.dice for one in scores if one.rules == PostprocessingRules()}
    scored = {score.case: score.dice for score in pooled_scores(SIZE)}
    assert raw.keys() == scored.keys()
    for case, dice in raw.items():
        assert dice == pytest.approx(scored[case], abs=2e-5), case


def test_the_page_shows_the_committed_rows() -> None:
    assert make_section(read_rows()) in PAGE.read_text()


def test_rows_are_written_as_they_were_read() -> None:
    assert scores_csv(read_rows()) == FILE.read_text()


def test_a_fold_has_no_part_in_its_own_rules() -> None:
    """Patients of fold 1 alone gain from one set of rules, everyone else from another."""
    mine, theirs = GRID[5], GRID[9]
    scores = [
        RuleScore(p.case, rules, (float(rules == (mine if p.fold == 1 else theirs)),) * 3)
        for p in patients()
        for rules in GRID
    ]
    assert best_rules(scores, [2, 3, 4]) == theirs
    assert best_rules(scores, [1]) == mine
    first = make_section(scores).splitlines()[2]
    assert first.endswith("| 0.000 | 0.000 |")
    assert best_rules(scores, FOLDS) == theirs
