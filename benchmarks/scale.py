"""Measure what a case costs, prove what several boards and processes do, and write docs/scale.md.

    python benchmarks/scale.py --cost              # CPU, files and link of a case
    python benchmarks/scale.py --boards            # ten boards against one; boards that are killed
    python benchmarks/scale.py --archive           # parts and Dask workers, killed at random
    python benchmarks/scale.py                     # the page alone, from benchmarks/scale/*.json

Every measurement runs the commands as a user does, on simulated links and on this machine's cores.
Cases are made of the phantom, so that anybody can repeat it.
"""

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.pages import fill, processor, table
from benchmarks.scale_runs import (
    measure_archive,
    measure_cost,
    measure_killed_boards,
    measure_speed,
)
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json

FOLDER = ROOT / "benchmarks" / "scale"
PAGE = ROOT / "docs" / "scale.md"

SIZES = 10, 1_000, 100_000
CLUSTER = 16, 256
"""Cores for which the page calculates, if each is like one of this machine's."""

NOT_MEASURED = "- Not measured yet: `python benchmarks/scale.py --{}` on an idle machine."

UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the options name, then write the page."""
    parser = cli.parser("Measure scale and write docs/scale.md.", "python benchmarks/scale.py")
    parser.add_argument("--cost", action="store_true", help="measure what a case costs")
    parser.add_argument("--boards", action="store_true", help="several boards against one")
    parser.add_argument("--archive", action="store_true", help="parts and Dask against one process")
    parser.add_argument(
        "--cases", type=int, default=200, metavar="N",
        help="cases of --boards and --archive (default: %(default)s)",
    )  # fmt: skip
    cli.run(run, parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> None:
    """Write a JSON file for each measurement, and the page from all of them."""
    if arguments.cases < 20:
        raise GliosliceError("--cases: expected at least 20, so that processes can be killed")
    measurements: dict[str, Callable[[Path], dict[str, Any]]] = {
        "cost": measure_cost,
        "boards": lambda folder: {
            **measure_speed(folder / "speed"),
            "killed": measure_killed_boards(folder / "killed", arguments.cases),
        },
        "archive": lambda folder: measure_archive(folder, arguments.cases),
    }
    for name, measure in measurements.items():
        if getattr(arguments, name):
            with tempfile.TemporaryDirectory(prefix="glioslice-scale-") as folder:
                result = {"machine": processor(), **measure(Path(folder))}
            write_json(FOLDER / f"{name}.json", result)
            print(f"{name}: {result}")
    fill(PAGE, page_parts({name: read_result(name) for name in measurements}))
    print(f"page: {PAGE}")


def read_result(name: str) -> dict[str, Any] | None:
    """Return what was measured, None if nobody has yet."""
    path = FOLDER / f"{name}.json"
    return read_json(path) if path.exists() else None


def page_parts(results: Mapping[str, dict[str, Any] | None]) -> dict[str, str]:
    """Return the generated parts of the page by the names of their marks.

    Raises GliosliceError if the cost of a case was not measured.
    """
    cost, boards, archive = (results[name] for name in ("cost", "boards", "archive"))
    if cost is None:
        raise GliosliceError(f"{FOLDER / 'cost.json'}: missing; measure with --cost")
    return {
        "cost": cost_table(cost),
        "plan": plan_table(cost),
        "storage": storage_table(cost),
        "boards": NOT_MEASURED.format("boards") if boards is None else boards_text(boards),
        "archive": NOT_MEASURED.format("archive") if archive is None else archive_text(archive),
        "machine": f"Measured on {cost['machine']}.",
    }


def cost_table(cost: Mapping[str, Any]) -> str:
    """Return what a case costs."""
    rows = [
        ("segmenting on this machine", f"{cost['segment_cpu_s']:.1f} CPU seconds, one core"),
        ("streaming: the host", f"{cost['host_cpu_s']:.1f} CPU seconds"),
        ("streaming: the board's process, here", f"{cost['board_cpu_s']:.1f} CPU seconds"),
        ("files read", f"{cost['read_mb']:.1f} MB"),
        ("files written by `segment`", f"{cost['segment_written_mb']:.2f} MB"),
        ("files written by `stream`", f"{cost['stream_written_mb']:.2f} MB"),
        ("link, up", f"{cost['bytes_up']:,} bytes"),
        ("link, down", f"{cost['bytes_down']:,} bytes"),
        (f"link at {cost['baud']:,} baud, measured", f"{cost['link_s']:.1f} s"),
        ("slices", f"{cost['slices']}"),
        ("peak memory of `segment`", f"{cost['segment_peak_mb']:.0f} MB"),
    ]
    return table(("what", "a case"), rows)


def plan_table(cost: Mapping[str, Any]) -> str:
    """Return how long 10, 1,000 and 100,000 cases take, and what limits."""
    link, host, core = cost["link_s"], cost["host_cpu_s"], cost["segment_cpu_s"]
    cores, baud = int(cost["cores"]), f"{cost['baud']:,} baud"

    def on_boards(boards: int, size: int) -> float:
        return float(max(rounds(size, boards) * link, host * size / cores))

    limit = "link" if link / 10 >= host / cores else "the host's processor"
    rows = [
        (f"one board, {baud}", *(duration(on_boards(1, size)) for size in SIZES), "link"),
        (f"ten boards, {baud}, one host", *(duration(on_boards(10, n)) for n in SIZES), limit),
    ]
    for name, workers in (
        (f"a workstation like this one, {cores} cores", cores),
        *((f"a cluster of {n} such cores", n) for n in CLUSTER),
    ):
        times = (duration(rounds(size, workers) * core) for size in SIZES)
        rows.append((name, *times, "processor" if workers == cores else "processor, then disk"))
    return table(("way", *(f"{size:,} cases" for size in SIZES), "limit"), rows)


def rounds(size: int, workers: int) -> int:
    """Return how many cases the busiest of `workers` has: no case is divided."""
    return -(-size // workers)


def storage_table(cost: Mapping[str, Any]) -> str:
    """Return how much is read and written, and the disk's rate that keeps a cluster busy."""
    sizes = [(f"{size:,} cases", gigabytes(cost["read_mb"] * size)) for size in SIZES]
    written = [gigabytes(cost["segment_written_mb"] * size) for size in SIZES]
    rows = [(name, read, out) for (name, read), out in zip(sizes, written, strict=True)]
    for cores in CLUSTER:
        rate = cost["read_mb"] * cores / cost["segment_cpu_s"]
        rows.append((f"{cores} cores, per second", gigabytes(rate), "-"))
    return table(("", "read", "written by `segment`"), rows)


