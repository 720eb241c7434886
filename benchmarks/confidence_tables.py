"""The tables of `benchmarks/quality/` and what docs/confidence.md shows of them.

The confidence byte is compared with other definitions in the byte's own steps. Each takes the
logits of a slice, (X, Y, 3) float32 with the threshold at 0, and gives 0 to 254 for a mask that is
not empty. For an empty mask all give the byte itself: the distance of the nearest pixel.

A mask is poor if its Dice, the mean over the regions in mask or ground truth, is under POOR.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks import ROOT
from benchmarks.accuracy import COLOURS, SHOWN_GRADES, save
from benchmarks.folds import FoldRun, patients
from benchmarks.missing_modalities import read_subset_scores
from benchmarks.pages import read_csv, table, write_csv
from benchmarks.scores import RAW
from device.confidence import BORDER_WIDTH, MAX_DISTANCE, STEPS_PER_LOGIT, border_strips
from firmware_host.volumetry import MOST_MARKED, worst_slices
from glioslice.cases import MODALITIES
from glioslice.dataset_layouts import MODALITY_TITLES
from glioslice.labels import REGIONS

Floats = NDArray[np.float32]
BinaryMask = NDArray[np.bool_]

DOUBT = 2.0
"""Logits: within this distance of the threshold the probability is between 12 and 88 %."""

BYTE = "byte"

TITLE = f"the byte: strip of {BORDER_WIDTH} pixels"

FOLDER = ROOT / "benchmarks" / "quality"

POOR = 0.5

BIN = 32
"""Steps of the byte in a row of the table."""


def inner_strip(width: int) -> Callable[[Floats], float]:
    """Return a definition: mean distance to the threshold in a strip inside a region's border."""

    def mean_distance(region: Floats) -> float:
        return float(_distance(region)[_strip(region > 0, width)].mean())

    return mean_distance


def whole_region(region: Floats) -> float:
    """Return the mean distance to the threshold over the whole region."""
    return float(_distance(region)[region > 0].mean())


def both_sides(region: Floats) -> float:
    """Return the mean distance to the threshold over two pixels on both sides of the border."""
    inside = region > 0
    outside = np.pad(~inside, 2, constant_values=True)  # the window's edge is not a border
    return float(_distance(region)[_strip(inside, 2) | _strip(outside, 2)[2:-2, 2:-2]].mean())


def step(region: Floats) -> float:
    """Return half the mean step from a pixel outside to its neighbour inside."""
    steps = []
    for axis in (0, 1):
        ahead, behind = np.moveaxis(region, axis, 0)[1:], np.moveaxis(region, axis, 0)[:-1]
        steps.append(np.abs(ahead - behind)[(ahead > 0) != (behind > 0)])
    return min(MAX_DISTANCE, float(np.concatenate(steps).mean()) / 2 * STEPS_PER_LOGIT)


def certain_share(region: Floats) -> float:
    """Return the region as a share of itself and all doubtful pixels of the slice."""
    pixels = np.count_nonzero(region > 0)
    return MAX_DISTANCE * pixels / (pixels + np.count_nonzero(np.abs(region) < DOUBT))


def soft_dice(region: Floats) -> float:
    """Return the Dice of the region with the network's own probabilities."""
    probabilities = 1 / (1 + np.exp(-np.clip(region, -30, 30)))
    inside = region > 0
    return float(
        MAX_DISTANCE * 2 * probabilities[inside].sum() / (probabilities.sum() + inside.sum())
    )


DEFINITIONS: dict[str, tuple[str, Callable[[Floats], float]]] = {
    "strip-1": ("strip of 1 pixel inside the border", inner_strip(1)),
    "strip-2": ("strip of 2 pixels", inner_strip(2)),
    "strip-4": ("strip of 4 pixels", inner_strip(4)),
    "whole": ("all of the region", whole_region),
    "both": ("2 pixels on both sides of the border", both_sides),
    "step": ("step from pixel to pixel across the border", step),
    "sure": ("region as a share of itself and the doubtful pixels", certain_share),
    "soft": ("Dice of the mask with its own probabilities", soft_dice),
}
"""What the byte is compared with; each is the mean over the regions that are not empty."""


