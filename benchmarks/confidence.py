"""Compare the confidence byte with Dice, choose the host's threshold, write docs/confidence.md.

    python benchmarks/confidence.py --data ../shared/data/brats    # measure every slice, then write
    python benchmarks/confidence.py                                # write from the committed files

Each patient's slices are segmented by the int8 file of `benchmarks/folds/` that was not trained on
the patient. In `benchmarks/quality/`, `slices.csv` holds a row for each slice and `cases.csv` a row
for each patient and missing modality.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import ROOT
from benchmarks.confidence_tables import (
    BYTE,
    CaseConfidence,
    SliceConfidence,
    bytes_by_definition,
    case_byte,
    draw_confidence,
    make_page,
    read_case_rows,
    read_slice_rows,
    write_measurements,
)
from benchmarks.folds import FOLDS, FoldRun
from benchmarks.pages import fill
from benchmarks.scores import check_held_out, fold_cases
from device.confidence import mask_confidence
from device.engine import Engine
from glioslice import cli
from glioslice.cases import MODALITIES, Case
from glioslice.labels import to_labels, to_regions
from glioslice.metrics import dice
from glioslice.preprocessing import extract_slices, slice_volume

PAGE = ROOT / "docs" / "confidence.md"
PICTURE = PAGE.with_name("quality.svg")


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, measure and write the page."""
    parser = cli.parser(
        "Compare the confidence byte with Dice and write docs/confidence.md.",
        "python benchmarks/confidence.py --data ../shared/data/brats",
    )
    parser.add_argument(
        "--data", type=Path, help="a folder of cases; without it nothing is measured"
    )
    cli.run(write_confidence, parser.parse_args(argv))


def write_confidence(arguments: argparse.Namespace) -> None:
    """Measure if there are cases, and write the page."""
    if arguments.data:
        measure_confidence(arguments.data)
    write_page()


def measure_confidence(data: Path) -> None:
    """Write both tables of `benchmarks/quality/`.

    Raises GliosliceError if a patient is missing in `data`, or was in the training set.
    """
    slices: list[SliceConfidence] = []
    cases: list[CaseConfidence] = []
    for run in (FoldRun("compact", fold) for fold in FOLDS):
        engine = Engine(run.folder / "compact-int8.tflite")
        for case in fold_cases(run.fold, data, "measuring confidence"):
            check_held_out(run, case)
            rows = slice_rows(case, engine)
            slices += rows
            whole = case_byte((row.pixels, row.bytes[BYTE]) for row in rows)
            cases.append(CaseConfidence(case.name, "", *whole))
            for place, modality in enumerate(MODALITIES):
                lacking = case_byte(without_modality(case, place, engine))
                cases.append(CaseConfidence(case.name, modality, *lacking))
    write_measurements(slices, cases)


def slice_rows(case: Case, engine: Engine) -> list[SliceConfidence]:
    """Return a row for each slice of a case that has a ground truth."""
    assert case.labels is not None
    slices, crop = slice_volume(case.images, engine.card.window, engine.card.clip)
    rows = []
    for index, (scored, truth) in enumerate(
        zip(slices, extract_slices(case.labels, crop), strict=True)
    ):
        logits = engine.logits(engine.prepare(scored))
        found = to_regions(to_labels(engine.regions(logits)))
        pairs = list(zip(found, to_regions(truth), strict=True))
        steps = logits.astype(np.float32) - np.float32(engine.logit_zero_point)
        real = steps * np.float32(engine.logit_scale)
        rows.append(
            SliceConfidence(
                case.name,
                crop.z[0] + index,
                int(found[0].sum()),
                int(np.count_nonzero(truth)),
                tuple(round(dice(f, t), 3) if (f | t).any() else None for f, t in pairs),
                bytes_by_definition(
                    real, mask_confidence(logits, engine.logit_scale, engine.logit_zero_point)
                ),
            )
        )
    return rows


def without_modality(case: Case, missing: int, engine: Engine) -> Iterator[tuple[int, int]]:
    """Yield the pixels and the byte of each mask with one modality set to 0."""
    images = case.images.copy()
    images[missing] = 0
    for scored in slice_volume(images, engine.card.window, engine.card.clip)[0]:
        logits = engine.logits(engine.prepare(scored))
        labels = to_labels(engine.regions(logits))
        yield (
            int(np.count_nonzero(labels)),
            mask_confidence(logits, engine.logit_scale, engine.logit_zero_point),
        )


def write_page() -> None:
    """Write the page and its picture from the committed tables."""
    slices, cases = read_slice_rows(), read_case_rows()
    fill(PAGE, {"quality": make_page(slices, cases)})
    draw_confidence(slices, cases, PICTURE)
    print(f"written: {PAGE.name} and its picture in {PAGE.parent.name}/")


if __name__ == "__main__":
    main()
