"""docs/conversion.md shows the reports of the models that are shipped, and not those of others."""

import pytest

from benchmarks import conversions
from convert.targets import TARGETS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "conversion.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("part", ["files", "gate", "layers"])
def test_the_page_is_that_of_the_shipped_reports(part: str) -> None:
    wanted = getattr(conversions, f"{part}_table")()
    assert wanted.count("\n") > 2
    assert f"<!-- figures: {part} -->\n{wanted}\n<!-- end of {part} -->" in PAGE


@pytest.mark.slow
def test_the_page_says_what_the_checks_for_boards_say() -> None:
    wanted = conversions.targets_table()
    rows = wanted.splitlines()[2:]
    assert len(rows) == 2 * len(TARGETS) and all("| suits |" in row for row in rows)
    assert f"<!-- figures: targets -->\n{wanted}\n<!-- end of targets -->" in PAGE


def test_every_shipped_product_held() -> None:
    for report in conversions.reports():
        assert all(report["gate"][f["precision"]] for f in report["files"] if f["product"])
    rows = conversions.gate_table().splitlines()[2:]
    assert len(rows) == sum(f["product"] for r in conversions.reports() for f in r["files"])
