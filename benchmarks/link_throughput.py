"""What the recording of a run over a simulated line says of it: rates, shares, waiting times.

Stream a volume over simulated lines of three rates, and say what limits each of them.

    python benchmarks/link_throughput.py             benchmarks/line/rates.csv, docs/wire.md, README.md
    python benchmarks/link_throughput.py --quick     the fastest line alone, printed and not kept
    python benchmarks/link_throughput.py --pages     both pages from what is kept

Three ways on each line: the host sends slices losslessly, or as it does by default, or the board
plays a case of its own. Both ends are fixed to the line's rate, so that no time goes to finding it;
each run is `stream.py` with the shipped board, and its recording is what is measured. The volume is
the first patient of ../shared/data/brats, or the phantom: what is reported of it are counts.
"""

import argparse
import csv
import io
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks.folds import ROOT
from benchmarks.pages import fill, table
from benchmarks.runtimes import processor
from glioslice import cli
from glioslice.cases import MODALITIES, find_cases, phantom_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.wire.capture import Kind, records
from glioslice.wire.messages import Empty, End, HostHello, Mask, Slice, Start, parse
from glioslice.wire.simulator.line import BITS_PER_BYTE
from glioslice.wire.simulator.port import WRITE_BUFFER
from glioslice.wire.sniffer import Seen, Tap, Totals

SLACK = 0.005
"""Seconds that a thread may be late."""


@dataclass(frozen=True)
class Figures:
    """What a run came to, from the first byte of its Start to the last one of its End.

    `line_used` is the share of the busier direction's capacity that all its bytes took, `payload`
    that of messages that crossed for the first time; `overhead` are the bytes of frames and link
    in both directions for each byte of message; `wait_ms` from the last byte of a slice to the
    first one of its mask.
    """

    way: str
    baud: int
    slices: int
    seconds: float
    slices_per_second: float
    busier: str
    line_used: float
    payload: float
    wait_ms_median: float | None
    wait_ms_p90: float | None
    overhead: float
    repeated_bytes: int
    bytes_up: int
    bytes_down: int
    machine: str


def figures(path: Path, way: str, baud: int) -> Figures:
    """Return what a recording says; both ends had the rate `baud` all the time."""
    seen, at = frames(path, baud)
    begin, end, slices = span(seen, at)
    totals = {True: Totals(), False: Totals()}
    for one, when in zip(seen, at, strict=True):
        if begin <= when <= end:
            totals[one.up].add(one)
    capacity = (end - begin) * baud / BITS_PER_BYTE
    busier = max(totals, key=lambda up: totals[up].bytes)
    payload = sum(one.payload for one in totals.values())
    repeated = sum(one.again for one in totals.values())
    crossed = sum(one.bytes for one in totals.values())
    waits = waiting(seen, at)
    return Figures(
        way=way,
        baud=baud,
        slices=slices,
        seconds=round(end - begin, 3),
        slices_per_second=round(slices / (end - begin), 2),
        busier="up" if busier else "down",
        line_used=round(totals[busier].bytes / capacity, 4),
        payload=round(totals[busier].payload / capacity, 4),
        wait_ms_median=round(float(np.median(waits)), 1) if waits else None,
        wait_ms_p90=round(float(np.percentile(waits, 90)), 1) if waits else None,
        overhead=round((crossed - payload - repeated) / payload, 4),
        repeated_bytes=repeated,
        bytes_up=totals[True].bytes,
        bytes_down=totals[False].bytes,
        machine=processor(),
    )


def frames(path: Path, baud: int) -> tuple[list[Seen], list[float]]:
    """Return all frames and when the last byte of each had crossed."""
    tap, seen = Tap(), list[Seen]()
    for record in records(path):
        if record.kind in (Kind.UP, Kind.DOWN):
            seen += tap.feed(record.kind is Kind.UP, record.data, record.time)
    left = departures([(one.time, one.size) for one in seen if one.up], baud / BITS_PER_BYTE)
    return seen, [next(left) if one.up else one.time for one in seen]


def departures(writes: Sequence[tuple[float, int]], rate: float) -> Iterator[float]:
    """Yield when the last byte of each write, of a time and a size, had left at `rate` bytes a s.

    A write waits while the port's buffer is full. One that found it so, and was followed as soon as
    that had an end, was taken when the next one began, with the buffer before it. So the line's own
    pace counts, which may fall behind `rate` by more than the buffer holds. Any other write leaves
    once the line is free.
    """
    free = 0.0
    following = [*(time for time, _ in writes[1:]), math.inf]
    for (time, size), then in zip(writes, following, strict=True):
        waits = free - time - WRITE_BUFFER / rate
        if waits > 0 and then < time + 2 * waits + SLACK:
            free = then + WRITE_BUFFER / rate
        free = max(free, time) + size / rate
        yield free


def span(seen: Sequence[Seen], at: Sequence[float]) -> tuple[float, float, int]:
    """Return when the run began and ended, and its slices.

    A served run begins with its Start, a played one with the host's hello that asks for it.
    """
    begin, end, slices = None, None, 0
    for one, when in zip(seen, at, strict=True):
        for data in one.messages:
            match parse(data):
                case HostHello():
                    begin = when
                case Start(slices=number):
                    slices, begin = number, when if one.up else begin
                case End():
                    end = when
    if begin is None or end is None:
        raise GliosliceError("a recording without a whole run; run it again")
    return begin, end, slices


