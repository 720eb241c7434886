"""Compare image codecs for the slices that the host sends: bytes against Dice on the board.

    python benchmarks/image_codecs.py --data DATA    # benchmarks/line/images.csv
    python benchmarks/image_codecs.py                # docs/wire.md and images.svg from it

Each patient's slices are encoded with each codec of `image_baselines.py`, decoded, and segmented by
the network of the fold that was not trained on that patient. Every fourth slice is enough for the
curve; the default codec gets all of them. Times are processor times. `images.csv` holds a row for
each patient and codec.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks import ROOT
from benchmarks.folds import FOLDS, FoldRun
from benchmarks.image_baselines import (
    LOSSLESS_SETTING,
    WIRE_CODEC,
    CodecSetting,
    Image,
    codec_settings,
)
from benchmarks.pages import fill, processor, read_csv, table, write_csv
from benchmarks.scores import fold_cases
from convert.report import svg
from device.engine import Engine
from glioslice import cli
from glioslice.cases import Case
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_bytes, write_json
from glioslice.labels import REGIONS, to_labels, to_regions
from glioslice.metrics import dice
from glioslice.preprocessing import brain_mask, extract_slices, find_crop, quantize, z_scores
from glioslice.wire.image_codecs import LOSSY_EFFORT

RESULT = ROOT / "benchmarks" / "line" / "images.csv"
EXACT = "exact"
EVERY = 4
"""Every fourth slice of a patient is sent, except with the default codec."""

LARGEST = 3000

MEAN_LOSS, REGION_LOSS = 0.002, 0.01
"""Limits for the default codec: bytes of a slice, and loss of Dice."""

DEFAULT = f"quality {LOSSY_EFFORT[1]}"

COLOURS = {
    WIRE_CODEC: "#0072b2",
    "WebP, brain alone": "#56b4e9",
    "AVIF": "#d55e00",
    "JPEG 2000": "#009e73",
    "coarser steps": "#7f7f7f",
}  # distinct for colour-blind eyes

MACHINE = RESULT.with_suffix(".json")

PAGE = ROOT / "docs" / "wire.md"


@dataclass(frozen=True)
class ImageRow:
    """One patient and codec: mean bytes and milliseconds of a slice, Dice over the slices sent.

    `every` is 1 for all slices; Dice is None for a lossless codec.
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


def write_rows(rows: Sequence[ImageRow]) -> None:
    """Write the rows atomically."""
    write_csv(RESULT, [f.name for f in fields(ImageRow)], map(astuple, rows))


def read_rows() -> list[ImageRow]:
    """Return the committed rows."""
    return [_parse_row(row) for row in read_csv(RESULT)]


def _parse_row(row: dict[str, str]) -> ImageRow:
    wt, tc, et = (float(row[name]) if row[name] else None for name in ("wt", "tc", "et"))
    numbers = float(row["size"]), float(row["encode_ms"]), float(row["decode_ms"])
    return ImageRow(
        row["case"], row["family"], row["setting"], int(row["every"]), *numbers, wt, tc, et
    )


@dataclass(frozen=True)
class Point:
    """One codec over all patients: mean bytes and times, and the change in Dice.

    `gains` (patients, 3) holds the change of WT, TC and ET against exact slices; it is empty for a
    lossless codec.
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


def make_points(rows: Sequence[ImageRow]) -> list[Point]:
    """Return the points in the order of the rows."""
    exact = {(row.case, row.every): region_dice_of(row) for row in rows if row.family == EXACT}
    keys = dict.fromkeys((r.family, r.setting, r.every) for r in rows if r.family != EXACT)
    return [
        make_point([r for r in rows if (r.family, r.setting, r.every) == key], exact)
        for key in keys
    ]


def make_point(rows: Sequence[ImageRow], exact: dict[tuple[str, int], tuple[float, ...]]) -> Point:
    """Return the point of one codec's rows."""
    first = rows[0]
    gains: list[tuple[float, ...]] = []
    for row in rows if first.family != LOSSLESS_SETTING else ():
        pairs = zip(region_dice_of(row), exact[row.case, row.every], strict=True)
        gains.append(tuple(own - best for own, best in pairs))
    size, encode_ms, decode_ms = (
        float(np.mean([getattr(row, name) for row in rows]))
        for name in ("size", "encode_ms", "decode_ms")
    )
    key = (first.family, first.setting, first.every)
    return Point(*key, size, encode_ms, decode_ms, tuple(gains))


def region_dice_of(row: ImageRow) -> tuple[float, ...]:
    """Return the Dice of a row's regions."""
    return tuple(value for value in (row.wt, row.tc, row.et) if value is not None)


