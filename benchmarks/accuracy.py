"""Score the networks of the folds, and write docs/accuracy.md and docs/accuracy-appendix.md.

    python benchmarks/accuracy.py --data ../shared/data/brats      # score, then write the pages
    python benchmarks/accuracy.py                                  # write them from the scores

Cross-validation: each patient is segmented by the packed files of networks that were not trained on
it, through the same code that runs on a board (`device.segment`). The scores are committed; tables
and pictures are made of them.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, median

import numpy as np
from matplotlib.figure import Figure

from benchmarks import ROOT
from benchmarks.folds import (
    FOLDS,
    FOLDS_FOLDER,
    PLAN,
    RECIPE,
    SHOWN_SIZES,
    SLICE_TIME,
    FoldRun,
    find_run,
    patients,
)
from benchmarks.pages import fill, read_csv, table
from benchmarks.scores import (
    BOTH,
    RAW,
    RULES,
    WAYS,
    Score,
    check_held_out,
    fold_cases,
    healthy_file,
    read_healthy,
    read_scores,
    score_case,
    score_healthy,
    write_scores,
)
from convert.artifacts import SIZE_LIMIT
from convert.export import PRECISIONS
from convert.report import svg
from glioslice import cli
from glioslice.files import read_json, write_bytes
from glioslice.labels import REGIONS
from glioslice.model_card import find_model, read_card

PAGE = ROOT / "docs" / "accuracy.md"
APPENDIX = "accuracy-appendix.md"
"""Beside PAGE: the ablation study and the scores of each patient."""

RESAMPLES, SEED = 10_000, 0

ABLATION = FOLDS_FOLDER / "ablation.csv"

SHOWN_GRADES = ("high", "low", "unknown")

SEEDS = (RECIPE, "seed-1")
"""The variants that differ only in their seed, 0 and 1."""

Value = Callable[[Score], float]

VALUES: dict[str, Value] = {
    "WT": lambda s: s.dice[0],
    "TC": lambda s: s.dice[1],
    "ET": lambda s: s.dice[2],
    "mean": lambda s: s.mean,
}

SHOWN = 0.6, 0.9  # mean Dice

COLOURS = {
    "high": "#0072b2",
    "low": "#d55e00",
    "unknown": "#7f7f7f",
}
"""Of grades, distinct for colour-blind eyes."""

MARKS = {"int8": "o", "fp16": "s", "fp32": "^"}


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, score and write the page."""
    parser = cli.parser(
        "Score the networks of the four folds and write docs/accuracy.md.",
        "python benchmarks/accuracy.py --data ../shared/data/brats",
    )
    parser.add_argument("run", nargs="*", metavar="RUN", help="runs to score; default: all")
    parser.add_argument("--data", type=Path, help="a folder of cases; without it nothing is scored")
    parser.add_argument(
        "--shipped", action="store_true", help="score the shipped files in healthy phantoms"
    )
    cli.run(write_accuracy, parser.parse_args(argv))


def write_accuracy(arguments: argparse.Namespace) -> None:
    """Score the runs if there are cases, and write the page."""
    if arguments.shipped:
        score_healthy({healthy_file(size): find_model(size) for size in SHOWN_SIZES})
    if arguments.data:
        runs = [find_run(name) for name in arguments.run] or list(PLAN)
        score_runs([run for run in runs if run.has_files], arguments.data)
    write_page()


def score_runs(runs: list[FoldRun], data: Path) -> None:
    """Write `scores.csv` and `healthy.csv` of every run.

    Raises GliosliceError if a patient of the fold is missing in `data`, or was in the training set.
    """
    scores: dict[FoldRun, list[Score]] = {run: [] for run in runs}
    for fold in sorted({run.fold for run in runs}):
        for case in fold_cases(fold, data, "scoring"):
            for run in (r for r in runs if r.fold == fold):
                check_held_out(run, case)
                scores[run] += score_case(run, case)
    files = {run: next(run.folder.glob("*-int8.tflite")) for run in runs if run.is_main}
    score_healthy({healthy_file(run): file for run, file in files.items()})
    for run in runs:
        write_scores(run, scores[run])
        scored = int8_scores(run)
        print(f"{run.name}: mean Dice {mean(scored, lambda s: s.mean):.4f}")


