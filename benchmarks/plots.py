"""The pictures of docs/accuracy.md, as SVG: the same figures give the same bytes."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.runs import RIVALS, patients
from benchmarks.scores import read_scores
from benchmarks.tables import GRADES, SIZES, VALUES, bytes_of, mean, pooled, rivals
from convert.picture import svg
from convert.products import LIMIT
from glioslice.files import write_bytes

SHOWN = 0.6, 0.9  # mean Dice
COLOURS = {"high": "#0072b2", "low": "#d55e00", "unknown": "#7f7f7f"}  # told apart by all eyes
MARKS = {"int8": "o", "fp16": "s", "fp32": "^"}


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all."""
    write_bytes(path, svg(figure))


def dice_by_patient(path: Path) -> None:
    """Draw the Dice of every patient by the int8 files, grades apart."""
    grade_of = {p.case: p.grade for p in patients()}
    sizes = [size for size in SIZES if pooled(size)]
    figure = Figure(figsize=(4.2 * len(sizes), 3.2))
    for column, size in enumerate(sizes):
        axes = figure.add_subplot(1, len(sizes), column + 1)
        for place, value in enumerate(VALUES.values()):
            for shift, grade in enumerate(GRADES):
                dice = sorted(value(s) for s in pooled(size) if grade_of[s.case] == grade)
                x = [place + 0.25 * (shift - 1) + 0.02 * (i % 5 - 2) for i in range(len(dice))]
                axes.scatter(x, dice, s=12, color=COLOURS[grade], alpha=0.7,
                             label=f"{grade} grade" if place == 0 else None)  # fmt: skip
            axes.hlines(mean(pooled(size), value), place - 0.4, place + 0.4, color="black", lw=1)
        axes.set_xticks(range(len(VALUES)), list(VALUES))
        axes.set_ylim(-0.03, 1.0)
        axes.set_title(f"{size} int8", fontsize=10)
        axes.grid(axis="y", alpha=0.3)
        if column == 0:
            axes.set_ylabel("volume Dice")
            axes.legend(fontsize=8, loc="lower left")
    save(figure, path)


def dice_by_bytes(path: Path) -> None:
    """Draw the mean Dice on fold 1 against the bytes of each file."""
    figure = Figure(figsize=(6, 3.4))
    axes = figure.add_subplot()
    for run in rivals():
        points = []
        for precision in run.precisions:
            scores = [s for s in read_scores(run) if (s.precision, s.missing) == (precision, "")]
            points.append((bytes_of(run, precision), mean(scores, VALUES["mean"])))
            axes.scatter(*points[-1], marker=MARKS[precision], s=28, color="#0072b2")
        axes.plot(*zip(*points, strict=True), lw=0.6, color="#0072b2")
        aside = (4, -12 if run.size in RIVALS else 6)  # two points lie close
        axes.annotate(run.name, points[0], xytext=aside, textcoords="offset points", fontsize=8)
    axes.axvline(LIMIT, color="#d55e00", lw=1, ls="--")
    axes.annotate("60,000 bytes", (LIMIT, SHOWN[0]), xytext=(4, 4),
                  textcoords="offset points", fontsize=8, color="#d55e00")  # fmt: skip
    for precision, mark in MARKS.items():
        axes.scatter([], [], marker=mark, s=28, color="#0072b2", label=precision)
    axes.set_xscale("log")
    axes.margins(x=0.22)  # room for the last name
    axes.set_ylim(*SHOWN)
    axes.set_xlabel("bytes of the packed file")
    axes.set_ylabel("mean Dice, fold 1")
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    save(figure, path)
