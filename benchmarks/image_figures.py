"""Figures of the ways up the line: the curve of bytes and Dice, and the part of docs/wire.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.image_rows import EXACT, Row
from benchmarks.image_ways import LOSSLESS, OURS
from benchmarks.pages import table
from convert.picture import svg
from glioslice.files import write_bytes
from glioslice.labels import REGIONS
from glioslice.wire.codecs import LOSSY_EFFORT

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
