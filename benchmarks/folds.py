"""The networks behind docs/accuracy.md: which are trained on what, and where each is kept.

A run is a network trained on three of four folds, in `benchmarks/folds/<run>/`: the card, the log,
the packed files, and `scores.csv` of the patients of the fourth. Of other seeds and rivals only
what the page needs is committed: the scores, and the rivals' cards.

Train the networks of docs/accuracy.md anew, convert them, and keep what is to be scored.

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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from convert.artifacts import packed, stage
from convert.calibration import calibration, cast
from convert.export import export, with_thresholds
from convert.to_tflite import thresholds_of
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import read_json, whole, write_bytes, write_json
from glioslice.model_card import CARD
from training.checkpoint import STATE, load_model

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "folds"
FOLDS = (1, 2, 3, 4)
RECIPE = "recipe"
PRECISIONS = ("int8", "fp16", "fp32")

VARIANTS: dict[str, tuple[str, ...]] = {
    RECIPE: (),
    "seed-1": ("--seed", "1"),
    "seed-2": ("--seed", "2"),
}
"""What each adds to the words of `training/train.py`."""

RIVALS: dict[str, tuple[str, ...]] = {
    "benchmarks.baseline_networks:MESHNET": ("--epochs", "11"),
    "benchmarks.baseline_networks:PLAIN_UNET": ("--epochs", "12"),
}
"""Networks to compare with, on fold 1: twice the wall time of compact, and four times as much.

A step takes 6.1 and 12.5 times compact's on one core in bfloat16.
"""


@dataclass(frozen=True)
class Patient:
    """A row of `folds.csv`: `grade` is high, low or unknown."""

    case: str
    grade: str
    fold: int


@dataclass(frozen=True)
class Run:
    """One network: its size (or rival), the fold left out, and how it departs from the recipe."""

    size: str
    fold: int
    variant: str = RECIPE

    @property
    def name(self) -> str:
        """The folder's name, such as compact-1 or compact-1-seed-1."""
        plain = self.size.partition(":")[2].lower() or self.size
        ending = "" if self.variant == RECIPE else f"-{self.variant}"
        return f"{plain}-{self.fold}{ending}"

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return KEPT / self.name

    @property
    def precisions(self) -> tuple[str, ...]:
        """Of which files are scored: int8 alone where that is all that is compared."""
        whole = self.size not in RIVALS and self.variant == RECIPE
        return PRECISIONS if whole else PRECISIONS[:1]

    @property
    def packed(self) -> bool:
        """Whether all its files are here; of other seeds and rivals they are not committed."""
        return all(any(self.folder.glob(f"*-{one}.tflite")) for one in self.precisions)

    @property
    def words(self) -> tuple[str, ...]:
        """What it adds to the words of `training/train.py`."""
        return ("--size", self.size, *RIVALS.get(self.size, ()), *VARIANTS[self.variant])


PLAN = (
    *(Run(size, fold) for size in ("compact", "nano") for fold in FOLDS),
    *(Run("compact", fold, variant) for variant in VARIANTS if variant != RECIPE for fold in FOLDS),
    *(Run(rival, FOLDS[0]) for rival in RIVALS),
)
"""All runs, in the order in which they are worth their time."""


@cache
def patients() -> tuple[Patient, ...]:
    """Return the committed list of folds."""
    with (KEPT / "folds.csv").open(newline="") as file:
        return tuple(Patient(r["case"], r["grade"], int(r["fold"])) for r in csv.DictReader(file))


def left_out(fold: int) -> tuple[str, ...]:
    """Return the cases of a fold."""
    return tuple(p.case for p in patients() if p.fold == fold)


def named(name: str) -> Run:
    """Return the run of PLAN that is called so; raises GliosliceError if there is none."""
    for run in PLAN:
        if run.name == name:
            return run
    raise GliosliceError(f"no run '{name}'; there are {', '.join(r.name for r in PLAN)}")


BUILD = ROOT / "build" / "folds"
GRADES = ("low", "unknown", "high")


def main() -> None:
    """Read the command line, and train or deal."""
    parser = cli.parser(
        "Train, convert and keep the networks of the four folds.",
        "python benchmarks/folds.py --data ../shared/data compact-1",
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help="default: every run of the plan")
    parser.add_argument("--data", type=Path, help="holds brats/, lesions/cubes.npz, patients.csv")
    parser.add_argument("--deal", type=Path, metavar="CSV", help="write the list of folds anew")
    cli.run(work, parser.parse_args())


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
