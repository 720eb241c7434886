"""Figures of the mask codec: bytes, times, and the part of docs/wire.md.

What a volume's masks take on the line, as a playing board sends them, in virtual time.

Score the mask codec on patients that its tables did not learn from, or learn the tables.

    python benchmarks/mask_codecs.py --data ../shared/data/brats            # benchmarks/line/masks.json
    python benchmarks/mask_codecs.py --data ../shared/data/brats --learn    # the tables that are shipped
    python benchmarks/mask_codecs.py                                        # docs/wire.md from that file

Tables learnt from three folds code the expert masks of the fourth, and every mask must come back.
`--learn` takes all four, and writes docs/mask-vectors.json too. New tables are a new codec: masks
coded with others cannot be read. Times are of the processor, so that other work does not count.
"""

import argparse
import io
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.folds import FOLDS, ROOT, left_out
from benchmarks.pages import fill, table
from benchmarks.runtimes import processor
from device.run import Answer, Outbox
from glioslice import cli
from glioslice.cases import CaseFiles, find_cases
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256, write_bytes, write_json
from glioslice.labels import from_scheme
from glioslice.nifti import read_nifti
from glioslice.preprocessing import crop_of, cut
from glioslice.wire import context_coder, framing, packets
from glioslice.wire.codecs import RUNS, decode_mask, encode_mask
from glioslice.wire.context_model import PATH, Tables
from glioslice.wire.layout import varint
from glioslice.wire.link import Link
from glioslice.wire.messages import Empty, Mask
from glioslice.wire.packets import Data
from glioslice.wire.simulator.line import Quality
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.transport import BAUD
from tools import mask_vectors
from tools.context_tables import Samples, learn, samples_of

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


CHANGE = 3
MICROSECONDS, QUALITY = 20_000, 200
"""What is said of every mask: times up to 2 s take as many bytes, from 16 ms on."""

HOST, BOARD = 0x11223344, 0x55667788
PATIENCE = 60.0


def framed(content: bytes) -> int:
    """Return the bytes on the line of a mask that leaves in a frame of its own."""
    message = Mask(1, CHANGE, MICROSECONDS, content, QUALITY).to_bytes()
    stream = varint(len(message)) + message
    return len(framing.encode(packets.to_bytes(Data(0x44CC, 1, 1, stream), active=False)))


def answers_of(contents: Sequence[bytes]) -> list[Answer]:
    """Return a run's answers whose masks have these contents, none for an empty one."""
    return [
        Mask(index, CHANGE, MICROSECONDS, content, QUALITY)
        if content
        else Empty(index, (MICROSECONDS,), (QUALITY,))
        for index, content in enumerate(contents)
    ]


def played(contents: Sequence[bytes], seconds: float) -> int:
    """Return the bytes that a board writes for a run's masks at 115200 baud.

    It makes a mask every so many `seconds`, 0: at once.
    """
    board = Link(active=False, session=BOARD)
    line = VirtualLine(Link(active=True, session=HOST), board, Quality(BAUD))
    outbox = Outbox(board.sender)
    board.sender.send(b"\0")  # something to wait for: both ends are open when it has arrived
    acknowledged = partial(lambda: not board.sender.queued)
    line.run(acknowledged, PATIENCE)
    before = board.counts.bytes_sent
    for answer in answers_of(contents):
        outbox.send(answer)
        line.run(lambda: False, seconds)
    line.run(acknowledged, PATIENCE)
    return board.counts.bytes_sent - before


RESULT = ROOT / "benchmarks" / "line" / "masks.json"
PAGE = ROOT / "docs" / "wire.md"

CODED_PACES = {"no time": 0.0, "1/90 s": 1 / 90, "50 ms": 0.05}
"""Seconds that a board takes for a mask: the line is what limits, play mode's goal, a slow one."""

MOST = 9216
"""Bytes that a volume's masks are to take at most: 0.8 s at 115200 baud."""

Masks = NDArray[np.uint8]
Coder = tuple[Callable[[Masks], bytes], Callable[[bytes, tuple[int, int]], Masks] | None]


