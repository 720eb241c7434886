"""Stream a volume over simulated serial links of three baud rates, and measure throughput.

    python benchmarks/link_throughput.py            # rates.csv, docs/wire.md and README.md
    python benchmarks/link_throughput.py --quick    # the fastest link alone, printed only
    python benchmarks/link_throughput.py --pages    # both pages from benchmarks/line/rates.csv

Three runs on each link: the host sends slices losslessly, or with the default codec, or the board
plays a case of its own. Both ends are fixed to the link's rate, so that no time goes into
negotiation. Each run is `stream.py` with the shipped board, and its recording is measured. The
volume is the first patient of ../shared/data/brats, or the phantom; only counts are reported.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import nibabel as nib
import numpy as np

from benchmarks import ROOT
from benchmarks.pages import fill, processor, read_csv, table, write_csv
from glioslice import cli
from glioslice.cases import MODALITIES, find_cases, phantom_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.wire.capture import Kind, records
from glioslice.wire.messages import Empty, End, HostHello, Mask, Slice, Start, parse
from glioslice.wire.simulator.line import BITS_PER_BYTE
from glioslice.wire.simulator.port import WRITE_BUFFER
from glioslice.wire.sniffer import SniffedFrame, Sniffer, Totals

SLACK = 0.005
"""Seconds by which a thread may be late."""

RATES_FILE = ROOT / "benchmarks" / "line" / "rates.csv"

PATIENTS = ROOT.parent / "shared" / "data" / "brats"

STREAM = [sys.executable, str(ROOT / "firmware_host" / "stream.py")]

BAUDS = 115200, 921600, 3_000_000

WAYS: dict[str, tuple[str, ...]] = {
    "lossless": ("--images", "lossless"),
    "default": (),
    "play": ("--play",),
}

FULL = 0.95
"""The share of a clean link that first-time payload should fill where the link is the limit."""

GOALS = {
    ("play", 115200): 90,
    ("default", 115200): 3,
    ("default", 921600): 25,
    ("default", 3_000_000): 60,
}
"""Slices a second."""


@dataclass(frozen=True)
class LinkFigures:
    """Figures of a run, from the first byte of its Start to the last byte of its End.

    `line_used` is the share of the busier direction's capacity that all bytes took, `payload` the
    share of messages without retransmissions. `overhead` is the bytes of framing and link in both
    directions for each byte of message. `wait_ms_median` and `wait_ms_p90` are of
    the time from the last byte of a slice to the first byte of its mask.
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


