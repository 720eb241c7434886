"""`images.csv`: a row for each patient and way to send slices up the line."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

from benchmarks.runs import ROOT
from glioslice.files import whole

RESULT = ROOT / "benchmarks" / "line" / "images.csv"
EXACT = "exact"
EVERY = 4
"""Of the slices of a patient, where not all are sent."""


@dataclass(frozen=True)
class Row:
    """One patient in one way: mean bytes and milliseconds of a slice, Dice over the slices sent.

    `every` is 1 for all slices; Dice is None where nothing is lost.
    """

    case: str
    family: str
    setting: str
    every: int
    size: float
    encode_ms: float
    decode_ms: float
    wt: float | None
    tc: float | None
    et: float | None


def write_rows(rows: Sequence[Row]) -> None:
    """Write the rows, whole or not at all."""
    with whole(RESULT) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in rows)


def read_rows() -> list[Row]:
    """Return the committed rows."""
    with RESULT.open(newline="") as file:
        return [_parsed(row) for row in csv.DictReader(file)]


def _parsed(row: dict[str, str]) -> Row:
    wt, tc, et = (float(row[name]) if row[name] else None for name in ("wt", "tc", "et"))
    numbers = float(row["size"]), float(row["encode_ms"]), float(row["decode_ms"])
    return Row(row["case"], row["family"], row["setting"], int(row["every"]), *numbers, wt, tc, et)