def bytes_by_definition(logits: Floats, byte: int) -> dict[str, int]:
    """Return the byte of a slice by each definition, and the one that the device sends."""
    present = [logits[..., i] for i in range(logits.shape[-1]) if (logits[..., i] > 0).any()]
    rated = {BYTE: byte}
    for name, (_, definition) in DEFINITIONS.items():
        rated[name] = round(float(np.mean([definition(r) for r in present]))) if present else byte
    return rated


def _distance(region: Floats) -> Floats:
    return np.minimum(np.abs(region) * STEPS_PER_LOGIT, MAX_DISTANCE).astype(np.float32)


def _strip(inside: BinaryMask, width: int) -> BinaryMask:
    return border_strips(inside, 1, width)


NAMES = (BYTE, *DEFINITIONS)


@dataclass(frozen=True)
class SliceConfidence:
    """Slice `z`: pixels of mask and ground truth, Dice of WT, TC, ET, bytes by each definition.

    The Dice of a region is None if it is empty in both mask and ground truth.
    """

    case: str
    z: int
    pixels: int
    truth: int
    dice: tuple[float | None, ...]
    bytes: Mapping[str, int]

    @property
    def mean(self) -> float:
        """The mean Dice over the regions in mask or ground truth; 1 if there are none."""
        return fmean([one for one in self.dice if one is not None] or [1.0])


@dataclass(frozen=True)
class CaseConfidence:
    """The byte of a case with one modality set to 0 (`missing`, "": none), and its masks' pixels.

    That byte is the mean over the masks, weighted by their pixels, as the host computes it.
    """

    case: str
    missing: str
    pixels: int
    byte: float


def case_byte(masks: Iterable[tuple[int, int]]) -> tuple[int, float]:
    """Return the pixels of masks, given as (pixels, byte), and their byte weighted by pixels."""
    found = [(pixels, byte) for pixels, byte in masks if pixels]
    total = sum(pixels for pixels, _ in found)
    return total, sum(pixels * byte for pixels, byte in found) / total if total else 0.0


def write_measurements(slices: Sequence[SliceConfidence], cases: Sequence[CaseConfidence]) -> None:
    """Write both tables, each atomically."""
    head = ("case", "z", "pixels", "truth", *REGIONS, *NAMES)
    lines = [
        (r.case, r.z, r.pixels, r.truth, *("" if d is None else f"{d:.3f}" for d in r.dice),
         *(r.bytes[name] for name in NAMES))
        for r in slices
    ]  # fmt: skip
    write_csv(FOLDER / "slices.csv", head, lines)
    head = ("case", "missing", "pixels", "byte")
    rows = [(r.case, r.missing, r.pixels, f"{r.byte:.1f}") for r in cases]
    write_csv(FOLDER / "cases.csv", head, rows)


def read_slice_rows() -> list[SliceConfidence]:
    """Return the committed rows of slices."""
    return [
        SliceConfidence(
            row["case"],
            int(row["z"]),
            int(row["pixels"]),
            int(row["truth"]),
            tuple(float(row[r]) if row[r] else None for r in REGIONS),
            {name: int(row[name]) for name in NAMES},
        )
        for row in read_csv(FOLDER / "slices.csv")
    ]


