"""`images.csv`: a row for each patient and way to send slices up the line.

Figures of the ways up the line: the curve of bytes and Dice, and the part of docs/wire.md.

Score ways to send slices up the line: bytes against the Dice of what a board makes of them.

    python benchmarks/image_codecs.py --data ../shared/data/brats    # benchmarks/line/images.csv
    python benchmarks/image_codecs.py                                # docs/wire.md, images.svg from it

Each patient's slices are sent in each way of `image_ways.py`, decoded, and segmented by the network
of the fold that was not trained on that patient, as a board does it. Every fourth slice is enough
for the curve; the way that is the default goes through all of them. Times are of the processor.
"""

import argparse
import csv
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.folds import FOLDS, ROOT, Run, left_out
from benchmarks.image_baselines import LOSSLESS, OURS, Image, Way, ways
from benchmarks.pages import fill, table
from benchmarks.runtimes import processor
from convert.report import svg
from device.engine import Engine
from glioslice import cli
from glioslice.cases import Case, find_cases, read_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import read_json, whole, write_bytes, write_json
from glioslice.labels import REGIONS, to_labels, to_regions
from glioslice.metrics import dice
from glioslice.preprocessing import brain_of, crop_of, cut, quantise, z_scores
from glioslice.wire.codecs import LOSSY_EFFORT

RESULT = ROOT / "benchmarks" / "line" / "images.csv"
EXACT = "exact"
EVERY = 4
"""Of the slices of a patient, where not all are sent."""


@dataclass(frozen=True)
class Row:
    """One patient in one way: mean bytes and milliseconds of a slice, Dice over the slices sent.

    `every` is 1 for all slices; Dice is None where nothing is lost.
    """

    case: str
    family: str
    setting: str
    every: int
    size: float
    encode_ms: float
    decode_ms: float
    wt: float | None
    tc: float | None
    et: float | None


def write_rows(rows: Sequence[Row]) -> None:
    """Write the rows, whole or not at all."""
    with whole(RESULT) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(one) for one in rows)


def read_rows() -> list[Row]:
    """Return the committed rows."""
    with RESULT.open(newline="") as file:
        return [_parsed(row) for row in csv.DictReader(file)]


def _parsed(row: dict[str, str]) -> Row:
    wt, tc, et = (float(row[name]) if row[name] else None for name in ("wt", "tc", "et"))
    numbers = float(row["size"]), float(row["encode_ms"]), float(row["decode_ms"])
    return Row(row["case"], row["family"], row["setting"], int(row["every"]), *numbers, wt, tc, et)


LARGEST = 3000
MEAN_LOSS, REGION_LOSS = 0.002, 0.01
"""What the default may take and lose."""

DEFAULT = f"quality {LOSSY_EFFORT[1]}"
COLOURS = {
    OURS: "#0072b2",
    "WebP, brain alone": "#56b4e9",
    "AVIF": "#d55e00",
    "JPEG 2000": "#009e73",
    "coarser steps": "#7f7f7f",
}  # told apart by all eyes


@dataclass(frozen=True)
class Point:
    """All patients in one way: means of bytes and times, and what Dice gained over exact slices.

    `gains` (patients, 3) holds WT, TC and ET, none where nothing is lost.
    """

    family: str
    setting: str
    every: int
    size: float
    encode_ms: float
    decode_ms: float
    gains: tuple[tuple[float, ...], ...]

    @property
    def regions(self) -> tuple[float, ...]:
        """The mean gain of each region."""
        return tuple(float(np.mean(column)) for column in zip(*self.gains, strict=True))

    @property
    def mean(self) -> float:
        """The mean gain of all regions."""
        return float(np.mean(self.regions))


def points_of(rows: Sequence[Row]) -> list[Point]:
    """Return the points in the order of the rows."""
    exact = {(row.case, row.every): dice_of(row) for row in rows if row.family == EXACT}
    keys = dict.fromkeys((r.family, r.setting, r.every) for r in rows if r.family != EXACT)
    return [
        point([r for r in rows if (r.family, r.setting, r.every) == key], exact) for key in keys
    ]


def point(rows: Sequence[Row], exact: dict[tuple[str, int], tuple[float, ...]]) -> Point:
    """Return the point of one way's rows."""
    first = rows[0]
    gains: list[tuple[float, ...]] = []
    for row in rows if first.family != LOSSLESS else ():
        pairs = zip(dice_of(row), exact[row.case, row.every], strict=True)
        gains.append(tuple(own - best for own, best in pairs))
    size, encode_ms, decode_ms = (
        float(np.mean([getattr(row, name) for row in rows]))
        for name in ("size", "encode_ms", "decode_ms")
    )
    key = (first.family, first.setting, first.every)
    return Point(*key, size, encode_ms, decode_ms, tuple(gains))


def dice_of(row: Row) -> tuple[float, ...]:
    """Return the Dice of a row's regions."""
    return tuple(value for value in (row.wt, row.tc, row.et) if value is not None)


