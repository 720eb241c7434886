"""What a quality byte could be: several definitions, all told in the byte's own steps.

Each takes the logits of a slice, (X, Y, 3) float32 with the threshold at 0, and gives 0 to 254 for
a mask that holds something. An empty mask says the same by all: how far its nearest pixel is.

The two tables of `benchmarks/quality/`: numbers of slices and cases, no voxels.

What the tables of `benchmarks/quality/` come to: correlations, the threshold, page and picture.

A mask is poor if its Dice, the mean of the regions that mask or truth hold, is under POOR.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks.accuracy_tables import COLOURS, GRADES, save
from benchmarks.folds import ROOT, Run, patients
from benchmarks.pages import table
from benchmarks.scores import read_scores
from device.confidence import MOST, PER_LOGIT, STRIP, strips_of
from glioslice.cases import MODALITIES
from glioslice.files import whole
from glioslice.labels import REGIONS

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

DOUBT = 2.0
"""Logits: nearer to the threshold than this is a chance between 12 and 88 %."""


def strip(width: int) -> Callable[[Floats], float]:
    """Return how far a region is above the threshold, on average over a strip along its border."""

    def far(region: Floats) -> float:
        return float(_far(region)[_strip(region > 0, width)].mean())

    return far


def whole_slice(region: Floats) -> float:
    """Return how far all of a region is above the threshold."""
    return float(_far(region)[region > 0].mean())


def both(region: Floats) -> float:
    """Return how far the two pixels on either side of the border are from the threshold."""
    inside = region > 0
    outside = np.pad(~inside, 2, constant_values=True)  # the window's edge is no border
    return float(_far(region)[_strip(inside, 2) | _strip(outside, 2)[2:-2, 2:-2]].mean())


def step(region: Floats) -> float:
    """Return half the step from a pixel outside to its neighbour inside."""
    steps = []
    for axis in (0, 1):
        ahead, behind = np.moveaxis(region, axis, 0)[1:], np.moveaxis(region, axis, 0)[:-1]
        steps.append(np.abs(ahead - behind)[(ahead > 0) != (behind > 0)])
    return min(MOST, float(np.concatenate(steps).mean()) / 2 * PER_LOGIT)


def sure(region: Floats) -> float:
    """Return which share the region has of itself and all pixels in doubt, of the whole slice."""
    pixels = np.count_nonzero(region > 0)
    return MOST * pixels / (pixels + np.count_nonzero(np.abs(region) < DOUBT))


def soft(region: Floats) -> float:
    """Return the Dice of the region with the chances that the network gives each pixel."""
    chances = 1 / (1 + np.exp(-np.clip(region, -30, 30)))
    inside = region > 0
    return float(MOST * 2 * chances[inside].sum() / (chances.sum() + inside.sum()))


DEFINITIONS: dict[str, tuple[str, Callable[[Floats], float]]] = {
    "strip-1": ("strip of 1 pixel inside the border", strip(1)),
    "strip-2": ("strip of 2 pixels", strip(2)),
    "strip-4": ("strip of 4 pixels", strip(4)),
    "whole": ("all of the region", whole_slice),
    "both": ("2 pixels on both sides of the border", both),
    "step": ("step from pixel to pixel across the border", step),
    "sure": ("region as a share of itself and the pixels in doubt", sure),
    "soft": ("Dice of the mask with its own chances", soft),
}
"""What is compared with the byte itself; each is the mean of the regions that are there."""

BYTE = "byte"
TITLE = f"the byte: strip of {STRIP} pixels"


def defined(logits: Floats, byte: int) -> dict[str, int]:
    """Return what each definition says of a slice, and the byte that the device gives it."""
    there = [logits[..., i] for i in range(logits.shape[-1]) if (logits[..., i] > 0).any()]
    said = {BYTE: byte}
    for name, (_, definition) in DEFINITIONS.items():
        said[name] = round(float(np.mean([definition(r) for r in there]))) if there else byte
    return said


def _far(region: Floats) -> Floats:
    return np.minimum(np.abs(region) * PER_LOGIT, MOST).astype(np.float32)


def _strip(inside: Mask, width: int) -> Mask:
    return strips_of(inside, 1, width)


FOLDER = ROOT / "benchmarks" / "quality"
NAMES = (BYTE, *DEFINITIONS)


@dataclass(frozen=True)
class SliceRow:
    """Slice `z`: pixels of mask and truth, Dice of WT, TC, ET, and what each definition says.

    The Dice of a region is None where neither mask nor truth hold it.
    """

    case: str
    z: int
    pixels: int
    truth: int
    dice: tuple[float | None, ...]
    said: Mapping[str, int]

    @property
    def mean(self) -> float:
        """The mean Dice of the regions that mask or truth hold; 1 where neither holds any."""
        return fmean([one for one in self.dice if one is not None] or [1.0])


@dataclass(frozen=True)
class CaseRow:
    """A case, `missing` a modality ("": none): its byte, and how many pixels its masks hold.

    That byte is the mean over the masks, weighted by their pixels, as the desk counts it.
    """

    case: str
    missing: str
    pixels: int
    byte: float


def case_byte(masks: Iterable[tuple[int, int]]) -> tuple[int, float]:
    """Return the pixels of masks, given as (pixels, byte), and their mean byte so weighted."""
    held = [(pixels, byte) for pixels, byte in masks if pixels]
    total = sum(pixels for pixels, _ in held)
    return total, sum(pixels * byte for pixels, byte in held) / total if total else 0.0


def write_rows(slices: Sequence[SliceRow], cases: Sequence[CaseRow]) -> None:
    """Write both tables, each whole or not at all."""
    head = ("case", "z", "pixels", "truth", *REGIONS, *NAMES)
    lines = [
        (r.case, r.z, r.pixels, r.truth, *("" if d is None else f"{d:.3f}" for d in r.dice),
         *(r.said[name] for name in NAMES))
        for r in slices
    ]  # fmt: skip
    _write(FOLDER / "slices.csv", head, lines)
    head = ("case", "missing", "pixels", "byte")
    rows = [(r.case, r.missing, r.pixels, f"{r.byte:.1f}") for r in cases]
    _write(FOLDER / "cases.csv", head, rows)


def read_slices() -> list[SliceRow]:
    """Return the committed rows of slices."""
    return [
        SliceRow(
            row["case"],
            int(row["z"]),
            int(row["pixels"]),
            int(row["truth"]),
            tuple(float(row[r]) if row[r] else None for r in REGIONS),
            {name: int(row[name]) for name in NAMES},
        )
        for row in _read(FOLDER / "slices.csv")
    ]


def read_cases() -> list[CaseRow]:
    """Return the committed rows of cases."""
    return [
        CaseRow(row["case"], row["missing"], int(row["pixels"]), float(row["byte"]))
        for row in _read(FOLDER / "cases.csv")
    ]


def _write(path: Path, head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    with whole(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(lines)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


POOR = 0.5
BIN = 32
"""Steps of the byte in a row of the table."""


@dataclass(frozen=True)
class Correlation:
    """Spearman's, of what a definition says: with the Dice of slices and of cases.

    Slices are those that hold tumour in mask or truth: WT, and the mean of the regions. Cases: the
    mean over the masks, weighted by their pixels, with the mean Dice of the volume.
    """

    whole: float
    mean: float
    case: float


def judged(slices: Sequence[SliceRow]) -> list[SliceRow]:
    """Return the slices that hold tumour in mask or truth."""
    return [row for row in slices if row.pixels or row.truth]


def correlation(slices: Sequence[SliceRow], name: str) -> Correlation:
    """Return how what a definition says goes with Dice."""
    rows = judged(slices)
    said = [row.said[name] for row in rows]
    held: dict[str, list[tuple[int, int]]] = {}
    for row in slices:
        held.setdefault(row.case, []).append((row.pixels, row.said[name]))
    dice = case_dice()
    return Correlation(
        rho(said, [row.dice[0] or 0.0 for row in rows]),
        rho(said, [row.mean for row in rows]),
        rho([case_byte(masks)[1] for masks in held.values()], [dice[case, ""] for case in held]),
    )


def rho(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation."""
    return float(spearmanr(one, other).statistic)