def read_case_rows() -> list[CaseConfidence]:
    """Return the committed rows of cases."""
    return [
        CaseConfidence(row["case"], row["missing"], int(row["pixels"]), float(row["byte"]))
        for row in read_csv(FOLDER / "cases.csv")
    ]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a definition with the Dice of slices and of cases.

    Slices are those with tumour in mask or ground truth: WT, and the mean of the regions. Cases:
    the mean over the masks, weighted by their pixels, with the mean Dice of the volume.
    """

    whole: float
    mean: float
    case: float


def slices_with_tumour(slices: Sequence[SliceConfidence]) -> list[SliceConfidence]:
    """Return the slices with tumour in mask or ground truth."""
    return [row for row in slices if row.pixels or row.truth]


def correlate(slices: Sequence[SliceConfidence], name: str) -> Correlation:
    """Return how a definition correlates with Dice."""
    rows = slices_with_tumour(slices)
    rated = [row.bytes[name] for row in rows]
    masks_by_case: dict[str, list[tuple[int, int]]] = {}
    for row in slices:
        masks_by_case.setdefault(row.case, []).append((row.pixels, row.bytes[name]))
    dice = case_dice()
    return Correlation(
        rho(rated, [row.dice[0] or 0.0 for row in rows]),
        rho(rated, [row.mean for row in rows]),
        rho(
            [case_byte(masks)[1] for masks in masks_by_case.values()],
            [dice[case, ""] for case in masks_by_case],
        ),
    )


def rho(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Spearman's rank correlation."""
    return float(spearmanr(one, other).statistic)


def case_dice() -> dict[tuple[str, str], float]:
    """Return the mean volume Dice of raw masks by case and missing modality.

    It comes from the scores of the folds (`benchmarks/missing_modalities.py`).
    """
    return {
        (score.case, " ".join(score.missing)): score.mean
        for fold in sorted({p.fold for p in patients()})
        for score in read_subset_scores(FoldRun("compact", fold))
        if score.masks == RAW
    }


def threshold(slices: Sequence[SliceConfidence]) -> int:
    """Return the byte under which a mask is marked.

    It makes the fewest errors: masks that are marked but not poor, and poor masks that are not
    marked. Of equals the lowest. Empty masks do not count.
    """
    found = [row for row in slices if row.pixels]
    poor = np.array([row.mean < POOR for row in found])
    rated = np.array([row.bytes[BYTE] for row in found])
    errors = [int(((rated < t) != poor).sum()) for t in range(MAX_DISTANCE + 2)]
    return int(np.argmin(errors))


def make_page(slices: Sequence[SliceConfidence], cases: Sequence[CaseConfidence]) -> str:
    """Return the figures of docs/confidence.md."""
    return "\n\n".join([
        definitions_table(slices),
        "The byte alone, for masks that are not empty:",
        bytes_table(slices),
        describe_threshold(slices),
        marks_table(slices),
        describe_marks(slices),
        "With one modality set to 0, means over patients:",
        missing_confidence_table(cases),
    ])  # fmt: skip


def definitions_table(slices: Sequence[SliceConfidence]) -> str:
    """Return the correlations of the byte and of the other definitions."""
    rows = []
    titles = {BYTE: TITLE} | {name: title for name, (title, _) in DEFINITIONS.items()}
    for name in NAMES:
        found = correlate(slices, name)
        figures = (found.whole, found.mean, found.case)
        rows.append([titles[name], *(f"{n:.2f}" for n in (*figures, fmean(figures)))])
    return table(("definition", "slices, WT", "slices, mean", "cases", "mean of the three"), rows)


def bytes_table(slices: Sequence[SliceConfidence]) -> str:
    """Return the Dice of masks by their byte."""
    rows = []
    for low in range(0, MAX_DISTANCE + 1, BIN):
        found = [row for row in slices if row.pixels and low <= row.bytes[BYTE] < low + BIN]
        if found:
            rows.append([
                f"{low} to {min(low + BIN - 1, MAX_DISTANCE)}", f"{len(found):,}",
                f"{fmean(row.dice[0] or 0.0 for row in found):.2f}",
                f"{fmean(row.mean for row in found):.2f}",
                f"{fmean(row.mean < POOR for row in found):.0%}",
            ])  # fmt: skip
    return table(("byte", "masks", "mean Dice, WT", "mean", f"under {POOR}"), rows)