def waiting(seen: Sequence[Seen], at: Sequence[float]) -> list[float]:
    """Return for each slice the milliseconds from its last byte to the first one of its mask."""
    sent: dict[int, float] = {}
    waits = []
    for one, when in zip(seen, at, strict=True):
        for data in one.messages:
            match parse(data):
                case Slice(index=index):
                    sent[index] = when
                case Mask(index=index) if index in sent:
                    waits.append((one.began - sent[index]) * 1000)
                case Empty() as empty if sent:
                    several = range(empty.index, empty.stop)
                    waits += [(one.began - sent[index]) * 1000 for index in several]
    return waits


RATES = ROOT / "benchmarks" / "line" / "rates.csv"
PATIENTS = ROOT.parent / "shared" / "data" / "brats"
STREAM = [sys.executable, str(ROOT / "firmware_host" / "stream.py")]

BAUDS = 115200, 921600, 3_000_000
WAYS: dict[str, tuple[str, ...]] = {
    "lossless": ("--images", "lossless"),
    "default": (),
    "play": ("--play",),
}

FULL = 0.95
"""The share of a clean line that first-time payload is to fill where the line is what limits."""

AIMS = {
    ("play", 115200): 90,
    ("default", 115200): 3,
    ("default", 921600): 25,
    ("default", 3_000_000): 60,
}
"""Slices a second."""


def main() -> None:
    """Do what the command line says."""
    parser = cli.parser(
        "Stream a volume over simulated lines and measure.",
        "python benchmarks/link_throughput.py --quick",
    )
    parser.add_argument(
        "--input", type=Path, metavar="CASE", help="default: a patient, or the phantom"
    )
    parser.add_argument("--quick", action="store_true", help="the fastest line, printed, not kept")
    parser.add_argument("--pages", action="store_true", help="write the pages from what is kept")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Measure, print, and keep the figures."""
    if not arguments.pages:
        case = arguments.input or patient()
        plan = [(way, baud) for baud in BAUDS for way in WAYS]
        plan = plan[-len(WAYS) :] if arguments.quick else plan
        found = [streamed(way, baud, case) for way, baud in track(plan, "streaming")]
        print(rates_table([asdict(one) for one in found]), *verdicts(found), sep="\n")
        if arguments.quick:
            return
        write_bytes(RATES, text_of(found).encode())
    write_pages()


def patient() -> Path | None:
    """Return the first patient that is at hand, None for the phantom."""
    return PATIENTS / find_cases(PATIENTS)[0].name if PATIENTS.is_dir() else None


def streamed(way: str, baud: int, case: Path | None) -> Figures:
    """Return the figures of one run; raises GliosliceError if it failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["--port", f"sim://?baud={baud}", "--baud", baud, *WAYS[way]]
        words += ["--output", folder / "mask.nii.gz", "--record", folder / "session.rec"]
        words += ["--input", case or written_phantom(folder)]
        done = subprocess.run(
            [*STREAM, *map(str, words)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            raise GliosliceError(f"{way} at {baud} baud: {'; '.join(errors) or done.stderr}")
        return figures(folder / "session.rec", way, baud)


def verdicts(found: Sequence[Figures]) -> list[str]:
    """Return a line for each aim: reached or not."""
    lines = []
    for one in found:
        aim = AIMS.get((one.way, one.baud))
        if aim is not None:
            what = "reached" if one.slices_per_second >= aim else "MISSED"
            lines.append(f"{one.way} at {one.baud}: {one.slices_per_second} of {aim}/s: {what}")
        if one.way == "lossless":
            what = "reached" if one.payload >= FULL else "MISSED"
            lines.append(f"{one.way} at {one.baud}: payload fills {one.payload:.3f}: {what}")
    return lines


def text_of(found: Sequence[Figures]) -> str:
    """Return figures as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(Figures)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(one) for one in found)
    return text.getvalue()


def written_phantom(folder: Path) -> Path:
    """Write the phantom as a case, which a board that plays can read, and return its folder."""
    case = phantom_case(0)
    (folder / case.name).mkdir()
    for modality, image in zip(MODALITIES, case.images, strict=True):
        voxels = case.space.from_lps(image)
        path = folder / case.name / f"{case.name}_{modality}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, case.space.affine), path)
    return folder / case.name


def rates_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a row a run."""
    head = (
        "line, baud", "images", "slices/s", "line used", "by messages", "wait ms, median", "p90",
        "overhead", "repeated bytes",
    )  # fmt: skip
    return table(
        head,
        [
            (
                f"{int(str(one['baud'])):,}",
                one["way"],
                f"{float(str(one['slices_per_second'])):.1f}",
                f"{float(str(one['line_used'])):.1%}",
                f"{float(str(one['payload'])):.1%}",
                one["wait_ms_median"] or "",
                one["wait_ms_p90"] or "",
                f"{float(str(one['overhead'])):.1%}",
                one["repeated_bytes"],
            )
            for one in rows
        ],
    )


def line_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a row a line: the slices a second of each way."""
    rates = {(one["way"], int(one["baud"])): float(one["slices_per_second"]) for one in rows}
    bauds = sorted({baud for _, baud in rates})
    return table(
        ("line, baud", *(f"{way}, slices/s" for way in WAYS)),
        [(f"{baud:,}", *(f"{rates[way, baud]:.1f}" for way in WAYS)) for baud in bauds],
    )


def write_pages(path: Path = RATES, root: Path = ROOT) -> None:
    """Put what was measured into docs/wire.md and README.md."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    slices, machine = rows[0]["slices"], rows[0]["machine"]
    on = f"A volume of {slices} slices, board and desk on one machine ({machine})."
    fill(root / "docs" / "wire.md", {"line": f"{on}\n\n{rates_table(rows)}"})
    fill(root / "README.md", {"line": line_table(rows)})
    print(f"written: {path.name}, the tables of docs/wire.md and README.md")


if __name__ == "__main__":
    main()