def case_dice() -> dict[tuple[str, str], float]:
    """Return the mean volume Dice by case and missing modality, from the scores of the folds."""
    return {
        (score.case, score.missing): score.mean
        for fold in sorted({p.fold for p in patients()})
        for score in read_scores(Run("compact", fold))
        if score.precision == "int8"
    }


def threshold(slices: Sequence[SliceRow]) -> int:
    """Return the byte under which a mask is marked.

    The one that errs least often: it marks fewest masks that are not poor, and leaves fewest poor
    ones unmarked. The lowest of equals. Empty masks have no part in the choice.
    """
    held = [row for row in slices if row.pixels]
    poor = np.array([row.mean < POOR for row in held])
    said = np.array([row.said[BYTE] for row in held])
    errors = [int(((said < t) != poor).sum()) for t in range(MOST + 2)]
    return int(np.argmin(errors))


def page(slices: Sequence[SliceRow], cases: Sequence[CaseRow]) -> str:
    """Return the figures of docs/confidence.md."""
    return "\n\n".join([
        definitions_table(slices),
        "The byte by itself, for masks that hold something:",
        bytes_table(slices),
        marked(slices),
        "A modality set to 0, the mean over patients of each one's byte:",
        missing_table(cases),
    ])  # fmt: skip


def definitions_table(slices: Sequence[SliceRow]) -> str:
    """Return the correlations of the byte and of what it might have been."""
    rows = []
    titles = {BYTE: TITLE} | {name: title for name, (title, _) in DEFINITIONS.items()}
    for name in NAMES:
        found = correlation(slices, name)
        figures = (found.whole, found.mean, found.case)
        rows.append([titles[name], *(f"{n:.2f}" for n in (*figures, fmean(figures)))])
    return table(("definition", "slices, WT", "slices, mean", "cases", "mean of the three"), rows)