def describe_threshold(slices: Sequence[SliceConfidence]) -> str:
    """Return how many masks are under the threshold, good, poor, missed and right."""
    limit = threshold(slices)
    found = [row for row in slices if row.pixels]
    empty = [row for row in slices if not row.pixels]
    poor = [row for row in found if row.mean < POOR]
    good = [row for row in found if row.mean >= POOR]
    missed = [row for row in empty if row.truth]
    right = [row for row in empty if not row.truth]
    low = {name: sum(row.bytes[BYTE] < limit for row in rows) for name, rows in (
        ("poor", poor), ("good", good), ("missed", missed), ("right", right)
    )}  # fmt: skip
    volumes = len({row.case for row in slices})
    return (
        f"A slice is doubtful if its byte is under **{limit}**. Of the {len(found):,} masks that "
        f"are not empty, {len(poor):,} have a mean Dice under {POOR}: {low['poor']:,} of them are "
        f"doubtful, and {low['good']:,} of the {len(good):,} others. Of the {len(empty):,} empty "
        f"masks {len(missed):,} missed tumour: {low['missed']:,} of them are doubtful, and "
        f"{low['right']:,} of the {len(right):,} that were right. That is "
        f"{sum(low.values()) / volumes:.0f} doubtful slices in a volume of "
        f"{len(slices) / volumes:.0f}, too many to look at: the host marks at most "
        f"**{MOST_MARKED}** of them, within or beside tumour of the mask. Ways to choose them:"
    )


def wrong_pixels(row: SliceConfidence) -> float:
    """Return how many pixels of WT differ from the ground truth, from the areas and Dice."""
    return (row.pixels + row.truth) * (1 - (1.0 if row.dice[0] is None else row.dice[0]))


@dataclass(frozen=True)
class Marks:
    """Marked slices, those with a mean Dice under POOR, and their share of all wrong pixels."""

    slices: int
    poor: int
    share: float


Choice = Callable[[Mapping[int, SliceConfidence]], list[int]]
"""Returns which slices of a volume are marked, from its rows by Z."""


def measure_marks(slices: Sequence[SliceConfidence], choose: Choice) -> Marks:
    """Return what the marks find over all volumes."""
    volumes: dict[str, dict[int, SliceConfidence]] = {}
    for row in slices:
        volumes.setdefault(row.case, {})[row.z] = row
    marked = [rows[z] for rows in volumes.values() for z in choose(rows)]
    poor = sum(row.mean < POOR for row in marked if row.pixels or row.truth)
    share = sum(map(wrong_pixels, marked)) / sum(map(wrong_pixels, slices))
    return Marks(len(marked), poor, share)


def chosen_by_host(rows: Mapping[int, SliceConfidence]) -> list[int]:
    """Return the slices that the host marks."""
    pixels = {z: row.pixels for z, row in rows.items()}
    return worst_slices({z: row.bytes[BYTE] for z, row in rows.items()}, pixels)


def best_by(score: Callable[[SliceConfidence], float]) -> Choice:
    """Return a choice: the slices within or beside tumour with the highest score."""

    def choose(rows: Mapping[int, SliceConfidence]) -> list[int]:
        near = [z for z in rows if any(rows[n].pixels for n in (z - 1, z, z + 1) if n in rows)]
        return sorted(near, key=lambda z: -score(rows[z]))[:MOST_MARKED]

    return choose


CHOICES: dict[str, Choice] = {
    "the host's: most doubt times width": chosen_by_host,
    "the lowest byte": best_by(lambda row: -row.bytes[BYTE]),
    "the largest area": best_by(lambda row: row.pixels),
    "most wrong pixels, if the truth were known": best_by(wrong_pixels),
}


