"""Choose rules for the post-processing of a volume, and measure them by cross-validation.

    python benchmarks/postprocessing_rules.py --data DATA    # writes benchmarks/folds/cleanup.csv
    python benchmarks/postprocessing_rules.py                # docs/accuracy.md from that file

Every set of rules is applied to every patient's mask, by the int8 network that was not trained on
the patient. A fold's patients are then scored with the rules that were best for the patients of the
other three folds.
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

from benchmarks import ROOT
from benchmarks.accuracy_tables import bootstrap_interval
from benchmarks.folds import FOLDS, FOLDS_FOLDER, FoldRun, patients
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
from glioslice.postprocessing import PostprocessingRules, postprocess

SIZE = "compact"
FILE = FOLDS_FOLDER / "cleanup.csv"
PAGE = ROOT / "docs" / "accuracy.md"
GRID = tuple(
    PostprocessingRules(*one)
    for one in product((False, True), (0.0, 0.1), (0.0, 0.1, 0.3, 0.5), (0.0, 0.05, 0.1, 0.2))
)
NAMES = tuple(field.name for field in fields(PostprocessingRules))


@dataclass(frozen=True)
class RuleScore:
    """Dice of WT, TC, ET of a patient whose mask was processed by `rules`."""

    case: str
    rules: PostprocessingRules
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return fmean(self.dice)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, try the rules and write the page."""
    parser = cli.parser(
        "Choose rules for the post-processing of a volume, and measure them.",
        "python benchmarks/postprocessing_rules.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="a folder of cases; without it nothing is scored")
    cli.run(write_rules, parser.parse_args(argv))


def write_rules(arguments: argparse.Namespace) -> None:
    """Score the rules if there are cases, and write the page."""
    if arguments.data:
        write_bytes(FILE, scores_csv(score_rules(arguments.data)).encode())
    scores = read_rows()
    fill(PAGE, {"cleanup": make_section(scores)})
    print(f"best for all: {describe_rules(best_rules(scores, FOLDS))}\nwritten: {PAGE.name}")


def score_rules(data: Path) -> list[RuleScore]:
    """Try every set of rules on every patient; raises GliosliceError if one is not in `data`."""
    found = {files.name: files for files in find_cases(data)}
    engines = {fold: Engine(FoldRun(SIZE, fold).folder / f"{SIZE}-int8.tflite") for fold in FOLDS}
    found_scores: list[RuleScore] = []
    for patient in track(patients(), "post-processing"):
        if patient.case not in found:
            raise GliosliceError(f"{data}: lacks {patient.case}")
        case = read_case(found[patient.case])
        assert case.labels is not None
        labels = segment(case.images, engines[patient.fold]).labels
        box = bounding_box(labels | case.labels)
        for rules in GRID:
            region = region_dice(postprocess(labels[box], rules), case.labels[box])
            dice = tuple(round(region[name], 5) for name in REGIONS)
            found_scores.append(RuleScore(patient.case, rules, dice))
    return found_scores


def bounding_box(labels: NDArray[np.uint8]) -> tuple[slice, ...]:
    """Return the box of the labels with all slices: smoothing treats a volume's ends specially."""
    x, y = (np.flatnonzero(labels.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    return np.s_[x[0] : x[-1] + 1, y[0] : y[-1] + 1, :] if x.size else np.s_[:0, :0, :]


def scores_csv(scores: Sequence[RuleScore]) -> str:
    """Return the scores as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["case", *NAMES, *REGIONS])
    writer.writerows([one.case, *to_numbers(one.rules), *one.dice] for one in scores)
    return file.getvalue()


def read_rows() -> list[RuleScore]:
    """Return the committed rows."""
    by_numbers = {to_numbers(rules): rules for rules in GRID}
    with FILE.open(newline="") as file:
        return [
            RuleScore(
                row["case"],
                by_numbers[tuple(float(row[name]) for name in NAMES)],
                tuple(float(row[region]) for region in REGIONS),
            )
            for row in csv.DictReader(file)
        ]


def to_numbers(rules: PostprocessingRules) -> tuple[float, ...]:
    """Return the fields of rules as numbers."""
    return tuple(map(float, astuple(rules)))


def best_rules(scores: Sequence[RuleScore], folds: Sequence[int]) -> PostprocessingRules:
    """Return the rules with the largest mean Dice over `folds`; the first of equals in GRID."""
    cases = {patient.case for patient in patients() if patient.fold in folds}
    sums = dict.fromkeys(GRID, 0.0)
    for one in scores:
        if one.case in cases:
            sums[one.rules] += one.mean
    return max(sums, key=lambda rules: round(sums[rules], 6))


def make_section(scores: Sequence[RuleScore]) -> str:
    """Return the table of docs/accuracy.md and the gain below it."""
    by_key = {(one.case, one.rules): one for one in scores}
    rows, pairs = [], []
    for fold in FOLDS:
        chosen = best_rules(scores, [other for other in FOLDS if other != fold])
        cases = [patient.case for patient in patients() if patient.fold == fold]
        raw, better = (
            [by_key[case, rules] for case in cases] for rules in (PostprocessingRules(), chosen)
        )
        pairs += list(zip(raw, better, strict=True))
        means = (fmean(one.mean for one in scored) for scored in (raw, better))
        rows.append((fold, describe_rules(chosen), *(f"{mean:.3f}" for mean in means)))
    gains = [better.mean - raw.mean for raw, better in pairs]
    low, high = bootstrap_interval(gains)
    each = ", ".join(
        f"{region} {fmean(better.dice[i] - raw.dice[i] for raw, better in pairs):+.3f}"
        for i, region in enumerate(REGIONS)
    )
    head = ("fold", "rules, chosen on the other three", "mean Dice before", "after")
    return (
        f"{table(head, rows)}\n\n"
        f"Gain in mean Dice, paired by patient: {fmean(gains):+.4f} "
        f"({low:+.4f} to {high:+.4f}; {each}); worst patient {min(gains):+.3f}, "
        f"best {max(gains):+.3f}, {sum(gain < 0 for gain in gains)} of {len(gains)} lose. "
        f"Best for all four folds: {describe_rules(best_rules(scores, FOLDS))}."
    )


def describe_rules(rules: PostprocessingRules) -> str:
    """Return the rules as text for the page."""
    parts = ["smooth"] if rules.smooth else []
    parts += [f"WT {rules.share:.0%} of the largest"] if rules.share else []
    parts += [f"TC {rules.core_ml:g} mL"] if rules.core_ml else []
    parts += [f"ET {rules.enhancing_ml:g} mL"] if rules.enhancing_ml else []
    return ", ".join(parts) or "none"


if __name__ == "__main__":
    main()
