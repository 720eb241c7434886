"""Choose rules for the post-processing of a volume, and measure them by cross-validation.

    python benchmarks/postprocessing_rules.py --data ../shared/data/brats    # benchmarks/folds/cleanup.csv
    python benchmarks/postprocessing_rules.py                                # docs/accuracy.md from that file

Every set of rules is tried on every patient, on the mask of the int8 network that was not trained
on the patient. A fold's patients are then scored with the rules that were best for the patients of
the other three folds.
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

from benchmarks.accuracy_tables import interval_of
from benchmarks.folds import FOLDS, KEPT, ROOT, Run, patients
from benchmarks.pages import fill, table
from device.engine import Engine
from device.segment import segment
from glioslice import cli
from glioslice.cases import find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.labels import REGIONS
from glioslice.metrics import region_dice
from glioslice.postprocessing import Rules, cleaned

SIZE = "compact"
FILE = KEPT / "cleanup.csv"
PAGE = ROOT / "docs" / "accuracy.md"
GRID = tuple(
    Rules(*one)
    for one in product((False, True), (0.0, 0.1), (0.0, 0.1, 0.3, 0.5), (0.0, 0.05, 0.1, 0.2))
)
NAMES = tuple(field.name for field in fields(Rules))


@dataclass(frozen=True)
class Tried:
    """Dice of WT, TC, ET of a patient whose mask was processed by `rules`."""

    case: str
    rules: Rules
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return fmean(self.dice)


def main() -> None:
    """Read the command line, try the rules and write the page."""
    parser = cli.parser(
        "Choose rules for the post-processing of a volume, and measure them.",
        "python benchmarks/postprocessing_rules.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="a folder of cases, to try on")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    if arguments.data:
        write_bytes(FILE, text_of(tried_on(arguments.data)).encode())
    tried = read()
    fill(PAGE, {"cleanup": section(tried)})
    print(f"best for all: {described(best(tried, FOLDS))}\nwritten: {PAGE.name}")


def tried_on(data: Path) -> list[Tried]:
    """Try every set of rules on every patient; raises GliosliceError if one is not in `data`."""
    found = {files.name: files for files in find_cases(data)}
    engines = {fold: Engine(Run(SIZE, fold).folder / f"{SIZE}-int8.tflite") for fold in FOLDS}
    tried: list[Tried] = []
    for patient in track(patients(), "post-processing"):
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


def around(held: NDArray[np.uint8]) -> tuple[slice, ...]:
    """Return the box of what is not 0, with all slices: smoothing treats a volume's ends apart."""
    x, y = (np.flatnonzero(held.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    return np.s_[x[0] : x[-1] + 1, y[0] : y[-1] + 1, :] if x.size else np.s_[:0, :0, :]


def text_of(tried: Sequence[Tried]) -> str:
    """Return them as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["case", *NAMES, *REGIONS])
    writer.writerows([one.case, *numbers(one.rules), *one.dice] for one in tried)
    return file.getvalue()


def read() -> list[Tried]:
    """Return the committed rows."""
    by_numbers = {numbers(rules): rules for rules in GRID}
    with FILE.open(newline="") as file:
        return [
            Tried(
                row["case"],
                by_numbers[tuple(float(row[name]) for name in NAMES)],
                tuple(float(row[region]) for region in REGIONS),
            )
            for row in csv.DictReader(file)
        ]


def numbers(rules: Rules) -> tuple[float, ...]:
    """Return the fields of rules as numbers."""
    return tuple(map(float, astuple(rules)))


def best(tried: Sequence[Tried], folds: Sequence[int]) -> Rules:
    """Return the rules with the largest mean over `folds`; of equals, the grid's first."""
    cases = {patient.case for patient in patients() if patient.fold in folds}
    sums = dict.fromkeys(GRID, 0.0)
    for one in tried:
        if one.case in cases:
            sums[one.rules] += one.mean
    return max(sums, key=lambda rules: round(sums[rules], 6))


def section(tried: Sequence[Tried]) -> str:
    """Return the table of docs/accuracy.md and the gain below it."""
    of = {(one.case, one.rules): one for one in tried}
    rows, pairs = [], []
    for fold in FOLDS:
        chosen = best(tried, [other for other in FOLDS if other != fold])
        cases = [patient.case for patient in patients() if patient.fold == fold]
        raw, better = ([of[case, rules] for case in cases] for rules in (Rules(), chosen))
        pairs += list(zip(raw, better, strict=True))
        means = (fmean(one.mean for one in tries) for tries in (raw, better))
        rows.append((fold, described(chosen), *(f"{mean:.3f}" for mean in means)))
    gains = [better.mean - raw.mean for raw, better in pairs]
    low, high = interval_of(gains)
    each = ", ".join(
        f"{region} {fmean(better.dice[i] - raw.dice[i] for raw, better in pairs):+.3f}"
        for i, region in enumerate(REGIONS)
    )
    head = ("fold", "rules, chosen on the other three", "as it came", "cleaned")
    return (
        f"{table(head, rows)}\n\n"
        f"Gain in mean Dice, paired by patient: {fmean(gains):+.4f} "
        f"({low:+.4f} to {high:+.4f}; {each}); worst patient {min(gains):+.3f}, "
        f"best {max(gains):+.3f}, {sum(gain < 0 for gain in gains)} of {len(gains)} lose. "
        f"Best for all four folds: {described(best(tried, FOLDS))}."
    )


def described(rules: Rules) -> str:
    """Return rules as the page shows them."""
    words = ["smooth"] if rules.smooth else []
    words += [f"WT {rules.share:.0%} of the largest"] if rules.share else []
    words += [f"TC {rules.core_ml:g} mL"] if rules.core_ml else []
    words += [f"ET {rules.enhancing_ml:g} mL"] if rules.enhancing_ml else []
    return ", ".join(words) or "none"


if __name__ == "__main__":
    main()