def measure_recording(path: Path, way: str, baud: int) -> LinkFigures:
    """Return the figures of a recording; both ends had the rate `baud` all the time."""
    seen, at = read_frames(path, baud)
    begin, end, slices = run_span(seen, at)
    totals = {True: Totals(), False: Totals()}
    for one, when in zip(seen, at, strict=True):
        if begin <= when <= end:
            totals[one.up].add(one)
    capacity = (end - begin) * baud / BITS_PER_BYTE
    busier = max(totals, key=lambda up: totals[up].bytes)
    payload = sum(one.payload for one in totals.values())
    repeated = sum(one.repeated for one in totals.values())
    crossed = sum(one.bytes for one in totals.values())
    waits = waiting_times(seen, at)
    return LinkFigures(
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


def read_frames(path: Path, baud: int) -> tuple[list[SniffedFrame], list[float]]:
    """Return all frames and the time at which the last byte of each had crossed."""
    tap, seen = Sniffer(), list[SniffedFrame]()
    for record in records(path):
        if record.kind in (Kind.UP, Kind.DOWN):
            seen += tap.feed(record.kind is Kind.UP, record.data, record.time)
    left = departures([(one.time, one.size) for one in seen if one.up], baud / BITS_PER_BYTE)
    return seen, [next(left) if one.up else one.time for one in seen]


def departures(writes: Sequence[tuple[float, int]], rate: float) -> Iterator[float]:
    """Yield when the last byte of each write (time, size) had left, at `rate` bytes per second.

    A write blocks while the port's buffer is full. If the next write follows as soon as this one
    can have returned, then it did return at that moment, with a full buffer before it: the real
    pace of the link counts, which may fall behind `rate` by more than the buffer holds. Any other
    write leaves as soon as the link is free.
    """
    free = 0.0
    following = [*(time for time, _ in writes[1:]), math.inf]
    for (time, size), then in zip(writes, following, strict=True):
        waits = free - time - WRITE_BUFFER / rate
        if waits > 0 and then < time + 2 * waits + SLACK:
            free = then + WRITE_BUFFER / rate
        free = max(free, time) + size / rate
        yield free


def run_span(seen: Sequence[SniffedFrame], at: Sequence[float]) -> tuple[float, float, int]:
    """Return when the run began and ended, and its slices.

    A served run begins with its Start, a played one with the host's hello that requests it.
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
        raise GliosliceError("the recording holds no complete run; run it again")
    return begin, end, slices


def waiting_times(seen: Sequence[SniffedFrame], at: Sequence[float]) -> list[float]:
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


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and measure."""
    parser = cli.parser(
        "Stream a volume over simulated serial links and measure.",
        "python benchmarks/link_throughput.py --quick",
    )
    parser.add_argument(
        "--input", type=Path, metavar="CASE", help="a case (default: a patient, or the phantom)"
    )
    parser.add_argument("--quick", action="store_true", help="the fastest link alone, printed only")
    parser.add_argument("--pages", action="store_true", help="write the pages from rates.csv")
    cli.run(measure_links, parser.parse_args(argv))


def measure_links(arguments: argparse.Namespace) -> None:
    """Measure, print, and write file and pages unless --quick is given."""
    if not arguments.pages:
        case = arguments.input or first_patient()
        plan = [(way, baud) for baud in BAUDS for way in WAYS]
        plan = plan[-len(WAYS) :] if arguments.quick else plan
        found = [measure_run(way, baud, case) for way, baud in track(plan, "streaming")]
        print(rates_table([asdict(one) for one in found]), *check_goals(found), sep="\n")
        if arguments.quick:
            return
        write_figures(RATES_FILE, found)
    write_pages()


def first_patient() -> Path | None:
    """Return the folder of the first patient, None if there is none."""
    return PATIENTS / find_cases(PATIENTS)[0].name if PATIENTS.is_dir() else None


def measure_run(way: str, baud: int, case: Path | None) -> LinkFigures:
    """Return the figures of one run; raises GliosliceError if it failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        options = ["--port", f"sim://?baud={baud}", "--baud", baud, *WAYS[way]]
        options += ["--output", folder / "mask.nii.gz", "--record", folder / "session.rec"]
        options += ["--input", case or write_played_case(folder)]
        done = subprocess.run(
            [*STREAM, *map(str, options)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            raise GliosliceError(f"{way} at {baud} baud: {'; '.join(errors) or done.stderr}")
        return measure_recording(folder / "session.rec", way, baud)


def check_goals(found: Sequence[LinkFigures]) -> list[str]:
    """Return a line for each goal: reached or missed."""
    lines = []
    for one in found:
        goal = GOALS.get((one.way, one.baud))
        if goal is not None:
            what = "reached" if one.slices_per_second >= goal else "MISSED"
            lines.append(f"{one.way} at {one.baud}: {one.slices_per_second} of {goal}/s: {what}")
        if one.way == "lossless":
            what = "reached" if one.payload >= FULL else "MISSED"
            lines.append(f"{one.way} at {one.baud}: payload fills {one.payload:.3f}: {what}")
    return lines


def write_figures(path: Path, found: Sequence[LinkFigures]) -> None:
    """Write figures as a table."""
    write_csv(path, [one.name for one in fields(LinkFigures)], map(astuple, found))


def write_played_case(folder: Path) -> Path:
    """Write the phantom as a case that a board can play, and return its folder."""
    case = phantom_case(0)
    (folder / case.name).mkdir()
    for modality, image in zip(MODALITIES, case.images, strict=True):
        voxels = case.space.from_lps(image)
        path = folder / case.name / f"{case.name}_{modality}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, case.space.affine), path)
    return folder / case.name


def rates_table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a table with a row for each run."""
    head = (
        "link, baud", "images", "slices/s", "link used", "by messages", "wait ms, median", "p90",
        "overhead", "retransmitted bytes",
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


def rate_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table with a row for each link: slices per second by image codec or play mode."""
    rates = {(one["way"], int(one["baud"])): float(one["slices_per_second"]) for one in rows}
    bauds = sorted({baud for _, baud in rates})
    return table(
        ("link, baud", *(f"{way}, slices/s" for way in WAYS)),
        [(f"{baud:,}", *(f"{rates[way, baud]:.1f}" for way in WAYS)) for baud in bauds],
    )


def write_pages(path: Path = RATES_FILE, root: Path = ROOT) -> None:
    """Write the measured rates into docs/wire.md and README.md."""
    rows = read_csv(path)
    slices, machine = rows[0]["slices"], rows[0]["machine"]
    on = f"A volume of {slices} slices, board and host on one machine ({machine})."
    fill(root / "docs" / "wire.md", {"line": f"{on}\n\n{rates_table(rows)}"})
    fill(root / "README.md", {"line": rate_table(rows)})
    print(f"written: {path.name}, the tables of docs/wire.md and README.md")


if __name__ == "__main__":
    main()