def boards_text(boards: Mapping[str, Any]) -> str:
    """Return what was measured with several boards."""
    killed, many = boards["killed"], boards["many"]
    return (
        f"- {many['boards']} boards on {boards['baud']:,} baud: {many['slices_per_second']:.1f} "
        f"slices per second, one board: {boards['one']['slices_per_second']:.2f}, a factor of "
        f"{boards['factor']:.1f} ({boards['one']['slices']} and {many['slices']} slices, default "
        f"codec; load average before the run: {boards['load_before']}).\n"
        f"- {killed['cases']} cases on {killed['boards']} boards of which one was killed "
        f"{killed['kills']} times: {killed['complete']} complete, {killed['lost']} lost, "
        f"{killed['double']} double, {killed['different']} masks different from those of "
        "`glioslice segment`."
    )


def archive_text(archive: Mapping[str, Any]) -> str:
    """Return what was measured with parts and with Dask."""
    parts, dask = archive["parts"], archive["dask"]
    lines = [
        f"- {archive['cases']} small cases in parts, {parts['kills']} processes killed at random: "
        f"{parts['complete']} complete, {parts['lost']} lost, {parts['different']} masks different "
        "from those of one process.",
        f"- The same through a Dask scheduler with {dask['workers']} workers of which one was "
        f"killed: {dask['complete']} complete, {dask['double']} reported twice, "
        f"{dask['different']} different.",
        f"- Throughput: one process {archive['one_per_s']:.2f} cases per second, two workers "
        f"{archive['two_per_s']:.2f}, a factor of {archive['factor']:.2f}.",
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a duration in its largest fitting unit."""
    name, unit = next(((n, u) for n, u in UNITS if seconds >= 1.5 * u), UNITS[-1])
    value = seconds / unit
    return f"{value:,.0f} {name}" if value >= 10 else f"{value:.1f} {name}"


def gigabytes(megabytes: float) -> str:
    """Return an amount of data in the largest fitting unit."""
    for name, factor in (("TB", 1e6), ("GB", 1e3)):
        if megabytes >= factor:
            return f"{megabytes / factor:.1f} {name}"
    return f"{megabytes:.0f} MB"


if __name__ == "__main__":
    main()