def draw(path: Path, points: Sequence[Point]) -> None:
    """Draw the mean's and the worst region's gain against bytes, whole or not at all."""
    figure = Figure(figsize=(9, 3.6))
    sides = figure.subplots(1, 2)
    shown = [one for one in points if one.gains and one.every > 1]
    for axes, limit, title in zip(
        sides, (MEAN_LOSS, REGION_LOSS), ("mean of the regions", "the worst region"), strict=True
    ):
        for family, colour in COLOURS.items():
            line = sorted((p.size, *ends(p)) for p in shown if p.family == family)
            value = 1 if axes is sides[0] else 2
            places = [entry[0] for entry in line], [entry[value] for entry in line]
            axes.plot(*places, marker="o", ms=3, lw=1, color=colour, label=family)
        axes.axvline(LARGEST, color="black", lw=0.6, ls="--")
        axes.axhline(-limit, color="black", lw=0.6, ls="--")
        axes.axhline(0, color="black", lw=0.4)
        [chosen] = [p for p in shown if is_default(p)]
        height = ends(chosen)[0 if axes is sides[0] else 1]
        axes.plot([chosen.size], [height], marker="*", ms=12, color=COLOURS[OURS])
        axes.set_xscale("log")
        axes.set_xticks([1000, 2000, 3000, 5000, 10000], ["1", "2", "3", "5", "10"])
        axes.minorticks_off()
        axes.set_ylim(-0.03, 0.02)
        axes.set_xlabel("kB a slice")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    sides[0].set_ylabel("Dice gained over exact slices")
    sides[1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    write_bytes(path, svg(figure))


def ends(one: Point) -> tuple[float, float]:
    """Return the mean gain and the worst region's."""
    return one.mean, min(one.regions)


def is_default(one: Point) -> bool:
    """Tell whether this is codec 3 as it is set."""
    return (one.family, one.setting) == (OURS, DEFAULT)


def page(points: Sequence[Point], machine: str) -> str:
    """Return the figures of docs/wire.md."""
    [whole] = [one for one in points if is_default(one) and one.every == 1]
    head = ("way", "setting", "bytes", "encoding ms", "decoding ms", *REGIONS, "mean")
    lossy = [line(one) for one in points if one.gains and one.every > 1]
    means = [float(np.mean(gain)) for gain in whole.gains]
    lossless = [one for one in points if not one.gains]
    return "\n\n".join([
        f"{len(whole.gains)} patients, each segmented by the compact network of the fold that was "
        "not trained on it. Every fourth slice; bytes are a slice's mean, what follows the times "
        f"is the Dice gained over exact slices. Times are of one thread's processor, {machine}; "
        "a container that is the same for each slice is not counted.",
        table(head, lossy),
        f"The default through all slices, {OURS} at {DEFAULT}: {whole.size:,.0f} bytes; "
        + ", ".join(f"{r} {g:+.4f}" for r, g in zip(REGIONS, whole.regions, strict=True))
        + f", mean {whole.mean:+.4f}. Of single patients the mean changes by {min(means):+.3f} to "
        f"{max(means):+.3f}; one in whom an ET that is not there is no longer found moves the mean "
        f"of ET by {1 / len(means):.3f}.",
        "Without a loss:",
        table(head[1:5], [cells(one)[1:] for one in lossless]),
    ])  # fmt: skip


def line(one: Point) -> tuple[str, ...]:
    """Return a point as a line of the table, the default in bold."""
    shown = (*cells(one), *(f"{gain:+.4f}" for gain in (*one.regions, one.mean)))
    return tuple(f"**{cell}**" for cell in shown) if is_default(one) else shown


def cells(one: Point) -> tuple[str, ...]:
    """Return how a point is called, its bytes and its times."""
    times = f"{one.encode_ms:.1f}", f"{one.decode_ms:.1f}"
    return one.family, one.setting, f"{one.size:,.0f}", *times


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
    parser = cli.parser(
        "Score ways to send slices up the line.",
        "python benchmarks/image_codecs.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="the patients' folder; without, only the page")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Score and write the page."""
    if arguments.data:
        write_rows(list(score(arguments.data)))
        write_json(MACHINE, {"machine": processor()})
    points = points_of(read_rows())
    draw(PAGE.with_name("images.svg"), points)
    fill(PAGE, {"images": page(points, read_json(MACHINE)["machine"])})


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
        dice = dice_of_patient(tried.masks[some], one.truth[::every])
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


def dice_of_patient(masks: NDArray[np.uint8], truth: NDArray[np.uint8]) -> tuple[float, ...]:
    """Return the Dice of WT, TC and ET over all slices."""
    pairs = zip(to_regions(masks), to_regions(truth), strict=True)
    return tuple(round(dice(found, wanted), 5) for found, wanted in pairs)


if __name__ == "__main__":
    main()