def bytes_table(slices: Sequence[SliceRow]) -> str:
    """Return how good masks are by their byte."""
    rows = []
    for low in range(0, MOST + 1, BIN):
        held = [row for row in slices if row.pixels and low <= row.said[BYTE] < low + BIN]
        if held:
            rows.append([
                f"{low} to {min(low + BIN - 1, MOST)}", len(held),
                f"{fmean(row.dice[0] or 0.0 for row in held):.2f}",
                f"{fmean(row.mean for row in held):.2f}",
                f"{fmean(row.mean < POOR for row in held):.0%}",
            ])  # fmt: skip
    return table(("byte", "masks", "mean Dice, WT", "mean", f"under {POOR}"), rows)


def marked(slices: Sequence[SliceRow]) -> str:
    """Return what the threshold marks and what it passes."""
    limit = threshold(slices)
    held = [row for row in slices if row.pixels]
    empty = [row for row in slices if not row.pixels]
    poor = [row for row in held if row.mean < POOR]
    good = [row for row in held if row.mean >= POOR]
    missed = [row for row in empty if row.truth]
    right = [row for row in empty if not row.truth]
    low = {name: sum(row.said[BYTE] < limit for row in rows) for name, rows in (
        ("poor", poor), ("good", good), ("missed", missed), ("right", right)
    )}  # fmt: skip
    volumes = len({row.case for row in slices})
    return (
        f"The desk marks a slice whose byte is under **{limit}**. Of the {len(held):,} masks that "
        f"hold something, {len(poor)} have a mean Dice under {POOR}: {low['poor']} of them are "
        f"marked, and {low['good']} of the {len(good):,} others. Of the {len(empty):,} empty masks "
        f"{len(missed)} missed tumour: {low['missed']} of them are marked, and {low['right']} of "
        f"the {len(right):,} that were right. That is {sum(low.values()) / volumes:.0f} marks in a "
        f"volume of {len(slices) / volumes:.0f} slices."
    )


def missing_table(cases: Sequence[CaseRow]) -> str:
    """Return what a missing modality does to the byte, and to Dice."""
    dice = case_dice()
    rows = []
    for missing in ("", *MODALITIES):
        found = [row for row in cases if row.missing == missing]
        rows.append([
            missing or "none",
            f"{fmean(row.byte for row in found):.0f}",
            f"{fmean(dice[row.case, missing] for row in found):.2f}",
            f"{rho([row.byte for row in found], [dice[row.case, missing] for row in found]):.2f}",
        ])  # fmt: skip
    return table(("missing", "mean byte", "mean Dice", "correlation over cases"), rows)


def draw(slices: Sequence[SliceRow], cases: Sequence[CaseRow], path: Path) -> None:
    """Draw slices' Dice by their byte, and cases' by their mean byte."""
    figure = Figure(figsize=(8.4, 3.2))
    draw_slices(figure.add_subplot(1, 2, 1), slices)
    axes = figure.add_subplot(1, 2, 2)
    dice, grade_of = case_dice(), {p.case: p.grade for p in patients()}
    for grade in GRADES:
        found = [row for row in cases if not row.missing and grade_of[row.case] == grade]
        y = [dice[row.case, ""] for row in found]
        axes.scatter([row.byte for row in found], y, s=14, color=COLOURS[grade],
                     label=f"{grade} grade")  # fmt: skip
    axes.set_xlabel("byte of a case: mean of its masks, by their pixels")
    axes.set_ylabel("mean volume Dice")
    axes.set_ylim(0, 1)
    axes.legend(fontsize=8, loc="upper left")
    axes.grid(alpha=0.3)
    figure.subplots_adjust(wspace=0.3)
    save(figure, path)


def draw_slices(axes: Axes, slices: Sequence[SliceRow]) -> None:
    """Draw median and quartiles of the mean Dice by the byte, and the threshold."""
    middles: list[float] = []
    quartiles: tuple[list[float], ...] = ([], [], [])
    for start in range(0, MOST + 1, BIN // 2):
        held = [r.mean for r in slices if r.pixels and start <= r.said[BYTE] < start + BIN // 2]
        if len(held) >= 10:
            middles.append(start + BIN / 4)
            for values, value in zip(quartiles, np.percentile(held, [25, 50, 75]), strict=True):
                values.append(float(value))
    low, median, high = quartiles
    axes.fill_between(middles, low, high, color=COLOURS["high"], alpha=0.25, lw=0)
    axes.plot(middles, median, color=COLOURS["high"], marker="o", ms=3, lw=1)
    axes.axvline(threshold(slices), color=COLOURS["low"], lw=1, ls="--")
    axes.annotate("marked below", (threshold(slices), 0.02), xytext=(-4, 0), ha="right",
                  textcoords="offset points", fontsize=8, color=COLOURS["low"])  # fmt: skip
    axes.set_xlabel("byte of a mask that holds something")
    axes.set_ylabel("mean Dice, median and quartiles")
    axes.set_ylim(0, 1)
    axes.set_xlim(0, MOST)
    axes.grid(alpha=0.3)