def write_page() -> None:
    """Write tables and pictures from the committed scores."""
    spread = seed_spread()
    timed = read_json(SLICE_TIME)
    fill(
        PAGE,
        {
            "dice": dice_table(),
            "seeds": seed_table(),
            "grades": grade_table(),
            "distances": distance_table(),
            "outside": outside_table(),
            "healthy": healthy_table(),
            "precisions": precision_table(),
            "rules": gain_table(),
            "sizes": f"{size_table()}\n\nMilliseconds: {timed['machine']}, "
            f"{timed['runtime']}, median of interleaved runs.",
        },
    )
    fill(
        PAGE.with_name(APPENDIX),
        {
            "spread": "unknown: a seed is missing" if spread is None else f"{spread:.4f}",
            "ablation": ablation_table(),
            "enhancement": enhancement_text(),
            "patients": patient_table(),
        },
    )
    dice_by_patient(PAGE.parent / "dice-by-patient.svg")
    dice_by_bytes(PAGE.parent / "dice-by-bytes.svg")
    print(f"written: {PAGE.name}, {APPENDIX} and the pictures in {PAGE.parent.name}/")


def pooled_scores(size: str, precision: str = "int8", masks: str = RAW) -> list[Score]:
    """Return one score for each patient, by the network that was not trained on the patient."""
    return [
        score
        for fold in FOLDS
        for score in read_scores(FoldRun(size, fold))
        if (score.precision, score.masks) == (precision, masks)
    ]


def mean(scores: Sequence[Score], value: Value) -> float:
    """Return the mean of a value over patients."""
    return fmean(value(score) for score in scores)


