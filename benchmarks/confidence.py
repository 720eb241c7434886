"""Hold the quality byte against Dice, choose the desk's threshold, and write docs/confidence.md.

    python benchmarks/confidence.py --data ../shared/data/brats    # look at every slice, then write
    python benchmarks/confidence.py                                # write from the committed files

Each patient's slices are segmented by the int8 file of `benchmarks/folds/` that was not trained on
the patient. In `benchmarks/quality/`, `slices.csv` holds a row a slice and `cases.csv` a row a
patient and missing modality.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.confidence_tables import (
    BYTE,
    CaseRow,
    SliceRow,
    case_byte,
    defined,
    draw,
    page,
    read_cases,
    read_slices,
    write_rows,
)
from benchmarks.folds import ROOT, Run, patients
from benchmarks.pages import fill
from device.engine import Engine
from device.segment import slices_of
from glioslice import cli
from glioslice.cases import MODALITIES, Case, digest, find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.labels import to_labels, to_regions
from glioslice.metrics import dice
from glioslice.model_card import read_card
from glioslice.preprocessing import cut

PAGE = ROOT / "docs" / "confidence.md"
PICTURE = PAGE.with_name("quality.svg")


def main() -> None:
    """Read the command line, look and write."""
    parser = cli.parser(
        "Hold the quality byte against Dice and write docs/confidence.md.",
        "python benchmarks/confidence.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="a folder of cases; without, nothing is measured")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    if arguments.data:
        measure(arguments.data)
    write()


def measure(data: Path) -> None:
    """Write both tables of `benchmarks/quality/`.

    Raises GliosliceError if a patient is missing in `data`, or was trained on.
    """
    found = {files.name: files for files in find_cases(data)}
    slices: list[SliceRow] = []
    cases: list[CaseRow] = []
    for patient in track(patients(), "patients"):
        if patient.case not in found:
            raise GliosliceError(f"{data}: lacks {patient.case} of fold {patient.fold}")
        case, run = read_case(found[patient.case]), Run("compact", patient.fold)
        if digest(case) in read_card(run.folder).trained_on:
            raise GliosliceError(f"{run.name}: was trained on {patient.case}, of its own fold")
        engine = Engine(run.folder / "compact-int8.tflite")
        rows = slice_rows(case, engine)
        slices += rows
        whole = case_byte((row.pixels, row.said[BYTE]) for row in rows)
        cases.append(CaseRow(case.name, "", *whole))
        for place, modality in enumerate(MODALITIES):
            cases.append(CaseRow(case.name, modality, *case_byte(without(case, place, engine))))
    write_rows(slices, cases)


def slice_rows(case: Case, engine: Engine) -> list[SliceRow]:
    """Return a row for each slice of a case with its truth."""
    assert case.labels is not None
    slices, crop = slices_of(case.images, engine.card)
    rows = []
    for index, (scored, truth) in enumerate(zip(slices, cut(case.labels, crop), strict=True)):
        logits = engine.invoke(engine.prepare(scored))
        found = to_regions(to_labels(engine.regions(logits)))
        pairs = list(zip(found, to_regions(truth), strict=True))
        steps = logits.astype(np.float32) - np.float32(engine.output.zero_point)
        rows.append(
            SliceRow(
                case.name,
                crop.z[0] + index,
                int(found[0].sum()),
                int(np.count_nonzero(truth)),
                tuple(round(dice(f, t), 3) if (f | t).any() else None for f, t in pairs),
                defined(steps * np.float32(engine.output.scale), engine.quality(logits)),
            )
        )
    return rows


def without(case: Case, missing: int, engine: Engine) -> Iterator[tuple[int, int]]:
    """Yield the pixels and the byte of each mask, one modality set to 0."""
    images = case.images.copy()
    images[missing] = 0
    for scored in slices_of(images, engine.card)[0]:
        logits = engine.invoke(engine.prepare(scored))
        labels = to_labels(engine.regions(logits))
        yield int(np.count_nonzero(labels)), engine.quality(logits)


def write() -> None:
    """Write the page and its picture from the committed tables."""
    slices, cases = read_slices(), read_cases()
    fill(PAGE, {"quality": page(slices, cases)})
    draw(slices, cases, PICTURE)
    print(f"written: {PAGE.name} and its picture in {PAGE.parent.name}/")


if __name__ == "__main__":
    main()