def marks_table(slices: Sequence[SliceConfidence]) -> str:
    """Return what the host's marks find, and what other choices of as many slices would."""
    rows = []
    for title, choose in CHOICES.items():
        found = measure_marks(slices, choose)
        rows.append([title, found.slices, found.poor, f"{found.share:.1%}"])
    head = ("marked", "slices", f"mean Dice under {POOR}", "share of all wrong pixels (WT)")
    return table(head, rows)


def describe_marks(slices: Sequence[SliceConfidence]) -> str:
    """Return what the marks are worth."""
    host = measure_marks(slices, chosen_by_host)
    whole = measure_marks(slices, lambda rows: [z for z in rows if rows[z].pixels or rows[z].truth])
    near = measure_marks(
        slices,
        lambda rows: [
            z for z in rows if any(rows[n].pixels for n in (z - 1, z, z + 1) if n in rows)
        ],
    )
    return (
        f"So {host.poor / host.slices:.0%} of the marked slices are poor, of all slices with "
        f"tumour {whole.poor / whole.slices:.0%}. The marks find {host.share:.1%} of all wrong "
        f"pixels in {host.slices / near.slices:.1%} of the slices within or beside tumour. Most "
        "errors are spread thinly over many slices, and no choice of five finds them: **look at "
        "the whole mask, and at the marked slices first.**"
    )


def missing_confidence_table(cases: Sequence[CaseConfidence]) -> str:
    """Return how a missing modality changes the byte and Dice."""
    dice = case_dice()
    rows = []
    for missing in ("", *MODALITIES):
        found = [row for row in cases if row.missing == missing]
        rows.append([
            MODALITY_TITLES[missing] if missing else "none",
            f"{fmean(row.byte for row in found):.0f}",
            f"{fmean(dice[row.case, missing] for row in found):.2f}",
            f"{rho([row.byte for row in found], [dice[row.case, missing] for row in found]):.2f}",
        ])  # fmt: skip
    return table(("missing", "mean byte", "mean Dice", "correlation over cases"), rows)


def draw_confidence(
    slices: Sequence[SliceConfidence], cases: Sequence[CaseConfidence], path: Path
) -> None:
    """Draw the Dice of slices by their byte, and of cases by their mean byte."""
    figure = Figure(figsize=(8.4, 3.2))
    draw_slices(figure.add_subplot(1, 2, 1), slices)
    axes = figure.add_subplot(1, 2, 2)
    dice, grade_of = case_dice(), {p.case: p.grade for p in patients()}
    for grade in SHOWN_GRADES:
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


def draw_slices(axes: Axes, slices: Sequence[SliceConfidence]) -> None:
    """Draw median and quartiles of the mean Dice by the byte, and the threshold."""
    middles: list[float] = []
    quartiles: tuple[list[float], ...] = ([], [], [])
    for start in range(0, MAX_DISTANCE + 1, BIN // 2):
        found = [r.mean for r in slices if r.pixels and start <= r.bytes[BYTE] < start + BIN // 2]
        if len(found) >= 10:
            middles.append(start + BIN / 4)
            for values, value in zip(quartiles, np.percentile(found, [25, 50, 75]), strict=True):
                values.append(float(value))
    low, median, high = quartiles
    axes.fill_between(middles, low, high, color=COLOURS["high"], alpha=0.25, lw=0)
    axes.plot(middles, median, color=COLOURS["high"], marker="o", ms=3, lw=1)
    axes.axvline(threshold(slices), color=COLOURS["low"], lw=1, ls="--")
    axes.annotate("marked below", (threshold(slices), 0.02), xytext=(-4, 0), ha="right",
                  textcoords="offset points", fontsize=8, color=COLOURS["low"])  # fmt: skip
    axes.set_xlabel("byte of a mask that is not empty")
    axes.set_ylabel("mean Dice, median and quartiles")
    axes.set_ylim(0, 1)
    axes.set_xlim(0, MAX_DISTANCE)
    axes.grid(alpha=0.3)
