"""Measure what a case costs, prove what several boards and processes do, and write docs/scale.md.

    python benchmarks/scale.py --boards            # 200 cases on boards that are killed at random
    python benchmarks/scale.py --archive           # 1,000 in parts and with Dask, killed at random
    python benchmarks/scale.py --cost --speed      # times, on a machine that does nothing else
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
    measure_cost,
    measure_killed_archive,
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

CASES = {"boards": 200, "archive": 1000}
"""How many cases --boards and --archive have."""

NOT_MEASURED = "- Not measured yet: `python benchmarks/scale.py --{}`."

UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure what the options name, then write the page."""
    parser = cli.parser("Measure scale and write docs/scale.md.", "python benchmarks/scale.py")
    parser.add_argument("--cost", action="store_true", help="measure what a case costs")
    parser.add_argument(
        "--speed", action="store_true", help="ten boards and two processes against one"
    )
    parser.add_argument("--boards", action="store_true", help="boards that are killed")
    parser.add_argument("--archive", action="store_true", help="processes that are killed")
    parser.add_argument("--cases", type=int, metavar="N", help=f"instead of {CASES}")
    cli.run(run, parser.parse_args(argv))


def run(arguments: argparse.Namespace) -> None:
    """Write a JSON file for each measurement, and the page from all of them."""
    sizes = {name: arguments.cases or count for name, count in CASES.items()}
    if min(sizes.values()) < 40:
        raise GliosliceError("--cases: expected at least 40, so that processes can be killed")
    measurements: dict[str, Callable[[Path], dict[str, Any]]] = {
        "cost": measure_cost,
        "speed": measure_speed,
        "boards": lambda folder: measure_killed_boards(folder, sizes["boards"]),
        "archive": lambda folder: measure_killed_archive(folder, sizes["archive"]),
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
    cost = results["cost"]
    if cost is None:
        raise GliosliceError(f"{FOLDER / 'cost.json'}: missing; measure with --cost")
    texts: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "speed": speed_text,
        "boards": boards_text,
        "archive": archive_text,
    }
    parts = {
        "cost": cost_table(cost),
        "plan": plan_table(cost),
        "storage": storage_table(cost),
        "machine": f"Measured on {cost['machine']}.",
    }
    for name, text in texts.items():
        result = results[name]
        parts[name] = NOT_MEASURED.format(name) if result is None else text(result)
    return parts


def cost_table(cost: Mapping[str, Any]) -> str:
    """Return what a case costs."""
    rows = [
        ("segmenting on this machine", f"{cost['segment_cpu_s']:.1f} CPU seconds, one core"),
        ("streaming: the host and the simulated line", f"{cost['host_cpu_s']:.1f} CPU seconds"),
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


def speed_text(speed: Mapping[str, Any]) -> str:
    """Return how fast ten boards and two processes were, and how busy this machine was."""
    boards = speed["boards"]
    one, many = boards["one"], boards["many"]
    lines = [
        f"- {boards['boards']} boards at {boards['baud']:,} baud: "
        f"{many['slices_per_second']:.1f} slices per second, one board: "
        f"{one['slices_per_second']:.2f}, a factor of {boards['factor']:.1f} "
        f"({many['slices']:,} and {one['slices']:,} slices of whole phantoms; host, simulated "
        f"lines and boards kept {many['cpu']:.0%} and {one['cpu']:.0%} of the processor busy)."
    ]
    for kind, found in speed["archives"].items():
        lines.append(
            f"- {found['cases']} {kind} cases: one process {found['one_per_s']:.2f} per second; "
            f"two processes with `--part` {found['parts_per_s']:.2f}, a factor of "
            f"{found['parts_factor']:.2f}; `--dask` with {found['workers']} workers "
            f"{found['dask_per_s']:.2f}, a factor of {found['dask_factor']:.2f}."
        )
    lines.append(f"- The load average before these runs was {speed['load_before']}.")
    return "\n".join(lines)


def boards_text(killed: Mapping[str, Any]) -> str:
    """Return what became of cases on boards that were killed."""
    return (
        f"- {killed['cases']} small cases on {killed['boards']} boards; {killed['kills']} times "
        f"one of them was killed, chosen at random: {killed['complete']} complete, "
        f"{killed['lost']} lost, {killed['double']} double, {killed['different']} masks different "
        "from those of `glioslice segment`."
    )


def archive_text(archive: Mapping[str, Any]) -> str:
    """Return what became of cases in parts and through Dask while processes were killed."""
    parts, dask = archive["parts"], archive["dask"]
    return (
        f"- {archive['cases']:,} small cases in parts, {parts['kills']} processes killed at "
        f"random: {outcome(parts)}.\n"
        f"- The same through a Dask scheduler with {dask['workers']} workers of which one was "
        f"killed: {outcome(dask)}, {dask['double']} reported twice."
    )


def outcome(found: Mapping[str, int]) -> str:
    """Return how the files and the merged table compare with those of one process."""
    return (
        f"{found['complete']:,} complete, {found['lost']} lost, {found['different']} masks and "
        f"{found['rows_different']} rows of the table different from those of one process"
    )


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
