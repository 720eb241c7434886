"""docs/conversion.md shows the reports of the shipped models."""

import pytest

from convert.to_tflite import TARGETS
from tests.conftest import ROOT
from tools import figures

PAGE = (ROOT / "docs" / "conversion.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("part", ["files", "gate", "layers"])
def test_the_page_shows_the_shipped_reports(part: str) -> None:
    wanted = getattr(figures, f"{part}_table")()
    assert wanted.count("\n") > 2
    assert f"<!-- figures: {part} -->\n{wanted}\n<!-- end of {part} -->" in PAGE


@pytest.mark.slow
def test_the_page_shows_the_checks_for_targets() -> None:
    wanted = figures.targets_table()
    rows = wanted.splitlines()[2:]
    assert len(rows) == 2 * len(TARGETS)
    # No Edge TPU compiler is installed.
    assert all(("| not verified |" if "`coral`" in r else "| compatible |") in r for r in rows)
    assert f"<!-- figures: targets -->\n{wanted}\n<!-- end of targets -->" in PAGE


def test_every_shipped_product_passed() -> None:
    for report in figures.reports():
        assert all(report["gate"][f["precision"]] for f in report["files"] if f["product"])
    rows = figures.gate_table().splitlines()[2:]
    assert len(rows) == sum(f["product"] for r in figures.reports() for f in r["files"])