def main() -> None:
    """Do what the command line says."""
    parser = cli.parser(
        "Score the mask codec, or learn its tables.",
        "python benchmarks/mask_codecs.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="the patients' folder; without, only the page")
    parser.add_argument("--learn", action="store_true", help="write the tables that are shipped")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Learn, or score and write the page."""
    if arguments.data:
        folds = {fold: volumes_of(arguments.data, left_out(fold)) for fold in FOLDS}
        if arguments.learn:
            volumes = [volume for fold in FOLDS for volume in folds[fold]]
            write_bytes(PATH, learn([samples_of(volume) for volume in volumes]).to_bytes())
            write_json(mask_vectors.FILE, mask_vectors.vectors())
            print(f"{PATH.name}: {PATH.stat().st_size:,} bytes, sha256 {sha256(PATH)}")
            return
        write_json(RESULT, score(folds))
    elif arguments.learn:
        raise GliosliceError("--learn needs --data: the folder of the patients")
    fill(PAGE, {"mask codec": page(read_json(RESULT))})


def volumes_of(data: Path, names: Sequence[str]) -> list[Masks]:
    """Return the expert masks of patients, each (slices, 160, 192) as they cross the line."""
    found = {files.name: files for files in find_cases(data)}
    missing = [name for name in names if name not in found]
    if missing:
        raise GliosliceError(f"{data}: lacks {', '.join(missing)} of benchmarks/folds/folds.csv")
    return [masks_of(found[name]) for name in track(names, "reading")]


def masks_of(files: CaseFiles) -> Masks:
    """Return a patient's masks; the brain is where FLAIR is not 0, as in the other modalities."""
    if files.mask is None:
        raise GliosliceError(f"{files.name}: has no expert mask")
    flair, _ = read_nifti(files.images["flair"])
    mask, _ = read_nifti(files.mask)
    return cut(from_scheme(mask[0].astype(np.uint8), files.scheme), crop_of(flair[0] != 0))


def score(folds: Mapping[int, Sequence[Masks]]) -> dict[str, Any]:
    """Return what docs/wire.md shows: bytes and times, ours and others'."""
    taught = {
        fold: [samples_of(volume) for volume in track(volumes, f"fold {fold}, sampling")]
        for fold, volumes in folds.items()
    }
    ours: dict[int, list[list[Coded]]] = {}
    others: dict[str, list[Coded]] = {name: [] for name in RIVALS}
    for fold, volumes in folds.items():
        tables = learn(without(taught, fold))
        ours[fold] = [ours_of(volume, tables) for volume in track(volumes, f"fold {fold}, coding")]
        for mask in (mask for volume in volumes for mask in volume if mask.any()):
            for name, coder in RIVALS.items():
                others[name].append(coded(mask, *coder))
    sent = [volume for fold in FOLDS for volume in ours[fold]]
    slices = [one for volume in sent for one in volume if one.size]
    return {
        "machine": processor(),
        "tables": {"bytes": PATH.stat().st_size, "sha256": sha256(PATH)},
        "patients": len(sent),
        "slices": len(slices),
        "ours": measured(slices),
        "by_fold": {
            fold: mean([one.size for volume in ours[fold] for one in volume if one.size])
            for fold in FOLDS
        },
        "on_the_line": {
            "alone": mean([framed(one.content) for one in slices]),
            "volume": {name: on_the_line(sent, pace) for name, pace in CODED_PACES.items()},
        },
        "others": {name: measured(sizes) for name, sizes in others.items()},
    }


def on_the_line(volumes: Sequence[Sequence[Coded]], pace: float) -> dict[str, float]:
    """Return the bytes that a board sends for a volume's masks if it makes one every `pace` s."""
    sizes = [played([one.content for one in volume], pace) for volume in volumes]
    over = sum(size > MOST for size in sizes)
    return {"mean": mean(sizes), "most": max(sizes), "over": over}


def without(taught: Mapping[int, Sequence[Samples]], fold: int) -> list[Samples]:
    """Return the samples of all folds but one."""
    return [one for other, samples in taught.items() if other != fold for one in samples]


def ours_of(masks: Masks, tables: Tables) -> list[Coded]:
    """Return a volume's masks as our codec sends them, in order."""
    done: list[Coded] = []
    previous: Masks | None = None
    for mask in masks:
        encode = partial(context_coder.encode, previous=previous, tables=tables)
        decode = partial(context_coder.decode, previous=previous, tables=tables)
        done.append(coded(mask, encode, decode))
        previous = mask
    return done


def coded(
    mask: Masks,
    encode: Callable[[Masks], bytes],
    decode: Callable[[bytes, tuple[int, int]], Masks] | None,
) -> Coded:
    """Return a mask's size and times; raises GliosliceError if it does not come back."""
    began = time.thread_time()
    content = encode(mask)
    between = time.thread_time()
    back = decode(content, (mask.shape[0], mask.shape[1])) if decode else mask
    ended = time.thread_time()
    if not np.array_equal(back, mask):
        raise GliosliceError("a mask did not come back as it was: the codec is broken")
    decoding = (ended - between) * 1000 if decode else UNTIMED
    return Coded(content, (between - began) * 1000, decoding)


def png(mask: Masks) -> bytes:
    """Return the box around a tumour as PNG."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    file = io.BytesIO()
    Image.fromarray(box).save(file, "PNG", optimize=True)
    return file.getvalue()


RIVALS: dict[str, Coder] = {
    "zlib, level 9": (lambda mask: zlib.compress(mask.tobytes(), 9), None),
    "PNG of the box": (png, None),
    "codec 1, runs": (
        lambda mask: encode_mask(RUNS, mask),
        lambda content, shape: decode_mask(RUNS, content, shape),
    ),
}


if __name__ == "__main__":
    main()
