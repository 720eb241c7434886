"""Choose a setting that needs no training, and measure it on patients without a part in that.

Every setting of a grid is tried on every patient, by the int8 file of the network that was not
trained on the patient. A fold's patients are then scored with the setting that was best for the
patients of the other three folds. What was tried is kept in benchmarks/folds/, one row a patient
and setting, and docs/accuracy.md is written from there.
"""

import argparse
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.pages import fill, table
from benchmarks.runs import FOLDS, KEPT, ROOT, Run, patients
from benchmarks.tables import interval_of
from device.engine import Engine
from glioslice import command
from glioslice.cases import Case, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.labels import REGIONS
from glioslice.metrics import region_dice
from glioslice.progress import track

SIZE = "compact"
PAGE = ROOT / "docs" / "accuracy.md"

C = TypeVar("C", bound=Any)
"""A setting: a frozen dataclass of numbers."""


@dataclass(frozen=True)
class Tried(Generic[C]):
    """Dice of WT, TC, ET of a patient who was segmented with `setting`."""

    case: str
    setting: C
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return fmean(self.dice)


@dataclass(frozen=True)
class Choice(Generic[C]):
    """What is chosen: its name, the settings, the one as it is, and how one reads in a sentence.

    `column` and `after` head the table's columns: what is chosen, and Dice with it.
    `labelled` yields the labels (X, Y, Z) of a case by an engine for each setting of the grid; no
    column of voxels along Z may hold tumour that held none with the first setting.
    """

    name: str
    grid: tuple[C, ...]
    as_is: C
    said: Callable[[C], str]
    column: str
    after: str
    labelled: Callable[[Case, Engine], Iterator[tuple[C, NDArray[np.uint8]]]]

    @property
    def file(self) -> Path:
        """Where what was tried is kept."""
        return KEPT / f"{self.name}.csv"

    @property
    def columns(self) -> tuple[str, ...]:
        """The header of that file."""
        return ("case", *(field.name for field in fields(self.as_is)), *REGIONS)

    def main(self, title: str) -> None:
        """Do what the command line of benchmarks/NAME.py says."""
        parser = command.parser(
            title, f"python benchmarks/{self.name}.py --data ../shared/data/brats"
        )
        parser.add_argument("--data", type=Path, help="a folder of cases, to try on")
        command.run(self.work, parser.parse_args())

    def work(self, arguments: argparse.Namespace) -> None:
        """Try, keep, and write the page."""
        if arguments.data:
            write_bytes(self.file, self.text_of(self.tried_on(arguments.data)).encode())
        tried = self.read()
        fill(PAGE, {self.name: self.page(tried)})
        print(f"best for all: {self.said(self.best(tried, FOLDS))}\nwritten: {PAGE.name}")

    def tried_on(self, data: Path) -> list[Tried[C]]:
        """Try every setting on every patient; raises GliosliceError if one is not in `data`."""
        found = {files.name: files for files in find_cases(data)}
        engines = {fold: engine_of(fold) for fold in FOLDS}
        tried: list[Tried[C]] = []
        for patient in track(patients(), self.name):
            if patient.case not in found:
                raise GliosliceError(f"{data}: lacks {patient.case}")
            case = read_case(found[patient.case])
            assert case.labels is not None
            box = None
            for setting, labels in self.labelled(case, engines[patient.fold]):
                box = box or around(labels | case.labels)
                scores = region_dice(labels[box], case.labels[box])
                dice = tuple(round(scores[region], 5) for region in REGIONS)
                tried.append(Tried(patient.case, setting, dice))
        return tried

    def text_of(self, tried: Sequence[Tried[C]]) -> str:
        """Return them as CSV."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        for one in tried:
            writer.writerow([one.case, *numbers(one.setting), *one.dice])
        return file.getvalue()

    def read(self) -> list[Tried[C]]:
        """Return what is kept."""
        settings = {numbers(setting): setting for setting in self.grid}
        names = self.columns[1 : -len(REGIONS)]
        with self.file.open(newline="") as file:
            return [
                Tried(
                    row["case"],
                    settings[tuple(float(row[name]) for name in names)],
                    tuple(float(row[region]) for region in REGIONS),
                )
                for row in csv.DictReader(file)
            ]

    def best(self, tried: Sequence[Tried[C]], folds: Sequence[int]) -> C:
        """Return the setting with the largest mean over `folds`; of equals, the grid's first."""
        cases = {patient.case for patient in patients() if patient.fold in folds}
        sums = dict.fromkeys(self.grid, 0.0)
        for one in tried:
            if one.case in cases:
                sums[one.setting] += one.mean
        return max(sums, key=lambda setting: round(sums[setting], 6))

    def page(self, tried: Sequence[Tried[C]]) -> str:
        """Return what the page says."""
        of = {(one.case, one.setting): one for one in tried}
        rows, pairs = [], []
        for fold in FOLDS:
            chosen = self.best(tried, [other for other in FOLDS if other != fold])
            cases = [patient.case for patient in patients() if patient.fold == fold]
            raw, better = ([of[case, s] for case in cases] for s in (self.as_is, chosen))
            pairs += list(zip(raw, better, strict=True))
            rows.append((fold, self.said(chosen), f"{mean(raw):.3f}", f"{mean(better):.3f}"))
        gains = [better.mean - raw.mean for raw, better in pairs]
        low, high = interval_of(gains)
        each = ", ".join(
            f"{region} {fmean(better.dice[i] - raw.dice[i] for raw, better in pairs):+.3f}"
            for i, region in enumerate(REGIONS)
        )
        header = ("fold", f"{self.column}, chosen on the other three", "as it came", self.after)
        return (
            f"{table(header, rows)}\n\n"
            f"Gain in mean Dice, paired by patient: {fmean(gains):+.4f} "
            f"({low:+.4f} to {high:+.4f}; {each}); worst patient {min(gains):+.3f}, "
            f"best {max(gains):+.3f}, {sum(gain < 0 for gain in gains)} of {len(gains)} lose. "
            f"Best for all four folds: {self.said(self.best(tried, FOLDS))}."
        )


def engine_of(fold: int) -> Engine:
    """Return the int8 network that was not trained on the patients of `fold`."""
    [file] = Run(SIZE, fold).folder.glob("*-int8.tflite")
    return Engine(file)


def around(held: NDArray[np.uint8]) -> tuple[slice, ...]:
    """Return the box of what is not 0, with all slices: the ends of a volume are smoothed else."""
    x, y = (np.flatnonzero(held.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    return np.s_[x[0] : x[-1] + 1, y[0] : y[-1] + 1, :] if x.size else np.s_[:0, :0, :]


def numbers(setting: Any) -> tuple[float, ...]:
    """Return the fields of a setting."""
    return tuple(map(float, astuple(setting)))


def mean(tried: Sequence[Tried[Any]]) -> float:
    """Return the mean over patients."""
    return fmean(one.mean for one in tried)
