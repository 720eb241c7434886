"""The table of a batch: what became of each case, for people and as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from glioslice.labels import REGIONS

COMPLETE, BEFORE, FAILED, ENDED, WAITING = "complete", "done before", "failed", "ended", "waiting"
"""Done now; done by an earlier run; bad; the batch ended in it; the batch did not come to it."""


@dataclass(frozen=True)
class Row:
    """A case: what became of it, and numbers as far as they are known; volumes in mL."""

    case: str
    state: str = WAITING
    slices: int | None = None
    seconds: float | None = None
    volumes_ml: Mapping[str, float] | None = None
    dice: Mapping[str, float] | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the row for a program."""
        return asdict(self)


def row_of(case: str, state: str, report: Mapping[str, Any]) -> Row:
    """Return the row of a case that has a report, or an empty one."""
    names = ("slices", "seconds", "volumes_ml", "dice")
    return Row(case, state, **{name: report.get(name) for name in names})


def table_of(rows: Iterable[Row]) -> list[str]:
    """Return the lines of the table for people."""
    listed = list(rows)
    wide = max((len(row.case) for row in listed), default=4)
    scored = any(row.dice for row in listed)
    heads = [f"{'case':{wide}}  {'state':11}{'slices':>7}{'s':>8}"]
    heads += [f"{region + ' mL':>9}" for region in REGIONS]
    heads += [f"{'Dice ' + region:>9}" for region in REGIONS if scored]
    lines = ["".join(heads)]
    for row in listed:
        cells = [f"{row.case:{wide}}  {row.state:11}{_cell(row.slices, 'd'):>7}"]
        cells += [f"{_cell(row.seconds, '.1f'):>8}"]
        cells += [f"{_cell((row.volumes_ml or {}).get(r), '.1f'):>9}" for r in REGIONS]
        cells += [f"{_cell((row.dice or {}).get(r), '.3f'):>9}" for r in REGIONS if scored]
        lines.append("".join(cells))
    return lines


def csv_of(rows: Iterable[Row]) -> str:
    """Return the table as CSV; empty where a number is not known."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{r}_{what}" for what in ("ml", "dice") for r in REGIONS]
    writer.writerow(["case", "state", "slices", "seconds", *names, "error"])
    for row in rows:
        numbers = [*((row.volumes_ml or {}).get(r) for r in REGIONS)]
        numbers += [(row.dice or {}).get(r) for r in REGIONS]
        writer.writerow([row.case, row.state, row.slices, row.seconds, *numbers, row.error])
    return file.getvalue()


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
