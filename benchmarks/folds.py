"""Train, convert and keep the networks of the four folds, for cross-validation (docs/accuracy.md).

    python benchmarks/folds.py --data ../shared/data                  # all of them: a day
    python benchmarks/folds.py --data ../shared/data compact-1 nano-1
    python benchmarks/folds.py --deal ../shared/data/patients.csv     # folds.csv: all patients
    python benchmarks/folds.py --time                                 # slice_time.json, here

A run is a network trained on three of four folds, in `benchmarks/folds/<run>/`: the card, the log,
the packed files, and `scores.csv` of the patients of the fourth fold. Of other seeds
only the scores are committed. A run that was interrupted is resumed; one that is finished in
build/folds is not trained again.

`slice_time.json` holds the machine, the runtime, and for each int8 file of fold 1 the median and
the 90th percentile of the milliseconds for a slice on one thread.
"""

import argparse
import csv
import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ROOT
from benchmarks.pages import processor, read_csv, write_csv
from convert.artifacts import pack_files, stage_files
from convert.calibration import assign_roles, calibration_slices
from convert.export import PRECISIONS, export, fold_thresholds
from convert.own_model import thresholds_of
from device.engine import Engine
from glioslice import cli
from glioslice.cases import phantom_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_bytes, write_json
from glioslice.model_card import CARD
from glioslice.preprocessing import slice_volume
from training.checkpoint import STATE, load_model

FOLDS_FOLDER = ROOT / "benchmarks" / "folds"
FOLDS = (1, 2, 3, 4)
SHOWN_SIZES = ("compact", "nano")

SLICE_TIME = FOLDS_FOLDER / "slice_time.json"
ROUNDS = 200
"""Of each network when slices are timed."""

RECIPE = "recipe"

VARIANTS: dict[str, tuple[str, ...]] = {
    RECIPE: (),
    "seed-1": ("--seed", "1"),
}
"""Options that each adds to `training/train.py`."""

BUILD = ROOT / "build" / "folds"
GRADES = ("low", "unknown", "high")


@dataclass(frozen=True)
class Patient:
    """A row of `folds.csv`: `grade` is high, low or unknown."""

    case: str
    grade: str
    fold: int


@dataclass(frozen=True)
class FoldRun:
    """One network: its size, the fold that is held out, and its variant."""

    size: str
    fold: int
    variant: str = RECIPE

    @property
    def name(self) -> str:
        """The folder's name, such as compact-1 or compact-1-seed-1."""
        ending = "" if self.is_main else f"-{self.variant}"
        return f"{self.size}-{self.fold}{ending}"

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return FOLDS_FOLDER / self.name

    @property
    def is_main(self) -> bool:
        """Whether it has the usual seed: its files are committed and scored in every way."""
        return self.variant == RECIPE

    @property
    def precisions(self) -> tuple[str, ...]:
        """The files that are scored: int8 alone for other seeds."""
        return PRECISIONS if self.is_main else PRECISIONS[:1]

    @property
    def has_files(self) -> bool:
        """Whether all its files exist; those of other seeds are not committed."""
        return all(any(self.folder.glob(f"*-{one}.tflite")) for one in self.precisions)

    @property
    def training_options(self) -> tuple[str, ...]:
        """The options that it adds to `training/train.py`."""
        return ("--size", self.size, *VARIANTS[self.variant])


PLAN = (
    *(FoldRun(size, fold) for size in ("compact", "nano") for fold in FOLDS),
    *(
        FoldRun("compact", fold, variant)
        for variant in VARIANTS
        if variant != RECIPE
        for fold in FOLDS
    ),
)
"""All runs, the most useful first."""


@cache
def patients() -> tuple[Patient, ...]:
    """Return the committed list of folds."""
    rows = read_csv(FOLDS_FOLDER / "folds.csv")
    return tuple(Patient(row["case"], row["grade"], int(row["fold"])) for row in rows)


def held_out_cases(fold: int) -> tuple[str, ...]:
    """Return the cases of a fold."""
    return tuple(p.case for p in patients() if p.fold == fold)


