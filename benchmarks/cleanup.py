"""Choose how a volume is cleaned, and measure it on patients who had no part in the choice.

    python benchmarks/cleanup.py --data ../shared/data/brats    # benchmarks/folds/cleanup.csv
    python benchmarks/cleanup.py                                # docs/accuracy.md from what is kept

Every set of rules is tried on the masks of every patient, by the int8 file of the network that was
not trained on the patient. A fold's patients are then scored with the rules that were best for the
patients of the other three folds. Those that are best for all of them are named last.
"""

import argparse
import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.pages import fill, table
from benchmarks.runs import FOLDS, KEPT, ROOT, Run, patients
from benchmarks.tables import interval_of
from device.engine import Engine
from device.segment import segment
from glioslice import command
from glioslice.cases import find_cases, read_case
from glioslice.cleanup import Rules, cleaned
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.labels import REGIONS
from glioslice.metrics import region_dice
from glioslice.progress import track

SIZE = "compact"
FILE = KEPT / "cleanup.csv"
PAGE = ROOT / "docs" / "accuracy.md"

GRID = tuple(
    Rules(*one)
    for one in product((False, True), (0.0, 0.1), (0.0, 0.1, 0.3, 0.5), (0.0, 0.05, 0.1, 0.2))
)
COLUMNS = ("case", *(field.name for field in fields(Rules)), *REGIONS)


@dataclass(frozen=True)
class Tried:
    """Dice of WT, TC, ET of a patient whose masks were cleaned by `rules`."""

    case: str
    rules: Rules
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return fmean(self.dice)


def main() -> None:
    """Do what the command line says."""
    parser = command.parser(
        "Choose how a volume is cleaned, and measure it.",
        "python benchmarks/cleanup.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="a folder of cases; without, nothing is tried")
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Try, keep, and write the page."""
    if arguments.data:
        write_bytes(FILE, text_of(tried_on(arguments.data)).encode())
    tried = read()
    fill(PAGE, {"cleanup": page(tried)})
    print(f"best for all: {best(tried, FOLDS)}\nwritten: {PAGE.name}")


def tried_on(data: Path) -> list[Tried]:
    """Return every set of rules on every patient; raises GliosliceError if one is not in `data`."""
    found = {files.name: files for files in find_cases(data)}
    engines = {fold: engine_of(fold) for fold in FOLDS}
    tried: list[Tried] = []
    for patient in track(patients(), "cleaning"):
        if patient.case not in found:
            raise GliosliceError(f"{data}: lacks {patient.case}")
        case = read_case(found[patient.case])
        assert case.labels is not None
        labels = segment(case.images, engines[patient.fold]).labels
        box = around(labels | case.labels)
        for rules in GRID:
            scores = region_dice(cleaned(labels[box], rules), case.labels[box])
            dice = tuple(round(scores[region], 5) for region in REGIONS)
            tried.append(Tried(patient.case, rules, dice))
    return tried


def engine_of(fold: int) -> Engine:
    """Return the int8 network that was not trained on the patients of `fold`."""
    [file] = Run(SIZE, fold).folder.glob("*-int8.tflite")
    return Engine(file)


def around(held: NDArray[np.uint8]) -> tuple[slice, ...]:
    """Return the box of what is not 0, with all slices: the ends of a volume are smoothed else."""
    x, y = (np.flatnonzero(held.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    return np.s_[x[0] : x[-1] + 1, y[0] : y[-1] + 1, :] if x.size else np.s_[:0, :0, :]


def text_of(tried: Sequence[Tried]) -> str:
    """Return them as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in tried:
        writer.writerow([one.case, *map(float, astuple(one.rules)), *one.dice])
    return file.getvalue()


def read() -> list[Tried]:
    """Return what is kept."""
    with FILE.open(newline="") as file:
        return [
            Tried(
                row["case"],
                Rules(bool(float(row["smooth"])), *(float(row[name]) for name in COLUMNS[2:5])),
                tuple(float(row[region]) for region in REGIONS),
            )
            for row in csv.DictReader(file)
        ]


def best(tried: Sequence[Tried], folds: Sequence[int]) -> Rules:
    """Return the rules with the largest mean over the patients of `folds`; of equals, the first."""
    cases = {patient.case for patient in patients() if patient.fold in folds}
    sums = dict.fromkeys(GRID, 0.0)
    for one in tried:
        if one.case in cases:
            sums[one.rules] += one.mean
    return max(sums, key=lambda rules: round(sums[rules], 6))


def page(tried: Sequence[Tried]) -> str:
    """Return what the page says."""
    of = {(one.case, one.rules): one for one in tried}
    rows, pairs = [], []
    for fold in FOLDS:
        rules = best(tried, [other for other in FOLDS if other != fold])
        cases = [patient.case for patient in patients() if patient.fold == fold]
        raw, clean = ([of[case, r] for case in cases] for r in (Rules(), rules))
        pairs += list(zip(raw, clean, strict=True))
        rows.append((fold, said(rules), f"{mean(raw):.3f}", f"{mean(clean):.3f}"))
    gains = [clean.mean - raw.mean for raw, clean in pairs]
    low, high = interval_of(gains)
    each = ", ".join(
        f"{region} {fmean(clean.dice[i] - raw.dice[i] for raw, clean in pairs):+.3f}"
        for i, region in enumerate(REGIONS)
    )
    return (
        f"{table(('fold', 'rules, chosen on the other three', 'as it came', 'cleaned'), rows)}\n\n"
        f"Gain in mean Dice, paired by patient: {fmean(gains):+.4f} ({low:+.4f} to {high:+.4f}; "
        f"{each}); worst patient {min(gains):+.3f}, best {max(gains):+.3f}, "
        f"{sum(gain < 0 for gain in gains)} of {len(gains)} lose. Best for all four folds: "
        f"{said(best(tried, FOLDS))}."
    )


def mean(tried: Sequence[Tried]) -> float:
    """Return the mean over patients."""
    return fmean(one.mean for one in tried)


def said(rules: Rules) -> str:
    """Return rules in words."""
    words = ["smooth"] if rules.smooth else []
    words += [f"WT {rules.share:.0%} of the largest"] if rules.share else []
    words += [f"TC {rules.core_ml:g} mL"] if rules.core_ml else []
    words += [f"ET {rules.enhancing_ml:g} mL"] if rules.enhancing_ml else []
    return ", ".join(words) or "none"


if __name__ == "__main__":
    main()
