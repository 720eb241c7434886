"""Measure the mask codec on patients that its tables did not learn from, or learn the tables.

    python benchmarks/mask_codecs.py --data DATA            # benchmarks/line/masks.json
    python benchmarks/mask_codecs.py --data DATA --learn    # the shipped tables
    python benchmarks/mask_codecs.py                        # docs/wire.md from masks.json

Tables learnt from three folds code the ground truth of the fourth, and every mask must be restored.
`--learn` uses all four folds and also writes docs/mask-vectors.json. New tables are a new codec:
they cannot decode masks that were coded with others. Times are processor times, so that other work
does not count. The bytes of a volume's masks on the link are those of a board in play mode, in
virtual time.
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
from PIL import Image

from benchmarks import ROOT
from benchmarks.folds import FOLDS, held_out_cases
from benchmarks.pages import fill, processor, table
from device.run import ResultSender, SliceResult
from glioslice import cli
from glioslice.cases import CaseFiles, find_cases
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256, write_bytes, write_json
from glioslice.labels import from_scheme
from glioslice.nifti import read_nifti
from glioslice.preprocessing import extract_slices, find_crop
from glioslice.wire import framing, packets
from glioslice.wire.codecs import RUNS, decode_mask, encode_mask
from glioslice.wire.context_model import PATH, Tables
from glioslice.wire.layout import varint
from glioslice.wire.link import Link
from glioslice.wire.mask_codecs import decode_change, encode_change
from glioslice.wire.messages import Empty, Mask
from glioslice.wire.packets import Data
from glioslice.wire.simulator.line import LineQuality
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.transport import BAUD
from tools.context_tables import Masks, Samples, collect_samples, learn
from tools.wire_vectors import MASK_FILE, mask_vectors

PACES = ("time for a mask", "bytes, mean", "max.", "s on the link, mean", "max.", "over 0.8 s")

UNTIMED = 0.0
BITS = 10
"""On the serial link for a byte."""

CHANGE = 3

MICROSECONDS, QUALITY = 20_000, 200
"""Sent with every mask. A time between 16 ms and 2 s takes equally many bytes."""

HOST, BOARD = 0x11223344, 0x55667788

PATIENCE = 60.0

RESULT = ROOT / "benchmarks" / "line" / "masks.json"

PAGE = ROOT / "docs" / "wire.md"

CODED_PACES = {"no time": 0.0, "1/90 s": 1 / 90, "50 ms": 0.05}
"""Seconds of a board for a mask: limited by the link, the goal of play mode, a slow board."""

MOST = 9216
"""Limit for the bytes of a volume's masks: 0.8 s at 115200 baud."""

ComparedCodec = tuple[Callable[[Masks], bytes], Callable[[bytes, tuple[int, int]], Masks] | None]


@dataclass(frozen=True)
class CodedMask:
    """A mask's content, and the milliseconds of encoding and decoding, or UNTIMED."""

    content: bytes
    encode: float
    decode: float

    @property
    def size(self) -> int:
        """Bytes of the content."""
        return len(self.content)


def rounded_mean(values: Sequence[float]) -> float:
    """Return a mean to a tenth."""
    return round(float(np.mean(values)), 1)