def interval(scores: Sequence[Score], value: Value) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of the mean: percentiles over resampled patients."""
    return bootstrap_interval([value(score) for score in scores])


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of the mean of values, one for each patient."""
    rng = np.random.default_rng(SEED)
    means = rng.choice(np.array(values), (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def dice_table() -> str:
    """Return mean Dice with its interval, and the median, for every size, precision and way."""
    rows = []
    for size, precision, masks in product(SHOWN_SIZES, PRECISIONS, WAYS):
        if not (scores := pooled_scores(size, precision, masks)):
            continue
        cells = [f"{size} {precision}", masks, len(scores)]
        for value in VALUES.values():
            low, high = interval(scores, value)
            middle = median(value(s) for s in scores)
            cells.append(f"{mean(scores, value):.3f} ({low:.2f}-{high:.2f}), {middle:.3f}")
        rows.append(cells)
    return table(("file", "masks", "patients", *VALUES), rows)


def gain_table() -> str:
    """Return what rules and mirroring gain against raw masks, paired by patient."""
    rows = []
    for size, masks in product(SHOWN_SIZES, WAYS[1:]):
        raw = {s.case: s for s in pooled_scores(size)}
        if not (scores := pooled_scores(size, masks=masks)):
            continue
        gains = [s.mean - raw[s.case].mean for s in scores]
        low, high = bootstrap_interval(gains)
        each = [
            f"{fmean(value(s) - value(raw[s.case]) for s in scores):+.4f}"
            for value in list(VALUES.values())[: len(REGIONS)]
        ]
        whole = f"{fmean(gains):+.4f} ({low:+.4f} to {high:+.4f})"
        losers = f"{sum(gain < 0 for gain in gains)} of {len(gains)}"
        worst, best = f"{min(gains):+.3f}", f"{max(gains):+.3f}"
        rows.append([size, masks, *each, whole, losers, worst, best])
    head = ("int8", "masks", *REGIONS, "mean (95 % interval)", "patients that lose")
    return table((*head, "worst", "best"), rows)


def grade_table() -> str:
    """Return the mean Dice of the int8 files by grade."""
    grade_of = {p.case: p.grade for p in patients()}
    rows = []
    for size, masks, grade in product(SHOWN_SIZES, WAYS, SHOWN_GRADES):
        if scores := [s for s in pooled_scores(size, masks=masks) if grade_of[s.case] == grade]:
            dice = [f"{mean(scores, value):.3f}" for value in VALUES.values()]
            rows.append([size, masks, grade, len(scores), *dice])
    return table(("int8", "masks", "grade", "patients", *VALUES), rows)


def enhancement_text() -> str:
    """Return what low grade would gain if ET were never found in patients who have none."""
    grade_of = {p.case: p.grade for p in patients()}
    low = [s for s in pooled_scores("compact", masks=BOTH) if grade_of[s.case] == "low"]
    if not low:
        return "Not measured yet."
    found = [s.dice if s.expert[2] else (*s.dice[:2], 1.0) for s in low]  # both empty: 1
    before, after = mean(low, VALUES["mean"]), fmean(fmean(dice) for dice in found)
    return (
        "The most that a first pass over the volume could tell: if compact found no enhancing "
        f"tumour in patients who have none, low grade would rise from {before:.3f} to {after:.3f}."
    )


def seed_table() -> str:
    """Return the mean Dice of compact for each seed whose folds are all scored."""
    rows = []
    for variant in SEEDS:
        runs = [int8_scores(FoldRun("compact", fold, variant)) for fold in FOLDS]
        if all(runs):
            scores = [score for run in runs for score in run]
            dice = [f"{mean(scores, value):.3f}" for value in VALUES.values()]
            rows.append([variant, len(scores), *dice])
    return table(("compact int8", "patients", *VALUES), rows)


def distance_table() -> str:
    """Return HD95 and volume errors of the int8 files, with rules and without."""
    rows = []
    for size, masks in product(SHOWN_SIZES, (RAW, RULES)):
        if not (scores := pooled_scores(size, masks=masks)):
            continue
        for i, region in enumerate(REGIONS):
            distances = [s.hd95[i] for s in scores]
            errors = [s.volume[i] - s.expert[i] for s in scores]
            rows.append([
                size, masks, region,
                f"{median(distances):.1f}", f"{fmean(distances):.1f}",
                f"{median(abs(e) for e in errors):.1f}",
                f"{fmean(errors):+.1f}",
            ])  # fmt: skip
    head = ("int8", "masks", "region", "HD95 median, mm", "HD95 mean, mm")
    return table((*head, "volume error: median of size, mL", "mean, mL"), rows)


def outside_table() -> str:
    """Return the volume found in slices without tumour in the ground truth."""
    return _volume_table(
        {
            (size, masks): [s.outside for s in pooled_scores(size, masks=masks)]
            for size, masks in product(SHOWN_SIZES, WAYS)
        }
    )


def healthy_table() -> str:
    """Return the volume found in healthy phantoms by the networks of all folds, and as shipped."""
    found: dict[tuple[str, str], list[float]] = {}
    for size, masks in product(SHOWN_SIZES, WAYS):
        runs = [FoldRun(size, fold) for fold in FOLDS]
        found[size, masks] = [ml for run in runs for ml in read_healthy(run, masks)]
    for size in SHOWN_SIZES:
        found[f"{size}, as shipped", BOTH] = read_healthy(size, BOTH)
    return _volume_table(found)


def _volume_table(found: Mapping[tuple[str, str], Sequence[float]]) -> str:
    rows = [
        [size, masks, len(volumes), *(f"{f(volumes):.2f}" for f in (median, fmean, max))]
        for (size, masks), volumes in found.items()
        if volumes
    ]
    return table(("int8", "masks", "volumes", "median, mL", "mean, mL", "worst, mL"), rows)


def precision_table() -> str:
    """Return what each precision loses against fp32, paired by patient."""
    rows = []
    for size, precision in product(SHOWN_SIZES, ("int8", "fp16")):
        whole = {s.case: s.mean for s in pooled_scores(size, "fp32")}
        changes = [s.mean - whole[s.case] for s in pooled_scores(size, precision)]
        if changes:
            rows.append([f"{size} {precision}", f"{fmean(changes):+.4f}",
                         f"{min(changes):+.4f}", f"{max(changes):+.4f}"])  # fmt: skip
    return table(("against fp32", "mean Dice", "worst patient", "best patient"), rows)


def patient_table(size: str = "compact") -> str:
    """Return the Dice and HD95 of every patient by the int8 file."""
    by_case = {p.case: p for p in patients()}
    rows = [
        [s.case, by_case[s.case].grade, by_case[s.case].fold, *(f"{d:.3f}" for d in s.dice),
         f"{s.mean:.3f}", *(f"{d:.1f}" for d in s.hd95)]
        for s in sorted(pooled_scores(size), key=lambda s: s.mean)
    ]  # fmt: skip
    distances = (f"HD95 {region}" for region in REGIONS)
    return table((f"{size} int8", "grade", "fold", *VALUES, *distances), rows)


def size_table() -> str:
    """Return size, work, time and Dice of each size."""
    times = read_json(SLICE_TIME)["milliseconds"]
    rows = []
    for size in SHOWN_SIZES:
        run = FoldRun(size, FOLDS[0])
        content = read_card(run.folder).content
        scores = pooled_scores(size, masks=BOTH)
        rows.append([
            size, f"{content['network']['parameters']:,}", f"{file_size(run, 'int8'):,}",
            f"{content['network']['macs'] / 1e6:,.0f}", f"{times[run.name]['median']:.2f}",
            *(f"{mean(scores, value):.3f}" for value in VALUES.values()),
        ])  # fmt: skip
    return table(("int8", "parameters", "bytes", "million MACs", "ms per slice", *VALUES), rows)


def int8_scores(run: FoldRun) -> list[Score]:
    """Return the scores of the raw masks of a run's int8 file."""
    return [s for s in read_scores(run) if (s.precision, s.masks) == ("int8", RAW)]


def file_size(run: FoldRun, precision: str) -> int:
    """Return the bytes of a run's packed file, as its card has them."""
    entries = read_card(run.folder).content["files"].values()
    [size] = [int(entry["bytes"]) for entry in entries if entry["precision"] == precision]
    return size


def seed_spread() -> float | None:
    """Return the difference of the mean Dice of two seeds over all folds, raw masks."""
    seeds = [
        [s for fold in FOLDS for s in int8_scores(FoldRun("compact", fold, seed))] for seed in SEEDS
    ]
    if not all(seeds):
        return None
    one, other = (mean(scores, VALUES["mean"]) for scores in seeds)
    return abs(one - other)


def ablation_table() -> str:
    """Return the committed figures of the ablation study, with the commit of each experiment."""
    head = (
        *("experiment", "folds", "mean Dice", "baseline", "gain", "95 % interval"),
        *("decision", "code in commit"),
    )
    return table(head, [list(row.values()) for row in read_csv(ABLATION)])


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, atomically; the same figure gives the same bytes."""
    write_bytes(path, svg(figure))


def dice_by_patient(path: Path) -> None:
    """Draw the Dice of every patient by the int8 files, grouped by grade."""
    grade_of = {p.case: p.grade for p in patients()}
    sizes = [size for size in SHOWN_SIZES if pooled_scores(size)]
    figure = Figure(figsize=(4.2 * len(sizes), 3.2))
    for column, size in enumerate(sizes):
        axes = figure.add_subplot(1, len(sizes), column + 1)
        for place, value in enumerate(VALUES.values()):
            for shift, grade in enumerate(SHOWN_GRADES):
                dice = sorted(value(s) for s in pooled_scores(size) if grade_of[s.case] == grade)
                x = [place + 0.25 * (shift - 1) + 0.02 * (i % 5 - 2) for i in range(len(dice))]
                axes.scatter(x, dice, s=12, color=COLOURS[grade], alpha=0.7,
                             label=f"{grade} grade" if place == 0 else None)  # fmt: skip
            axes.hlines(
                mean(pooled_scores(size), value), place - 0.4, place + 0.4, color="black", lw=1
            )
        axes.set_xticks(range(len(VALUES)), list(VALUES))
        axes.set_ylim(-0.03, 1.0)
        axes.set_title(f"{size} int8", fontsize=10)
        axes.grid(axis="y", alpha=0.3)
        if column == 0:
            axes.set_ylabel("volume Dice")
            axes.legend(fontsize=8, loc="lower left")
    save(figure, path)


def dice_by_bytes(path: Path) -> None:
    """Draw the mean Dice of raw masks against the bytes of each file."""
    figure = Figure(figsize=(6, 3.4))
    axes = figure.add_subplot()
    for size in SHOWN_SIZES:
        points = []
        for precision in PRECISIONS:
            dice = mean(pooled_scores(size, precision), VALUES["mean"])
            points.append((file_size(FoldRun(size, FOLDS[0]), precision), dice))
            axes.scatter(*points[-1], marker=MARKS[precision], s=28, color="#0072b2")
        axes.plot(*zip(*points, strict=True), lw=0.6, color="#0072b2")
        axes.annotate(size, points[0], xytext=(4, 6), textcoords="offset points", fontsize=8)
    axes.axvline(SIZE_LIMIT, color="#d55e00", lw=1, ls="--")
    axes.annotate("60,000 bytes", (SIZE_LIMIT, SHOWN[0]), xytext=(4, 4),
                  textcoords="offset points", fontsize=8, color="#d55e00")  # fmt: skip
    for precision, mark in MARKS.items():
        axes.scatter([], [], marker=mark, s=28, color="#0072b2", label=precision)
    axes.set_xscale("log")
    axes.margins(x=0.22)  # room for the last name
    axes.set_ylim(*SHOWN)
    axes.set_xlabel("bytes of the packed file")
    axes.set_ylabel("mean Dice of raw masks")
    axes.legend(fontsize=8, loc="lower right")
    axes.grid(alpha=0.3)
    save(figure, path)


if __name__ == "__main__":
    main()
