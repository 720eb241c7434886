"""The search for a form: the page is that of the committed rows, ranked by both folds."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import search
from benchmarks.rivals import CANDIDATES
from benchmarks.search import Tried, read, search_table
from glioslice.errors import GliosliceError
from training.network import build, macs, named_config, parameters

ONE = Tried("five", 1, 44_323, 60_579_840, 55_192, 0.9, 0.8, 0.7)


def test_the_page_is_that_of_the_committed_rows() -> None:
    wanted = search_table(read())
    part = f"<!-- figures: search -->\n{wanted}\n<!-- end of search -->"
    assert part in search.PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("row", read(), ids=lambda row: f"{row.candidate}-{row.fold}")
def test_a_row_is_of_the_network_that_it_names(row: Tried) -> None:
    name, config = named_config(f"benchmarks.rivals:{row.candidate.upper()}")
    network = build(config)
    assert (name, config) == (row.candidate, CANDIDATES[row.candidate])
    assert (parameters(network), macs(network, (160, 192))) == (row.parameters, row.macs)
    assert row.parameters < row.bytes < 60_000


def test_one_without_a_fold_is_not_ranked() -> None:
    rows = [replace(ONE, candidate="four", ET=1.0), ONE, replace(ONE, fold=2, WT=0.6)]
    lines = search_table(rows).splitlines()[2:]
    assert [line.split(" | ")[-3:] for line in lines] == [
        ["0.800", "0.700", "0.750 |"],
        ["0.900", "-", "- |"],
    ]


def test_a_new_row_takes_the_place_of_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FILE", tmp_path / "search.csv")
    for row in (ONE, replace(ONE, candidate="four"), replace(ONE, WT=0.5)):
        search.keep(row)
    assert read() == [replace(ONE, candidate="four"), replace(ONE, WT=0.5)]


def test_a_candidate_that_nobody_knows() -> None:
    with pytest.raises(GliosliceError, match="no candidate 'six'; there are full, four"):
        search.work(Namespace(candidate=["six"], data=None))
