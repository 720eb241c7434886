"""The page with several boards: one case in the planes, and a table of all boards."""

from pathlib import Path

import pytest

from tests.conftest import Write
from tests.firmware_host.scripted import SHA256
from tests.firmware_host.viewer.conftest import Open, Start

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_every_board_is_in_the_table(
    command: Start, tab: Open, write_case: Write, tmp_path: Path
) -> None:
    for name in ("Ada", "Ben"):
        write_case(name, folder=tmp_path / "cases")
    options = ("--port", "sim://?baud=921600", "--boards", 2, "--allow-model", SHA256, "--view")
    started = command(None, tmp_path / "cases", *options, "--output", tmp_path / "masks")
    page = tab(started.url)
    page.until("glioslice.numbers.boards?.every((board) => board.finished === 1)")
    page.until("document.querySelectorAll('#boards tbody tr').length === 2")
    assert "2 done on 2" in page.text("#boards-sum")
    assert [page.text(f"#boards tr:nth-child({n}) td:first-child") for n in (1, 2)] == [
        "sim-1",
        "sim-2",
    ]
    page.until("glioslice.arrivals === 14")  # the planes show one of the cases
    started.wait_until_over()
    assert page.errors == []
