"""Figures of the mask codec: bytes, times, and the part of docs/wire.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.pages import table
from glioslice.wire.transport import BAUD

PACES = ("a mask takes the board", "bytes, mean", "most", "s of line, mean", "most", "over 0.8 s")

UNTIMED = 0.0
BITS = 10
"""On the line for a byte."""


@dataclass(frozen=True)
class Coded:
    """A mask's content, and the milliseconds of both ways, or UNTIMED."""

    content: bytes
    encode: float
    decode: float

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.content)


def mean(values: Sequence[float]) -> float:
    """Return a mean to a tenth."""
    return round(float(np.mean(values)), 1)


def measured(coded: Sequence[Coded]) -> dict[str, Any]:
    """Return sizes and times."""
    sizes = np.array([one.size for one in coded])
    return {
        "bytes": {
            "mean": mean(sizes.tolist()),
            "median": float(np.median(sizes)),
            "p90": round(float(np.percentile(sizes, 90)), 1),
            "most": int(sizes.max()),
        },
        "encode_ms": times([one.encode for one in coded]),
        "decode_ms": times([one.decode for one in coded]),
    }


def times(values: Sequence[float]) -> dict[str, float]:
    """Return mean, median and 90th percentile of milliseconds."""
    return {
        "mean": round(float(np.mean(values)), 2),
        "median": round(float(np.median(values)), 2),
        "p90": round(float(np.percentile(values, 90)), 2),
    }


def page(result: Mapping[str, Any]) -> str:
    """Return the figures of docs/wire.md from the content of benchmarks/line/masks.json."""
    line = result["on_the_line"]
    rows = [row("this one", result["ours"])]
    rows += [row(name, other) for name, other in result["others"].items()]
    head = ("codec", "bytes, mean", "p90", "encoding ms, mean", "p90", "decoding ms, mean", "p90")
    folds = ", ".join(str(size) for size in result["by_fold"].values())
    return "\n\n".join([
        f"{result['patients']} expert masks, {result['slices']:,} slices that hold tumour. Ours "
        f"are coded with tables learnt from the other three folds; fold by fold they take {folds} "
        f"bytes. Times are of one thread's processor, {result['machine']}.",
        table(head, rows),
        f"With message, packet and frame that is {line['alone']} bytes for a mask in a frame of "
        "its own. What a playing board sends at 115200 baud for all masks of a volume, the empty "
        "ones too:",
        table(PACES, [pace(name, line["volume"][name]) for name in line["volume"]]),
    ])  # fmt: skip


def row(name: str, one: Mapping[str, Any]) -> tuple[object, ...]:
    """Return a codec's line of the table."""
    both = one["encode_ms"], one["decode_ms"]
    shown = [f"{t[which]:.2f}" if t["mean"] else "" for t in both for which in ("mean", "p90")]
    return name, one["bytes"]["mean"], f"{one['bytes']['p90']:.0f}", *shown


def pace(name: str, volume: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the line of the table for a board of one speed."""
    both = volume["mean"], volume["most"]
    said = [f"{size:,.0f}" for size in both] + [f"{size * BITS / BAUD:.2f}" for size in both]
    return name, *said, volume["over"]
