"""Score the networks of the folds, and write docs/accuracy.md and docs/accuracy-appendix.md.

    python benchmarks/accuracy.py --data ../shared/data/brats      # score, then write the page
    python benchmarks/accuracy.py                                  # write it from committed scores

Cross-validation: each patient is segmented by the packed files of networks that were not trained on
it, through the same code that runs on a board (`device.segment`).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ROOT, accuracy_tables
from benchmarks.folds import PLAN, FoldRun, find_run, held_out_cases
from benchmarks.pages import fill
from benchmarks.scores import Score, score_case, score_healthy, write_scores
from glioslice import cli
from glioslice.cases import case_digest, find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import read_card

PAGE = ROOT / "docs" / "accuracy.md"
APPENDIX = "accuracy-appendix.md"
"""Beside PAGE: the ablation study and the scores of each patient."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, score and write the page."""
    parser = cli.parser(
        "Score the networks of the four folds and write docs/accuracy.md.",
        "python benchmarks/accuracy.py --data ../shared/data/brats",
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help="runs to score; default: all")
    parser.add_argument("--data", type=Path, help="a folder of cases; without it nothing is scored")
    cli.run(write_accuracy, parser.parse_args(argv))


def write_accuracy(arguments: argparse.Namespace) -> None:
    """Score the runs if there are cases, and write the page."""
    if arguments.data:
        runs = [find_run(name) for name in arguments.run] or list(PLAN)
        score_runs([run for run in runs if run.has_files], arguments.data)
    write_page()


def score_runs(runs: list[FoldRun], data: Path) -> None:
    """Write `scores.csv` and `healthy.csv` of every run.

    Raises GliosliceError if a patient of the fold is missing in `data`, or was in the training set.
    """
    found = {files.name: files for files in find_cases(data)}
    scores: dict[FoldRun, list[Score]] = {run: [] for run in runs}
    for fold in sorted({run.fold for run in runs}):
        for name in track(held_out_cases(fold), f"scoring fold {fold}"):
            if name not in found:
                raise GliosliceError(f"{data}: lacks {name} of fold {fold}")
            case = read_case(found[name])
            for run in (r for r in runs if r.fold == fold):
                if case_digest(case) in read_card(run.folder).trained_on:
                    raise GliosliceError(
                        f"{run.name}: was trained on {name}, which belongs to its fold"
                    )
                scores[run] += score_case(run, case)
    score_healthy([run for run in runs if run.is_main])
    for run in runs:
        write_scores(run, scores[run])
        scored = accuracy_tables.int8_scores(run)
        print(f"{run.name}: mean Dice {accuracy_tables.mean(scored, lambda s: s.mean):.4f}")


def write_page() -> None:
    """Write tables and pictures from the committed scores."""
    spread = accuracy_tables.seed_spread()
    timed = read_json(accuracy_tables.SLICE_TIME)
    fill(
        PAGE,
        {
            "dice": accuracy_tables.dice_table(),
            "seeds": accuracy_tables.seed_table(),
            "grades": accuracy_tables.grade_table(),
            "distances": accuracy_tables.distance_table(),
            "outside": accuracy_tables.outside_table(),
            "healthy": accuracy_tables.healthy_table(),
            "precisions": accuracy_tables.precision_table(),
            "rules": accuracy_tables.gain_table(),
            "sizes": f"{accuracy_tables.size_table()}\n\nMilliseconds: {timed['machine']}, "
            f"{timed['runtime']}, median of interleaved runs.",
        },
    )
    fill(
        PAGE.with_name(APPENDIX),
        {
            "spread": "unknown: a seed is missing" if spread is None else f"{spread:.4f}",
            "ablation": accuracy_tables.ablation_table(),
            "patients": accuracy_tables.patient_table(),
        },
    )
    accuracy_tables.dice_by_patient(PAGE.parent / "dice-by-patient.svg")
    accuracy_tables.dice_by_bytes(PAGE.parent / "dice-by-bytes.svg")
    print(f"written: {PAGE.name}, {APPENDIX} and the pictures in {PAGE.parent.name}/")


if __name__ == "__main__":
    main()
