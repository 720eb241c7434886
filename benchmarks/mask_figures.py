"""Figures of the mask codec: bytes on the line, times, and the part of docs/wire.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.pages import table
from glioslice.wire import frames, packets
from glioslice.wire.messages import Mask
from glioslice.wire.packets import MAX_PAYLOAD, Data
from glioslice.wire.receiver import length_prefix

NUMBER, MICROSECONDS, TAG = 3, 2_500, 0x44CC
"""Of a message whose size is counted, which they do not change."""

UNTIMED = 0.0


@dataclass(frozen=True)
class Coded:
    """A mask's content in bytes, and the milliseconds of both ways, or UNTIMED."""

    size: int
    encode: float
    decode: float


def message(size: int) -> bytes:
    """Return a mask's message of a content of `size` bytes as it stands in the stream."""
    whole = Mask(1, NUMBER, MICROSECONDS, bytes(size)).to_bytes()
    return length_prefix(len(whole)) + whole


def framed(size: int) -> int:
    """Return the bytes on the line of a mask that leaves in a frame of its own."""
    return len(frames.encode(packets.to_bytes(Data(TAG, 1, 1, message(size)), active=False)))


def streamed(size: int) -> float:
    """Return the bytes on the line of a mask that shares a full frame with others."""
    full = packets.to_bytes(Data(TAG, 1, 1, bytes(MAX_PAYLOAD)), active=False)
    return len(message(size)) * len(frames.encode(full)) / MAX_PAYLOAD


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
        f"its own, {line['streamed']} where full frames carry several. All masks of a volume, the "
        f"empty ones too, take {line['volume_mean']:,.0f} bytes, {line['volume_most']:,} at most.",
    ])  # fmt: skip


def row(name: str, one: Mapping[str, Any]) -> tuple[object, ...]:
    """Return a codec's line of the table."""
    both = one["encode_ms"], one["decode_ms"]
    shown = [f"{t[which]:.2f}" if t["mean"] else "" for t in both for which in ("mean", "p90")]
    return name, one["bytes"]["mean"], f"{one['bytes']['p90']:.0f}", *shown