def size_and_times(coded: Sequence[CodedMask]) -> dict[str, Any]:
    """Return sizes and times."""
    sizes = np.array([one.size for one in coded])
    return {
        "bytes": {
            "mean": rounded_mean(sizes.tolist()),
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


def make_page(result: Mapping[str, Any]) -> str:
    """Return the figures of docs/wire.md from the content of benchmarks/line/masks.json."""
    line = result["on_the_line"]
    rows = [table_row("this one", result["ours"])]
    rows += [table_row(name, other) for name, other in result["others"].items()]
    head = ("codec", "bytes, mean", "p90", "encoding ms, mean", "p90", "decoding ms, mean", "p90")
    folds = ", ".join(str(size) for size in result["by_fold"].values())
    return "\n\n".join([
        f"{result['patients']} patients, {result['slices']:,} slices with tumour in the ground "
        "truth. Our codec uses tables learnt from the other three folds; fold by fold a mask takes "
        f"{folds} bytes. Times are processor times of one thread, {result['machine']}.",
        table(head, rows),
        f"With message, packet and frame that is {line['alone']} bytes for a mask in a frame of "
        "its own. A board in play mode sends for all masks of a volume, empty ones included, at "
        "115200 baud:",
        table(PACES, [pace_row(name, line["volume"][name]) for name in line["volume"]]),
    ])  # fmt: skip


def table_row(name: str, one: Mapping[str, Any]) -> tuple[object, ...]:
    """Return a codec's row of the table."""
    both = one["encode_ms"], one["decode_ms"]
    shown = [f"{t[which]:.2f}" if t["mean"] else "" for t in both for which in ("mean", "p90")]
    return name, one["bytes"]["mean"], f"{one['bytes']['p90']:.0f}", *shown


def pace_row(name: str, volume: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the row of the table for a board of one speed."""
    both = volume["mean"], volume["most"]
    cells = [f"{size:,.0f}" for size in both] + [f"{size * BITS / BAUD:.2f}" for size in both]
    return name, *cells, volume["over"]


def framed_size(content: bytes) -> int:
    """Return the bytes on the link of a mask in a frame of its own."""
    message = Mask(1, CHANGE, MICROSECONDS, content, QUALITY).to_bytes()
    stream = varint(len(message)) + message
    return len(framing.encode_frame(packets.to_bytes(Data(0x44CC, 1, 1, stream), active=False)))


def make_results(contents: Sequence[bytes]) -> list[SliceResult]:
    """Return a run's results with these mask contents; no content is an empty mask."""
    return [
        Mask(index, CHANGE, MICROSECONDS, content, QUALITY)
        if content
        else Empty(index, (MICROSECONDS,), (QUALITY,))
        for index, content in enumerate(contents)
    ]


def link_bytes(contents: Sequence[bytes], seconds: float) -> int:
    """Return the bytes that a board writes for a run's masks at 115200 baud.

    It computes a mask every `seconds`; 0 is all at once.
    """
    board = Link(active=False, session=BOARD)
    line = VirtualLine(Link(active=True, session=HOST), board, LineQuality(BAUD))
    outbox = ResultSender(board.sender)
    board.sender.send(b"\0")  # when this is acknowledged, both ends are open
    acknowledged = partial(lambda: not board.sender.unacknowledged)
    line.run(acknowledged, PATIENCE)
    before = board.counts.bytes_sent
    for answer in make_results(contents):
        outbox.send(answer)
        line.run(lambda: False, seconds)
    line.run(acknowledged, PATIENCE)
    return board.counts.bytes_sent - before


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, and measure or learn."""
    parser = cli.parser(
        "Measure the mask codec, or learn its tables.",
        "python benchmarks/mask_codecs.py --data ../shared/data/brats",
    )
    parser.add_argument("--data", type=Path, help="cases; without them only the page is written")
    parser.add_argument("--learn", action="store_true", help="write the shipped tables")
    cli.run(measure_codec, parser.parse_args(argv))


def measure_codec(arguments: argparse.Namespace) -> None:
    """Learn the tables, or measure the codec and write the page."""
    if arguments.data:
        folds = {fold: read_volumes(arguments.data, held_out_cases(fold)) for fold in FOLDS}
        if arguments.learn:
            volumes = [volume for fold in FOLDS for volume in folds[fold]]
            write_bytes(PATH, learn([collect_samples(volume) for volume in volumes]).to_bytes())
            write_json(MASK_FILE, mask_vectors())
            print(f"{PATH.name}: {PATH.stat().st_size:,} bytes, sha256 {sha256(PATH)}")
            return
        write_json(RESULT, score_mask_codec(folds))
    elif arguments.learn:
        raise GliosliceError("--learn needs --data, a folder of cases")
    fill(PAGE, {"mask codec": make_page(read_json(RESULT))})


def read_volumes(data: Path, names: Sequence[str]) -> list[Masks]:
    """Return the ground truth of patients, each (slices, 160, 192) as it would cross the link."""
    found = {files.name: files for files in find_cases(data)}
    missing = [name for name in names if name not in found]
    if missing:
        raise GliosliceError(f"{data}: lacks {', '.join(missing)} of benchmarks/folds/folds.csv")
    return [read_masks(found[name]) for name in track(names, "reading")]


def read_masks(files: CaseFiles) -> Masks:
    """Return a patient's masks; the brain is where FLAIR is not 0."""
    if files.mask is None:
        raise GliosliceError(f"{files.name}: has no ground truth")
    flair, _ = read_nifti(files.images["flair"])
    mask, _ = read_nifti(files.mask)
    return extract_slices(
        from_scheme(mask[0].astype(np.uint8), files.scheme), find_crop(flair[0] != 0)
    )


def score_mask_codec(folds: Mapping[int, Sequence[Masks]]) -> dict[str, Any]:
    """Return what docs/wire.md shows: bytes and times of our codec and of others."""
    samples = {
        fold: [collect_samples(volume) for volume in track(volumes, f"fold {fold}, sampling")]
        for fold, volumes in folds.items()
    }
    ours: dict[int, list[list[CodedMask]]] = {}
    others: dict[str, list[CodedMask]] = {name: [] for name in OTHER_CODECS}
    for fold, volumes in folds.items():
        tables = learn(samples_without(samples, fold))
        ours[fold] = [
            code_volume(volume, tables) for volume in track(volumes, f"fold {fold}, coding")
        ]
        for mask in (mask for volume in volumes for mask in volume if mask.any()):
            for name, coder in OTHER_CODECS.items():
                others[name].append(code_mask(mask, *coder))
    sent = [volume for fold in FOLDS for volume in ours[fold]]
    slices = [one for volume in sent for one in volume if one.size]
    return {
        "machine": processor(),
        "tables": {"bytes": PATH.stat().st_size, "sha256": sha256(PATH)},
        "patients": len(sent),
        "slices": len(slices),
        "ours": size_and_times(slices),
        "by_fold": {
            fold: rounded_mean([one.size for volume in ours[fold] for one in volume if one.size])
            for fold in FOLDS
        },
        "on_the_line": {
            "alone": rounded_mean([framed_size(one.content) for one in slices]),
            "volume": {name: on_the_link(sent, pace) for name, pace in CODED_PACES.items()},
        },
        "others": {name: size_and_times(sizes) for name, sizes in others.items()},
    }


def on_the_link(volumes: Sequence[Sequence[CodedMask]], pace: float) -> dict[str, float]:
    """Return the bytes of volumes' masks on the link if a board computes one every `pace` s."""
    sizes = [link_bytes([one.content for one in volume], pace) for volume in volumes]
    over = sum(size > MOST for size in sizes)
    return {"mean": rounded_mean(sizes), "most": max(sizes), "over": over}


def samples_without(samples: Mapping[int, Sequence[Samples]], fold: int) -> list[Samples]:
    """Return the samples of all folds but one."""
    return [one for other, samples in samples.items() if other != fold for one in samples]


def code_volume(masks: Masks, tables: Tables) -> list[CodedMask]:
    """Return a volume's masks as our codec codes them, in order."""
    done: list[CodedMask] = []
    previous: Masks | None = None
    for mask in masks:
        encode = partial(encode_change, previous=previous, tables=tables)
        decode = partial(decode_change, previous=previous, tables=tables)
        done.append(code_mask(mask, encode, decode))
        previous = mask
    return done


def code_mask(
    mask: Masks,
    encode: Callable[[Masks], bytes],
    decode: Callable[[bytes, tuple[int, int]], Masks] | None,
) -> CodedMask:
    """Code a mask and time it; raises GliosliceError if it is not restored."""
    began = time.thread_time()
    content = encode(mask)
    between = time.thread_time()
    back = decode(content, (mask.shape[0], mask.shape[1])) if decode else mask
    ended = time.thread_time()
    if not np.array_equal(back, mask):
        raise GliosliceError("a mask was not restored: the codec is broken")
    decoding = (ended - between) * 1000 if decode else UNTIMED
    return CodedMask(content, (between - began) * 1000, decoding)


def png(mask: Masks) -> bytes:
    """Return the box around a tumour as PNG."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    file = io.BytesIO()
    Image.fromarray(box).save(file, "PNG", optimize=True)
    return file.getvalue()


OTHER_CODECS: dict[str, ComparedCodec] = {
    "zlib, level 9": (lambda mask: zlib.compress(mask.tobytes(), 9), None),
    "PNG of the box": (png, None),
    "codec 1, runs": (
        lambda mask: encode_mask(RUNS, mask),
        lambda content, shape: decode_mask(RUNS, content, shape),
    ),
}


if __name__ == "__main__":
    main()
