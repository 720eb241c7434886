"""The shipped network on every engine that is installed, beside MobileNetV2, in one run.

    python benchmarks/engines.py            writes benchmarks/engines/times.json and docs/engines.md
    python benchmarks/engines.py --quick    a few rounds, printed and not kept

An engine that is not installed is skipped by name. None is timed before its output is that of
LiteRT.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine_networks import Network, mobilenet, ours
from benchmarks.folds import ROOT
from benchmarks.pages import fill, table
from benchmarks.runtimes import Load, installed, processor, version
from glioslice import cli
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json

TIMES = ROOT / "benchmarks" / "engines" / "times.json"
PAGE = ROOT / "docs" / "engines.md"
THREADS = 1, 2
ROUNDS, QUICK = 200, 5

BOARDS_GET, AIM = "ai-edge-litert", 0.5
"""The engine that counts, and the share of the reference network's time that a slice may take."""

PAUSE = 0.05
"""Seconds: worker threads spin for a while after their work, and would take the next one's time."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Entry:
    """A network in one precision on one engine, ready to run; `agreement` is with LiteRT."""

    engine: str
    network: Network
    precision: str
    threads: int
    agreement: float
    invoke: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """What was measured: median and 90th percentile of milliseconds, and what follows.

    `gmacs` are 10^9 multiply-accumulates a second at the median; `ratio` is the median over that of
    the reference network on the same engine and threads, None for that network itself.
    """

    engine: str
    network: str
    precision: str
    threads: int
    median: float
    p90: float
    gmacs: float
    ratio: float | None
    agreement: float


def main() -> None:
    """Read the command line and measure."""
    parser = cli.parser(
        "Time the shipped network on every engine that is installed.",
        "python benchmarks/engines.py --quick",
    )
    parser.add_argument("--quick", action="store_true", help="a few rounds, printed and not kept")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Measure, and write file and page unless it was quick."""
    engines, missing = installed()
    for name, reason in missing.items():
        print(f"{name} is skipped: {reason}", flush=True)
    networks = ours(), mobilenet()
    rounds = QUICK if arguments.quick else ROUNDS
    result = {
        "machine": processor(),
        "engines": {name: version(name) for name in engines},
        "skipped": missing,
        "rounds": rounds,
        "networks": {n.name: {"macs": n.macs, "sha256": n.sha256} for n in networks},
    }
    taken = timed(entries(engines, networks), rounds)
    result["rows"] = [asdict(row) for row in rows(taken)]
    print(times_table(result), aim_line(result), sep="\n\n")
    if not arguments.quick:
        write_json(TIMES, result)
        write_page()
        print(f"written: {TIMES.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


def entries(
    engines: Mapping[str, Load], networks: Sequence[Network], threads: Sequence[int] = THREADS
) -> list[Entry]:
    """Return every network in every precision on every engine, loaded and checked.

    Raises GliosliceError if the output of one is not that of the first engine's int8.
    """
    made = []
    for network in networks:
        wanted: NDArray[np.float32] | None = None
        for (name, load), precision, count in product(engines.items(), network.models, threads):
            loaded = load(network.models[precision], network.given, count)
            found = loaded.real(loaded.invoke())
            wanted = found if wanted is None else wanted
            agreement = network.agreement(wanted, found)
            if not agreement >= network.least:
                raise GliosliceError(
                    f"{network.name} in {precision} on {name}: agrees with {next(iter(engines))} "
                    f"by {agreement:.3f}, {network.least} at least was expected; it computes "
                    "another network, nothing was timed"
                )
            made.append(Entry(name, network, precision, count, agreement, loaded.invoke))
    return made


def timed(
    made: Sequence[Entry], rounds: int, clock: Clock = time.perf_counter
) -> list[tuple[Entry, list[float]]]:
    """Return the milliseconds of each entry, one of every round.

    The entries run in turn, so that a busy moment of the machine meets all of them; each runs twice
    and the second counts, for which its weights are in the caches as in a volume of many slices.
    """
    taken: list[tuple[Entry, list[float]]] = [(entry, []) for entry in made]
    for _ in track(range(rounds), "timing"):
        for entry, times in taken:
            entry.invoke()
            began = clock()
            entry.invoke()
            times.append((clock() - began) * 1000)
            if entry.threads > 1:
                time.sleep(PAUSE)
    return taken


def rows(taken: Sequence[tuple[Entry, Sequence[float]]]) -> list[Row]:
    """Return what the times come to."""
    medians = {
        (e.engine, e.threads): float(np.median(times)) for e, times in taken if e.network.reference
    }
    made = []
    for entry, times in taken:
        median, p90 = (float(value) for value in np.percentile(times, (50, 90)))
        other = None if entry.network.reference else medians.get((entry.engine, entry.threads))
        made.append(
            Row(
                entry.engine,
                entry.network.name,
                entry.precision,
                entry.threads,
                median=round(median, 3),
                p90=round(p90, 3),
                gmacs=round(entry.network.macs / median / 1e6, 1),
                ratio=None if other is None else round(median / other, 3),
                agreement=round(entry.agreement, 4),
            )
        )
    return made


def write_page(page: Path = PAGE, times: Path = TIMES) -> None:
    """Put what was measured into the page."""
    result = read_json(times)
    parts = {"machine": machine_line, "times": times_table, "aim": aim_line}
    fill(page, {name: part(result) for name, part in parts.items()})


def machine_line(result: Mapping[str, Any]) -> str:
    """Return on what it was measured, and what was skipped."""
    engines = ", ".join(f"{name} {number}" for name, number in result["engines"].items())
    skipped = "".join(f" Not installed, so skipped: {name}." for name in result["skipped"])
    return f"{result['machine']}; {engines}; {result['rounds']} rounds.{skipped}"


def aim_line(result: Mapping[str, Any]) -> str:
    """Return how the int8 file stands to the aim on the engine that boards get."""
    found = [
        f"{row['ratio']:.2f} on {row['threads']} thread{'s' * (row['threads'] > 1)}"
        for row in result["rows"]
        if row["engine"] == BOARDS_GET and row["precision"] == "int8" and row["ratio"] is not None
    ]
    return (
        f"The aim is that a slice takes at most {AIM} of MobileNetV2's time on {BOARDS_GET}, the "
        f"engine that boards get: it takes {' and '.join(found) or 'an unknown share'} here."
    )


def times_table(result: Mapping[str, Any]) -> str:
    """Return a row for every engine and number of threads, of ours and of the reference."""
    found = {(r["engine"], r["threads"], r["network"], r["precision"]): r for r in result["rows"]}
    mine, reference = result["networks"]
    lines = []
    for engine, threads in dict.fromkeys((r["engine"], r["threads"]) for r in result["rows"]):
        fp32, int8 = (found[engine, threads, mine, precision] for precision in ("fp32", "int8"))
        other = found[engine, threads, reference, "int8"]
        cells = [
            f"{r['median']:.2f}, {r['p90']:.2f} ({r['gmacs']:.0f})" for r in (fp32, int8, other)
        ]
        lines.append([engine, threads, *cells, f"{int8['ratio']:.2f}"])
    head = f"{mine} fp32", f"{mine} int8", f"{reference} int8", "slice to MobileNetV2, int8"
    return table(("engine", "threads", *head), lines)


if __name__ == "__main__":
    main()
