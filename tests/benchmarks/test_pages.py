"""Figures are written between their marks and nowhere else."""

from pathlib import Path

import pytest

from benchmarks.pages import fill, table
from glioslice.errors import GliosliceError

PAGE = "above\n<!-- figures: a -->\nold\n<!-- end of a -->\nbelow\n"


def test_text_between_marks_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    fill(page, {"a": "new"})
    assert page.read_text() == PAGE.replace("old", "new")


@pytest.mark.parametrize("broken", ["no marks", PAGE.replace("end of a", "end of b")])
def test_a_page_without_its_marks_is_unchanged(broken: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(broken)
    with pytest.raises(GliosliceError, match="are missing"):
        fill(page, {"a": "new"})
    assert page.read_text() == broken


def test_markdown_table() -> None:
    assert table(("a", "b"), [(1, "x")]) == "| a | b |\n| --- | --- |\n| 1 | x |"
