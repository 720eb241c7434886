"""Progress on a terminal and elsewhere."""

import io
import re
import sys

import pytest

from firmware_host.bar import bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setenv("COLUMNS", "120")
    with bar(20, "segmenting it") as advance:
        for _ in range(20):
            advance()
    drawn = terminal.getvalue()
    for words in ("segmenting it", "20/20", "slices/s", "0:00:00"):
        assert words in drawn
    assert re.search(r"\d\.\d slices/s", drawn)


def test_plain_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(21, "segmenting it") as advance:
        for _ in range(21):
            advance()
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        f"segmenting it: {done} of 21" for done in (5, 10, 15, 20, 21)
    ]
    assert all("slices/s" in line and line.endswith("s left") for line in lines)
    assert captured.out == ""


def test_a_terminal_without_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setitem(sys.modules, "rich", None)
    with bar(1, "segmenting it") as advance:
        advance()
    assert terminal.getvalue().startswith("segmenting it: 1 of 1")