def draw_gains(path: Path, points: Sequence[Point]) -> None:
    """Draw the change in Dice, of the mean and of the worst region, against bytes."""
    figure = Figure(figsize=(9, 3.6))
    sides = figure.subplots(1, 2)
    shown = [one for one in points if one.gains and one.every > 1]
    for axes, limit, title in zip(
        sides, (MEAN_LOSS, REGION_LOSS), ("mean of the regions", "the worst region"), strict=True
    ):
        for family, colour in COLOURS.items():
            table_line = sorted((p.size, *gains_of(p)) for p in shown if p.family == family)
            value = 1 if axes is sides[0] else 2
            places = [entry[0] for entry in table_line], [entry[value] for entry in table_line]
            axes.plot(*places, marker="o", ms=3, lw=1, color=colour, label=family)
        axes.axvline(LARGEST, color="black", lw=0.6, ls="--")
        axes.axhline(-limit, color="black", lw=0.6, ls="--")
        axes.axhline(0, color="black", lw=0.4)
        [chosen] = [p for p in shown if is_default(p)]
        height = gains_of(chosen)[0 if axes is sides[0] else 1]
        axes.plot([chosen.size], [height], marker="*", ms=12, color=COLOURS[WIRE_CODEC])
        axes.set_xscale("log")
        axes.set_xticks([1000, 2000, 3000, 5000, 10000], ["1", "2", "3", "5", "10"])
        axes.minorticks_off()
        axes.set_ylim(-0.03, 0.02)
        axes.set_xlabel("kB a slice")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    sides[0].set_ylabel("change in Dice")
    sides[1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    write_bytes(path, svg(figure))


def gains_of(one: Point) -> tuple[float, float]:
    """Return the mean gain and the worst region's."""
    return one.mean, min(one.regions)


def is_default(one: Point) -> bool:
    """Return whether this is codec 3 with its default setting."""
    return (one.family, one.setting) == (WIRE_CODEC, DEFAULT)


MEASURED_AT = "the networks of commit 005ee93, folds over 39 patients"
"""Which networks the committed rows belong to; --data measures today's."""


def make_page(points: Sequence[Point], machine: str) -> str:
    """Return the figures of docs/wire.md."""
    [whole] = [one for one in points if is_default(one) and one.every == 1]
    head = ("codec", "setting", "bytes", "encoding ms", "decoding ms", *REGIONS, "mean")
    lossy = [bold_cells(one) for one in points if one.gains and one.every > 1]
    means = [float(np.mean(gain)) for gain in whole.gains]
    lossless = [one for one in points if not one.gains]
    return "\n\n".join([
        f"{len(whole.gains)} patients, each segmented by the compact network of the fold that was "
        f"not trained on it ({MEASURED_AT}). Every fourth slice; bytes are the mean of a slice, "
        "the last columns the change in Dice against exact slices. Times are processor times of "
        f"one thread, {machine}. A container that is the same for each slice is not counted.",
        table(head, lossy),
        f"The default through all slices, {WIRE_CODEC} at {DEFAULT}: {whole.size:,.0f} bytes; "
        + ", ".join(f"{r} {g:+.4f}" for r, g in zip(REGIONS, whole.regions, strict=True))
        + f", mean {whole.mean:+.4f}. Of single patients the mean changes by {min(means):+.3f} to "
        f"{max(means):+.3f}. A patient without ET in whom ET is no longer found changes the mean "
        f"of ET by {1 / len(means):.3f}.",
        "Lossless codecs:",
        table(head[1:5], [point_cells(one)[1:] for one in lossless]),
    ])  # fmt: skip


def bold_cells(one: Point) -> tuple[str, ...]:
    """Return a point as cells of the table, the default in bold."""
    shown = (*point_cells(one), *(f"{gain:+.4f}" for gain in (*one.regions, one.mean)))
    return tuple(f"**{cell}**" for cell in shown) if is_default(one) else shown


def point_cells(one: Point) -> tuple[str, ...]:
    """Return a point's codec, setting, bytes and times."""
    times = f"{one.encode_ms:.1f}", f"{one.decode_ms:.1f}"
    return one.family, one.setting, f"{one.size:,.0f}", *times


@dataclass(frozen=True)
class PatientSlices:
    """Slices (Z', X, Y, 4) as the network takes them, and the ground truth (Z', X, Y)."""

    name: str
    slices: Image
    truth: NDArray[np.uint8]


@dataclass(frozen=True)
class CodecResult:
    """Every n-th slice of a patient through one codec: bytes, milliseconds, and masks if lossy."""

    every: int
    sizes: NDArray[np.float64]
    encoding: NDArray[np.float64]
    decoding: NDArray[np.float64]
    masks: NDArray[np.uint8] | None


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and compare."""
    parser = cli.parser(
        "Compare image codecs: bytes against Dice on the board.",
        "python benchmarks/image_codecs.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="cases; without them only the page is written")
    cli.run(compare_codecs, parser.parse_args(argv))


def compare_codecs(arguments: argparse.Namespace) -> None:
    """Score the codecs if there are cases, and write the page."""
    if arguments.data:
        write_rows(list(score_codecs(arguments.data)))
        write_json(MACHINE, {"machine": processor()})
    points = make_points(read_rows())
    draw_gains(PAGE.with_name("images.svg"), points)
    fill(PAGE, {"images": make_page(points, read_json(MACHINE)["machine"])})


def score_codecs(data: Path) -> Iterator[ImageRow]:
    """Yield the rows of all patients; raises GliosliceError if one is missing in `data`."""
    for fold in FOLDS:
        [file] = FoldRun("compact", fold).folder.glob("*-int8.tflite")
        engine = Engine(file)
        for case in fold_cases(fold, data, "segmenting"):
            yield from score_patient(prepare_patient(case, engine), engine)


def prepare_patient(case: Case, engine: Engine) -> PatientSlices:
    """Return a case as the network takes it."""
    assert case.labels is not None
    brain = brain_mask(case.images)
    crop = find_crop(brain, engine.card.window)
    slices = extract_slices(z_scores(case.images, brain, engine.card.clip), crop)
    assert engine.input.scale is not None
    quantised = quantize(slices, engine.input.scale, engine.input.zero_point)
    return PatientSlices(case.name, quantised, extract_slices(case.labels, crop))


def score_patient(one: PatientSlices, engine: Engine) -> Iterator[ImageRow]:
    """Yield the rows of a patient: exact slices, the default codec on all, each codec on some."""
    nothing = np.zeros(len(one.slices))
    exact = CodecResult(1, nothing, nothing, nothing, segment_slices(one.slices, engine))
    for every in (1, EVERY):
        yield make_row(one, (EXACT, ""), every, exact)
    for place, codec in enumerate(codec_settings()):
        result = segment_through(one.slices, 1 if place == 0 else EVERY, codec, engine)
        for every in (1, EVERY) if place == 0 else (EVERY,):
            yield make_row(one, (codec.family, codec.setting), every, result)


def make_row(
    one: PatientSlices, name: tuple[str, str], every: int, result: CodecResult
) -> ImageRow:
    """Return the row of every n-th slice."""
    some = slice(None, None, every // result.every)
    means = [
        round(float(np.mean(values[some])), 2)
        for values in (result.sizes, result.encoding, result.decoding)
    ]
    dice: tuple[float | None, ...] = (None, None, None)
    if result.masks is not None:
        dice = slices_dice(result.masks[some], one.truth[::every])
    return ImageRow(one.name, *name, every, *means, *dice)


def segment_through(slices: Image, every: int, codec: CodecSetting, engine: Engine) -> CodecResult:
    """Encode, decode and segment slices.

    Raises GliosliceError if a lossless codec does not restore a slice.
    """
    decoded, measured = [], []
    for z in range(0, len(slices), every):
        image, before = slices[z], slices[max(z - 1, 0)]
        began = time.thread_time()
        content = codec.encode(image, before)
        between = time.thread_time()
        back = codec.decode(content, before)
        ended = time.thread_time()
        if codec.family == LOSSLESS_SETTING and not np.array_equal(back, image):
            raise GliosliceError(f"{codec.setting}: a slice was not restored")
        decoded.append(back)
        measured.append((codec.size(content), (between - began) * 1000, (ended - between) * 1000))
    masks = None if codec.family == LOSSLESS_SETTING else segment_slices(decoded, engine)
    sizes, encoding, decoding = np.array(measured).T
    return CodecResult(every, sizes, encoding, decoding, masks)


def segment_slices(slices: Image | Sequence[Image], engine: Engine) -> NDArray[np.uint8]:
    """Return the labels (slices, X, Y) of slices, computed as on a board."""
    found = [to_labels(engine.regions(engine.logits(image))) for image in slices]
    return np.stack(found)


def slices_dice(masks: NDArray[np.uint8], truth: NDArray[np.uint8]) -> tuple[float, ...]:
    """Return the Dice of WT, TC and ET over all slices."""
    pairs = zip(to_regions(masks), to_regions(truth), strict=True)
    return tuple(round(dice(found, wanted), 5) for found, wanted in pairs)


if __name__ == "__main__":
    main()
