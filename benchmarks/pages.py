"""Figures in a page for people: text between two marks, written by a command and by nobody else."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from glioslice.errors import GliosliceError
from glioslice.files import write_bytes


def fill(page: Path, parts: Mapping[str, str]) -> None:
    """Put each text between `<!-- figures: NAME -->` and `<!-- end of NAME -->` of the page.

    Raises GliosliceError if the page lacks a mark; it is then as it was.
    """
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- figures: {name} -->", f"<!-- end of {name} -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise GliosliceError(f"{page}: the marks {begin} and {end} are missing")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    write_bytes(page, text.encode())


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
