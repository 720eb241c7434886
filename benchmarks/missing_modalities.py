"""Score the networks of the folds on cases that lack modalities, for docs/accuracy.md.

    python benchmarks/missing_modalities.py --data ../shared/data/brats       # score, then the page
    python benchmarks/missing_modalities.py --data DIR compact-1 compact-2    # these runs alone
    python benchmarks/missing_modalities.py                                   # the page alone

Every subset that leaves T1ce or FLAIR is tried on each patient, by the int8 network that was not
trained on the patient; missing modalities are 0, as a board sees them. `missing.csv` of a run holds
a row for each patient and subset, of the raw masks and of masks that are made as those of the
shipped model of that size.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks import ROOT
from benchmarks.accuracy import bootstrap_interval
from benchmarks.folds import FOLDS, SHOWN_SIZES, FoldRun, find_run
from benchmarks.pages import fill, read_csv, table, write_csv
from benchmarks.scores import BOTH, RAW, RULES, fold_cases, segment_all_ways
from glioslice import cli
from glioslice.cases import MODALITIES, Case
from glioslice.dataset_layouts import MODALITY_TITLES, in_order
from glioslice.labels import REGIONS
from glioslice.metrics import region_dice
from glioslice.model_card import read_card, shipped_folder
from training.augment import MISSING

PAGE = ROOT / "docs" / "accuracy.md"
FILE = "missing.csv"
SUBSETS = ((), *sorted((in_order(names.split()) for names in MISSING), key=len))
"""What is missing: nothing, then every subset that training drops, the small ones first."""


@dataclass(frozen=True)
class SubsetScore:
    """Dice of WT, TC, ET of a patient whose modalities `missing` were 0."""

    case: str
    missing: tuple[str, ...]
    masks: str
    dice: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean Dice of WT, TC, ET."""
        return fmean(self.dice)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, score and write the page."""
    parser = cli.parser(
        "Score the networks of the folds on cases that lack modalities.",
        "python benchmarks/missing_modalities.py --data ../shared/data/brats",
    )
    parser.add_argument(
        "run", nargs="*", metavar="RUN", help="runs to score; default: those of compact and nano"
    )
    parser.add_argument("--data", type=Path, help="a folder of cases; without it nothing is scored")
    cli.run(write_missing, parser.parse_args(argv))


def write_missing(arguments: argparse.Namespace) -> None:
    """Score the runs if there are cases, and write the page."""
    every = [FoldRun(size, fold) for size in SHOWN_SIZES for fold in FOLDS]
    runs = [find_run(name) for name in arguments.run] or every
    if arguments.data:
        score_runs(runs, arguments.data)
    fill(PAGE, {"missing": subset_table()})
    print(f"written: {PAGE.name}")


def score_runs(runs: Sequence[FoldRun], data: Path) -> None:
    """Write `missing.csv` of each run; raises GliosliceError if a patient is not in `data`."""
    scores: dict[FoldRun, list[SubsetScore]] = {run: [] for run in runs}
    for fold in sorted({run.fold for run in runs}):
        for case in fold_cases(fold, data, "missing modalities"):
            for run in (one for one in runs if one.fold == fold):
                scores[run] += score_subsets(run, case)
    for run, made in scores.items():
        write_scores(run, made)


def score_subsets(run: FoldRun, case: Case) -> Iterator[SubsetScore]:
    """Yield the scores of a patient for each subset."""
    assert case.labels is not None
    [file] = run.folder.glob("*-int8.tflite")
    masks = BOTH if read_card(shipped_folder(run.size)).mirroring else RULES
    for missing in SUBSETS:
        images = case.images.copy()
        images[[modality in missing for modality in MODALITIES]] = 0
        for way, labels in segment_all_ways(images, file, (RAW, masks)):
            dice = region_dice(labels, case.labels)
            values = tuple(round(dice[region], 5) for region in REGIONS)
            yield SubsetScore(case.name, missing, way, values)


def write_scores(run: FoldRun, scores: Sequence[SubsetScore]) -> None:
    """Write the scores of a run."""
    rows = ((one.case, " ".join(one.missing), one.masks, *one.dice) for one in scores)
    write_csv(run.folder / FILE, ("case", "missing", "masks", *REGIONS), rows)


def read_subset_scores(run: FoldRun) -> list[SubsetScore]:
    """Return the scores of a run; an empty list if it has not been scored."""
    return [
        SubsetScore(
            row["case"],
            tuple(row["missing"].split()),
            row["masks"],
            tuple(float(row[region]) for region in REGIONS),
        )
        for row in read_csv(run.folder / FILE)
    ]


def subset_table() -> str:
    """Return the mean Dice for each size and subset, and what it loses, paired by patient."""
    rows = []
    for size in SHOWN_SIZES:
        every = [one for fold in FOLDS for one in read_subset_scores(FoldRun(size, fold))]
        raw = [one for one in every if one.masks == RAW]
        scores = [one for one in every if one.masks != RAW] or raw
        whole = {one.case: one.mean for one in scores if not one.missing}
        for missing in SUBSETS:
            if not (some := [one for one in scores if one.missing == missing]):
                continue
            before = fmean(one.mean for one in raw if one.missing == missing)
            dice = [f"{fmean(one.dice[i] for one in some):.3f}" for i in range(len(REGIONS))]
            changes = [one.mean - whole[one.case] for one in some]
            low, high = bootstrap_interval(changes)
            change = f"{fmean(changes):+.3f} ({low:+.3f} to {high:+.3f})" if missing else ""
            present = ", ".join(MODALITY_TITLES[m] for m in MODALITIES if m not in missing)
            mean = f"{fmean(one.mean for one in some):.3f}"
            rows.append(
                [size, some[0].masks, len(some), present, *dice, mean, change, f"{before:.3f}"]
            )
    head = ("int8", "masks", "patients", "sequences", *REGIONS, "mean")
    return table((*head, "change (95 % interval)", "mean of raw masks"), rows)


if __name__ == "__main__":
    main()
