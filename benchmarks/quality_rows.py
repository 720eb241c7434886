"""The two tables of `benchmarks/quality/`: numbers of slices and cases, no voxels."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.quality_definitions import BYTE, DEFINITIONS
from benchmarks.runs import ROOT
from glioslice.files import whole
from glioslice.labels import REGIONS

FOLDER = ROOT / "benchmarks" / "quality"
NAMES = (BYTE, *DEFINITIONS)


@dataclass(frozen=True)
class SliceRow:
    """Slice `z`: pixels of mask and truth, Dice of WT, TC, ET, and what each definition says.

    The Dice of a region is None where neither mask nor truth hold it.
    """

    case: str
    z: int
    pixels: int
    truth: int
    dice: tuple[float | None, ...]
    said: Mapping[str, int]

    @property
    def mean(self) -> float:
        """The mean Dice of the regions that mask or truth hold; 1 where neither holds any."""
        return fmean([one for one in self.dice if one is not None] or [1.0])


@dataclass(frozen=True)
class CaseRow:
    """A case, `missing` a modality ("": none): its byte, and how many pixels its masks hold.

    That byte is the mean over the masks, weighted by their pixels, as the desk counts it.
    """

    case: str
    missing: str
    pixels: int
    byte: float


def case_byte(masks: Iterable[tuple[int, int]]) -> tuple[int, float]:
    """Return the pixels of masks, given as (pixels, byte), and their mean byte so weighted."""
    held = [(pixels, byte) for pixels, byte in masks if pixels]
    total = sum(pixels for pixels, _ in held)
    return total, sum(pixels * byte for pixels, byte in held) / total if total else 0.0


def write_rows(slices: Sequence[SliceRow], cases: Sequence[CaseRow]) -> None:
    """Write both tables, each whole or not at all."""
    head = ("case", "z", "pixels", "truth", *REGIONS, *NAMES)
    lines = [
        (r.case, r.z, r.pixels, r.truth, *("" if d is None else f"{d:.3f}" for d in r.dice),
         *(r.said[name] for name in NAMES))
        for r in slices
    ]  # fmt: skip
    _write(FOLDER / "slices.csv", head, lines)
    head = ("case", "missing", "pixels", "byte")
    rows = [(r.case, r.missing, r.pixels, f"{r.byte:.1f}") for r in cases]
    _write(FOLDER / "cases.csv", head, rows)


def read_slices() -> list[SliceRow]:
    """Return the committed rows of slices."""
    return [
        SliceRow(
            row["case"],
            int(row["z"]),
            int(row["pixels"]),
            int(row["truth"]),
            tuple(float(row[r]) if row[r] else None for r in REGIONS),
            {name: int(row[name]) for name in NAMES},
        )
        for row in _read(FOLDER / "slices.csv")
    ]


def read_cases() -> list[CaseRow]:
    """Return the committed rows of cases."""
    return [
        CaseRow(row["case"], row["missing"], int(row["pixels"]), float(row["byte"]))
        for row in _read(FOLDER / "cases.csv")
    ]


def _write(path: Path, head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    with whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(lines)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
