"""Score ways to send slices up the line: bytes against the Dice of what a board makes of them.

    python benchmarks/images.py --data ../shared/data/brats    # benchmarks/line/images.csv
    python benchmarks/images.py                                # docs/wire.md, images.svg from it

Each patient's slices are sent in each way of `image_ways.py`, decoded, and segmented by the network
of the fold that was not trained on that patient, as a board does it. Every fourth slice is enough
for the curve; the way that is the default goes through all of them. Times are of the processor.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import image_figures
from benchmarks.image_rows import EVERY, EXACT, RESULT, Row, read_rows, write_rows
from benchmarks.image_ways import LOSSLESS, Image, Way, ways
from benchmarks.pages import fill
from benchmarks.processor import processor
from benchmarks.runs import FOLDS, ROOT, Run, left_out
from device.engine import Engine
from glioslice import command
from glioslice.cases import Case, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json
from glioslice.labels import to_labels, to_regions
from glioslice.metrics import dice
from glioslice.progress import track
from glioslice.slices import brain_of, crop_of, cut, quantise, z_scores

MACHINE = RESULT.with_suffix(".json")
PAGE = ROOT / "docs" / "wire.md"


@dataclass(frozen=True)
class Patient:
    """Slices (Z', X, Y, 4) as the network takes them, and the expert's labels (Z', X, Y)."""

    name: str
    slices: Image
    truth: NDArray[np.uint8]


@dataclass(frozen=True)
class Tried:
    """Every so manyth slice of a patient in one way: bytes, milliseconds, and masks if any."""

    every: int
    sizes: NDArray[np.float64]
    encoding: NDArray[np.float64]
    decoding: NDArray[np.float64]
    masks: NDArray[np.uint8] | None


def main() -> None:
    """Do what the command line says."""
    parser = command.parser(
        "Score ways to send slices up the line.",
        "python benchmarks/images.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="the patients' folder; without, only the page")
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Score and write the page."""
    if arguments.data:
        write_rows(list(score(arguments.data)))
        write_json(MACHINE, {"machine": processor()})
    points = image_figures.points_of(read_rows())
    image_figures.draw(PAGE.with_name("images.svg"), points)
    fill(PAGE, {"images": image_figures.page(points, read_json(MACHINE)["machine"])})


def score(data: Path) -> Iterator[Row]:
    """Yield the rows of all patients; raises GliosliceError if one is missing in `data`."""
    found = {files.name: files for files in find_cases(data)}
    for fold in FOLDS:
        [file] = Run("compact", fold).folder.glob("*-int8.tflite")
        engine = Engine(file)
        for name in track(left_out(fold), f"fold {fold}"):
            if name not in found:
                raise GliosliceError(f"{data}: lacks {name} of fold {fold}")
            yield from scored(patient(read_case(found[name]), engine), engine)


def patient(case: Case, engine: Engine) -> Patient:
    """Return a case as the network takes it."""
    assert case.labels is not None
    brain = brain_of(case.images)
    crop = crop_of(brain, engine.card.window)
    slices = cut(z_scores(case.images, brain, engine.card.clip), crop)
    assert engine.input.scale is not None
    quantised = quantise(slices, engine.input.scale, engine.input.zero_point)
    return Patient(case.name, quantised, cut(case.labels, crop))


def scored(one: Patient, engine: Engine) -> Iterator[Row]:
    """Yield the rows of a patient: exact slices, the default on all, each way on some."""
    nothing = np.zeros(len(one.slices))
    exact = Tried(1, nothing, nothing, nothing, masks_of(one.slices, engine))
    for every in (1, EVERY):
        yield row(one, (EXACT, ""), every, exact)
    for place, way in enumerate(ways()):
        tried = sent(one.slices, 1 if place == 0 else EVERY, way, engine)
        for every in (1, EVERY) if place == 0 else (EVERY,):
            yield row(one, (way.family, way.setting), every, tried)


def row(one: Patient, name: tuple[str, str], every: int, tried: Tried) -> Row:
    """Return the row of every so manyth slice."""
    some = slice(None, None, every // tried.every)
    means = [
        round(float(np.mean(values[some])), 2)
        for values in (tried.sizes, tried.encoding, tried.decoding)
    ]
    dice: tuple[float | None, ...] = (None, None, None)
    if tried.masks is not None:
        dice = dice_of(tried.masks[some], one.truth[::every])
    return Row(one.name, *name, every, *means, *dice)


def sent(slices: Image, every: int, way: Way, engine: Engine) -> Tried:
    """Return what becomes of slices. Raises GliosliceError if a lossless way loses anything."""
    came, measured = [], []
    for z in range(0, len(slices), every):
        image, before = slices[z], slices[max(z - 1, 0)]
        began = time.thread_time()
        content = way.encode(image, before)
        between = time.thread_time()
        back = way.decode(content, before)
        ended = time.thread_time()
        if way.family == LOSSLESS and not np.array_equal(back, image):
            raise GliosliceError(f"{way.setting}: a slice did not come back as it was")
        came.append(back)
        measured.append((way.size(content), (between - began) * 1000, (ended - between) * 1000))
    masks = None if way.family == LOSSLESS else masks_of(came, engine)
    sizes, encoding, decoding = np.array(measured).T
    return Tried(every, sizes, encoding, decoding, masks)


def masks_of(slices: Image | Sequence[Image], engine: Engine) -> NDArray[np.uint8]:
    """Return the labels (slices, X, Y) that a board makes of them."""
    found = [to_labels(engine.regions(engine.invoke(image))) for image in slices]
    return np.stack(found)


def dice_of(masks: NDArray[np.uint8], truth: NDArray[np.uint8]) -> tuple[float, ...]:
    """Return the Dice of WT, TC and ET over all slices."""
    pairs = zip(to_regions(masks), to_regions(truth), strict=True)
    return tuple(round(dice(found, wanted), 5) for found, wanted in pairs)


if __name__ == "__main__":
    main()
