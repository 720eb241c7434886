"""Train the networks of docs/accuracy.md anew, convert them, and keep what is to be scored.

    python benchmarks/folds.py --data ../shared/data                  # all of them: a day
    python benchmarks/folds.py --data ../shared/data compact-1 nano-1
    python benchmarks/folds.py --deal ../shared/data/patients.csv     # the list of folds

A run that was interrupted goes on; one that is finished in build/folds is not trained again.
"""

import argparse
import csv
import hashlib
import os
import subprocess
import sys
from collections.abc import Container
from pathlib import Path
from typing import Any

from benchmarks.runs import FOLDS, KEPT, PLAN, ROOT, Run, left_out, named
from convert.calibration import calibration, cast
from convert.export import export, with_thresholds
from convert.products import packed, stage
from convert.to_tflite import thresholds_of
from glioslice import command
from glioslice.card import CARD
from glioslice.errors import GliosliceError
from glioslice.files import read_json, whole, write_bytes, write_json
from training.checkpoint import STATE, load_model

BUILD = ROOT / "build" / "folds"
GRADES = ("low", "unknown", "high")


def main() -> None:
    """Read the command line, and train or deal."""
    parser = command.parser(
        "Train, convert and keep the networks of the four folds.",
        "python benchmarks/folds.py --data ../shared/data compact-1",
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help="default: every run of the plan")
    parser.add_argument("--data", type=Path, help="holds brats/, lesions/cubes.npz, patients.csv")
    parser.add_argument("--deal", type=Path, metavar="CSV", help="write the list of folds anew")
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    if arguments.deal:
        deal(arguments.deal)
        return
    if arguments.data is None:
        raise GliosliceError("--data is missing: the folder of brats/, lesions/ and patients.csv")
    runs = [named(name) for name in arguments.run] or list(PLAN)
    for run in runs:
        train(run, arguments.data)
        keep(run, arguments.data)


def deal(table: Path, cases: Container[str] | None = None) -> None:
    """Write `folds.csv`: each grade's patients, in the order of their names' hashes, in turn.

    Of the table's patients only `cases`, where they are given.
    """
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if cases is None or row["case"] in cases]
    rows.sort(
        key=lambda r: (
            GRADES.index(r["grade"]),
            hashlib.sha256(r["case"].encode()).hexdigest(),
        )
    )
    dealt = sorted((FOLDS[i % len(FOLDS)], row["case"], row["grade"]) for i, row in enumerate(rows))
    with whole(KEPT / "folds.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["case", "grade", "fold"])
        writer.writerows((case, grade, fold) for fold, case, grade in dealt)


def train_words(fold: int, data: Path) -> list[str]:
    """Return the words of `training/train.py` that say what is trained on."""
    return [
        *("--data", str(data / "brats"), "--lesions", str(data / "lesions" / "cubes.npz")),
        *("--patients", str(data / "patients.csv"), "--hold-out", ",".join(left_out(fold))),
    ]


def train(run: Run, data: Path) -> None:
    """Train a run in BUILD to its end, its fold left out.

    On one thread: several runs at a time use a machine better.
    """
    folder = BUILD / run.name
    if (folder / CARD).is_file():
        training = read_json(folder / CARD)["training"]
        if training["epochs_done"] == training["epochs"]:
            print(f"{run.name}: is trained", flush=True)
            return
    line = [sys.executable, str(ROOT / "training" / "train.py"), *train_words(run.fold, data)]
    line += ["--out", str(folder), *run.words]
    if (folder / STATE).is_file():
        line.append("--resume")
    done = subprocess.run(line, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        raise GliosliceError(f"{run.name}: training failed, see above; the same command goes on")


def keep(run: Run, data: Path) -> None:
    """Convert a trained run, and put what is scored later into its folder under benchmarks/."""
    source = BUILD / run.name
    network, card = load_model(source)
    roles = cast(data / "brats", card.window, card.clip, card.trained_on)
    slices = calibration(roles.calibrated, card.clip)
    exported = export(with_thresholds(network, thresholds_of(card)), card.window, slices)
    files = tuple(f for f in packed(card.name, exported, ()) if f.precision in run.precisions)
    content: dict[str, Any] = {
        **card.content,
        "calibrated_on": [subject.name for subject in roles.calibrated],
        "files": {file.name: file.entry for file in files},
    }
    stage(run.folder, card, files)
    write_json(run.folder / "card.json", content)
    write_bytes(run.folder / "log.csv", (source / "log.csv").read_bytes())
    sizes = ", ".join(f"{file.precision} {len(file.content):,} B" for file in files)
    print(f"{run.name}: {sizes}", flush=True)


if __name__ == "__main__":
    main()