def find_run(name: str) -> FoldRun:
    """Return the run of PLAN with this name; raises GliosliceError if there is none."""
    for run in PLAN:
        if run.name == name:
            return run
    raise GliosliceError(f"no run '{name}'; there are {', '.join(r.name for r in PLAN)}")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, and train, deal or time."""
    parser = cli.parser(
        "Train, convert and keep the networks of the four folds.",
        "python benchmarks/folds.py --data ../shared/data compact-1",
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help="default: every run of the plan")
    parser.add_argument("--data", type=Path, help="holds brats/, lesions/cubes.npz, patients.csv")
    parser.add_argument(
        "--deal", type=Path, metavar="CSV", help="assign all patients of a table to folds"
    )
    parser.add_argument("--time", action="store_true", help="time the int8 files of fold 1 here")
    cli.run(train_folds, parser.parse_args(argv))


def train_folds(arguments: argparse.Namespace) -> None:
    """Train and convert the runs, deal the patients, or time the networks."""
    if arguments.deal:
        deal(arguments.deal)
        return
    if arguments.time:
        time_slices()
        return
    if arguments.data is None:
        raise GliosliceError("--data is missing: the folder of brats/, lesions/ and patients.csv")
    runs = [find_run(name) for name in arguments.run] or list(PLAN)
    for run in runs:
        train(run, arguments.data)
        convert_run(run, arguments.data)


def deal(table: Path) -> None:
    """Write `folds.csv`: all patients of a table; those that it lists already keep their folds."""
    with table.open(newline="", encoding="utf-8") as file:
        given = [(row["case"], row["grade"]) for row in csv.DictReader(file)]
    dealt = sorted(
        assign_folds(given, {p.case: p.fold for p in patients()}), key=lambda p: (p.fold, p.case)
    )
    rows = [(p.case, p.grade, p.fold) for p in dealt]
    write_csv(FOLDS_FOLDER / "folds.csv", ("case", "grade", "fold"), rows)


def assign_folds(rows: Iterable[tuple[str, str]], earlier: Mapping[str, int]) -> list[Patient]:
    """Return the patients of rows (case, grade) with their folds, those of `earlier` as they were.

    The others go, rare grades first, to the fold with the fewest patients of their grade, then of
    their source, then of all; no fold gets more than its share. Names' hashes order the equal.
    """
    rows = list(rows)
    room = -(-len(rows) // len(FOLDS))
    assigned = [Patient(case, grade, earlier[case]) for case, grade in rows if case in earlier]

    def priority(row: tuple[str, str]) -> tuple[int, str, str]:
        case, grade = row
        return GRADES.index(grade), source(case), hashlib.sha256(case.encode()).hexdigest()

    for case, grade in sorted((row for row in rows if row[0] not in earlier), key=priority):

        def load(
            fold: int, case: str = case, grade: str = grade
        ) -> tuple[bool, int, int, int, int]:
            of = [p for p in assigned if p.fold == fold]
            same_grade = sum(p.grade == grade for p in of)
            same_source = sum(source(p.case) == source(case) for p in of)
            return len(of) >= room, same_grade, same_source, len(of), fold

        assigned.append(Patient(case, grade, min(FOLDS, key=load)))
    return assigned


def source(case: str) -> str:
    """Return the edition of BraTS and, in that of 2018, the institution that a case is from."""
    return re.split(r"_\d|_[A-Z]{3}_|(?<=TCIA)", case)[0]


def data_options(fold: int, data: Path) -> list[str]:
    """Return the options of `training/train.py` for the training set."""
    return [
        *("--data", str(data / "brats"), "--lesions", str(data / "lesions" / "cubes.npz")),
        *("--slices", str(data / "slices" / "slices.npz")),
        *("--patients", str(data / "patients.csv"), "--hold-out", ",".join(held_out_cases(fold))),
    ]


def train(run: FoldRun, data: Path) -> None:
    """Train a run in BUILD to its end, its fold held out.

    On one thread: several runs in parallel use a machine better.
    """
    folder = BUILD / run.name
    if (folder / CARD).is_file():
        training = read_json(folder / CARD)["training"]
        if training["epochs_done"] == training["epochs"]:
            print(f"{run.name}: already trained", flush=True)
            return
    line = [sys.executable, str(ROOT / "training" / "train.py"), *data_options(run.fold, data)]
    line += ["--out", str(folder), *run.training_options]
    if (folder / STATE).is_file():
        line.append("--resume")
    done = subprocess.run(line, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        raise GliosliceError(f"{run.name}: training failed, see above; the same command resumes it")


def convert_run(run: FoldRun, data: Path) -> None:
    """Convert a trained run, and copy its files into its folder under benchmarks/."""
    source = BUILD / run.name
    network, card = load_model(source)
    roles = assign_roles(data / "brats", card.window, card.clip, card.trained_on)
    slices = calibration_slices(roles.calibration, card.clip)
    exported = export(fold_thresholds(network, thresholds_of(card)), card.window, slices)
    files = tuple(f for f in pack_files(card.name, exported, ()) if f.precision in run.precisions)
    content: dict[str, Any] = {
        **card.content,
        "calibrated_on": [case.name for case in roles.calibration],
        "files": {file.name: file.entry for file in files},
    }
    stage_files(run.folder, card, files)
    write_json(run.folder / "card.json", content)
    write_bytes(run.folder / "log.csv", (source / "log.csv").read_bytes())
    sizes = ", ".join(f"{file.precision} {len(file.content):,} B" for file in files)
    print(f"{run.name}: {sizes}", flush=True)


def time_slices() -> None:
    """Time the networks interleaved, so that a busy moment of the machine affects all of them."""
    engines = {}
    for run in (FoldRun(size, FOLDS[0]) for size in SHOWN_SIZES):
        if not run.has_files:
            raise GliosliceError(f"{run.name}: its file is missing; `make folds` trains it")
        [file] = run.folder.glob("*-int8.tflite")
        engines[run.name] = Engine(file)
    first = next(iter(engines.values()))
    slices, _ = slice_volume(phantom_case(0).images, first.card.window, first.card.clip)
    prepared = {name: e.prepare(slices[len(slices) // 2]) for name, e in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in track(range(ROUNDS), "timing"):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.invoke(prepared[name])
            times[name].append((time.perf_counter() - began) * 1000)
    write_json(
        SLICE_TIME,
        {
            "machine": f"{processor()}, one thread",
            "runtime": first.runtime,
            "milliseconds": {
                name: {
                    "median": round(float(np.median(milliseconds)), 3),
                    "p90": round(float(np.percentile(milliseconds, 90)), 3),
                }
                for name, milliseconds in times.items()
            },
        },
    )


if __name__ == "__main__":
    main()
