"""Score what a teacher for distillation could be: the mean of several networks of the same fold.

    python benchmarks/teachers.py --data ../shared/data/brats    # benchmarks/folds/teachers.csv
    python benchmarks/teachers.py                                # docs/accuracy.md from that

The probabilities of their fp32 files are averaged; a fold's patients were seen by none of them.
"""

import argparse
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from benchmarks.pages import fill, table
from benchmarks.runs import KEPT, RECIPE, ROOT, Run, patients
from benchmarks.tables import COMPARED, SEEDS, dice_of
from device.engine import Engine
from device.segment import slices_of
from glioslice import command
from glioslice.cases import Case, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.labels import REGIONS, to_labels
from glioslice.metrics import region_dice
from glioslice.progress import track
from glioslice.slices import paste

TEACHERS: dict[str, tuple[tuple[str, str], ...]] = {
    "three seeds": tuple(("compact", seed) for seed in SEEDS),
    "three seeds and three forms": (
        *(("compact", seed) for seed in SEEDS),
        *(("compact", form) for form in ("full-resolution", "first-form")),
        ("nano", RECIPE),
    ),
}
"""Which networks (size, variant) are averaged."""

FILE = KEPT / "teachers.csv"
PAGE = ROOT / "docs" / "accuracy.md"


@dataclass(frozen=True)
class Taught:
    """Dice of WT, TC, ET of a patient by a teacher."""

    teacher: str
    case: str
    dice: tuple[float, ...]


def main() -> None:
    """Read the command line, score and write."""
    parser = command.parser(
        "Score the mean of several networks, as a teacher for distillation.",
        "python benchmarks/teachers.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="a folder of cases, to score on")
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    if arguments.data:
        write_bytes(FILE, text_of(list(scored(arguments.data))).encode())
    fill(PAGE, {"teachers": page(read())})


def scored(data: Path) -> Iterator[Taught]:
    """Yield every teacher's Dice of every patient of COMPARED; GliosliceError if one is missing."""
    found = {files.name: files for files in find_cases(data)}
    engines = {
        (fold, of): engine_of(Run(of[0], fold, of[1]))
        for fold in COMPARED
        for of in {of for members in TEACHERS.values() for of in members}
    }
    for patient in track([p for p in patients() if p.fold in COMPARED], "teachers"):
        if patient.case not in found:
            raise GliosliceError(f"{data}: lacks {patient.case}")
        case = read_case(found[patient.case])
        for teacher, members in TEACHERS.items():
            labels = labels_of(case, [engines[patient.fold, of] for of in members])
            assert case.labels is not None
            dice = region_dice(labels, case.labels)
            yield Taught(teacher, patient.case, tuple(round(dice[r], 5) for r in REGIONS))


def engine_of(run: Run) -> Engine:
    """Return the run's fp32 network."""
    [file] = run.folder.glob("*-fp32.tflite")
    return Engine(file)


def labels_of(case: Case, engines: Sequence[Engine]) -> NDArray[np.uint8]:
    """Return the labels (X, Y, Z) where the mean of the networks' probabilities is above 0.5."""
    slices, crop = slices_of(case.images, engines[0].card)
    masks = [to_labels(np.moveaxis(chances_of(one, engines) > 0.5, -1, 0)) for one in slices]
    return paste(np.stack(masks), crop)


def chances_of(one: NDArray[np.float32], engines: Sequence[Engine]) -> NDArray[np.float32]:
    """Return the mean probabilities (X, Y, 3) of a slice."""
    logits = np.stack([engine.invoke(engine.prepare(one)) for engine in engines])
    chances: NDArray[np.float32] = (1 / (1 + np.exp(-logits))).mean(axis=0)
    return chances


def text_of(rows: Sequence[Taught]) -> str:
    """Return them as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["teacher", "case", *REGIONS])
    writer.writerows([row.teacher, row.case, *row.dice] for row in rows)
    return file.getvalue()


def read() -> list[Taught]:
    """Return what is kept."""
    with FILE.open(newline="") as file:
        return [
            Taught(row["teacher"], row["case"], tuple(float(row[region]) for region in REGIONS))
            for row in csv.DictReader(file)
        ]


def page(rows: Sequence[Taught]) -> str:
    """Return a row a teacher: Dice on each fold, and the gain over one of the three seeds."""
    seeds = [dice for seed in SEEDS if (dice := dice_of(seed))]
    fold_of = {patient.case: patient.fold for patient in patients()}
    lines = []
    for teacher in TEACHERS:
        means = {row.case: fmean(row.dice) for row in rows if row.teacher == teacher}
        gain = fmean(mean - fmean(one[case] for one in seeds) for case, mean in means.items())
        folds = [fmean(m for case, m in means.items() if fold_of[case] == f) for f in COMPARED]
        lines.append([teacher, *(f"{dice:.3f}" for dice in folds), f"{gain:+.4f}"])
    head = (f"Dice, fold {fold}" for fold in COMPARED)
    return table(("mean of", *head, "gain over one seed, paired by patient"), lines)


if __name__ == "__main__":
    main()
