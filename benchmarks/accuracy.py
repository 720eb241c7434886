"""Score the networks of the folds, and write docs/accuracy.md.

    python benchmarks/accuracy.py --data ../shared/data/brats      # score, then write the page
    python benchmarks/accuracy.py                                  # write it from committed scores

Each patient is segmented by the packed files of networks that were not trained on it, on the path
that a board runs (`device.segment`).
"""

import argparse
from pathlib import Path

from benchmarks import accuracy_tables
from benchmarks.folds import PLAN, RIVALS, ROOT, Run, left_out, named
from benchmarks.pages import fill
from benchmarks.scores import Score, score_case, score_healthy, write_scores
from glioslice import cli
from glioslice.cases import digest, find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import read_card

PAGE = ROOT / "docs" / "accuracy.md"


def main() -> None:
    """Read the command line, score and write."""
    parser = cli.parser(
        "Score the networks of the four folds and write docs/accuracy.md.",
        "python benchmarks/accuracy.py --data ../shared/data/brats",
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help="runs to score; default: all")
    parser.add_argument("--data", type=Path, help="a folder of cases; without, nothing is scored")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    if arguments.data:
        runs = [named(name) for name in arguments.run] or list(PLAN)
        score([run for run in runs if run.packed], arguments.data)
    write()


def score(runs: list[Run], data: Path) -> None:
    """Write `scores.csv` and `healthy.csv` of every run.

    Raises GliosliceError if a patient of its fold is missing in `data`, or was trained on.
    """
    found = {files.name: files for files in find_cases(data)}
    scores: dict[Run, list[Score]] = {run: [] for run in runs}
    for fold in sorted({run.fold for run in runs}):
        for name in track(left_out(fold), f"scoring fold {fold}"):
            if name not in found:
                raise GliosliceError(f"{data}: lacks {name} of fold {fold}")
            case = read_case(found[name])
            for run in (r for r in runs if r.fold == fold):
                if digest(case) in read_card(run.folder).trained_on:
                    raise GliosliceError(f"{run.name}: was trained on {name}, of its own fold")
                scores[run] += score_case(run, case)
    score_healthy([run for run in runs if run.size not in RIVALS])
    for run in runs:
        write_scores(run, scores[run])
        print(
            f"{run.name}: mean Dice {accuracy_tables.mean(accuracy_tables.int8(run), lambda s: s.mean):.4f}"
        )


def write() -> None:
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
            "missing": accuracy_tables.missing_table(),
            "rivals": f"{accuracy_tables.rival_table()}\n\nMilliseconds: {timed['machine']}, "
            f"{timed['runtime']}, median of interleaved runs.",
            "spread": "not known yet: a seed is missing" if spread is None else f"{spread:.4f}",
            "ablation": accuracy_tables.ablation_table(),
            "patients": accuracy_tables.patient_table(),
        },
    )
    accuracy_tables.dice_by_patient(PAGE.parent / "dice-by-patient.svg")
    accuracy_tables.dice_by_bytes(PAGE.parent / "dice-by-bytes.svg")
    print(f"written: {PAGE.name} and its pictures in {PAGE.parent.name}/")


if __name__ == "__main__":
    main()
