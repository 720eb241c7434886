"""What the tables of `benchmarks/quality/` come to: correlations, the threshold, page and picture.

A mask is poor if its Dice, the mean of the regions that mask or truth hold, is under POOR.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from benchmarks.pages import table
from benchmarks.plots import COLOURS, save
from benchmarks.quality_definitions import BYTE, DEFINITIONS, TITLE
from benchmarks.quality_rows import NAMES, CaseRow, SliceRow, case_byte
from benchmarks.runs import Run, patients
from benchmarks.scores import read_scores
from benchmarks.tables import GRADES
from device.quality import MOST
from glioslice.cases import MODALITIES

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
