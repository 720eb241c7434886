"""A board's file: what a slice took there, against which later runs on the same board are held.

`<board>-<runtime>-<model>.csv` has a row for each number of threads. Milliseconds of another day
say little, so what is held against it is the ratio to a reference network that ran in turn with
the slices, and only a slower run fails.
"""

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from device.telemetry import slug
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

TOLERANCE = 0.25
"""Share by which a ratio may grow before a run counts as slower."""


def judged(
    result: Mapping[str, Any],
    max_ms: float | None,
    boards: Path | None,
    say: Callable[[str], None],
) -> bool:
    """Say whether a result of `device.bench` is too slow, and return it.

    Too slow is a p99 of whole slices over `max_ms`, or a ratio over that of the board's file in the
    folder `boards`. A board without a file gets one. Raises GliosliceError for a malformed one.
    """
    failed = []
    for row in result["runs"]:
        p99 = row["ms"]["whole"]["p99"]
        if max_ms is not None and p99 > max_ms:
            failed.append(f"{row['threads']} threads: p99 is {p99:.1f} ms, {max_ms:g} were allowed")
    if max_ms is not None and not failed:
        say(f"p99 of every run is at most {max_ms:g} ms")
    if any(row["ratio"] is None for row in result["runs"]):
        say("no --reference network: no ratio is told, and no board's file is written or held")
    elif boards is not None:
        path = boards / name_of(result)
        if path.is_file():
            failed += slower(result, path, say)
        elif not failed:
            write_file(path, result)
            say(f"{path} is written; later runs on this board are held against it")
    for line in failed:
        say(f"FAILED: {line}")
    return bool(failed)


def name_of(result: Mapping[str, Any]) -> str:
    """Return the name of a board's file; a runtime's version is no part of it."""
    runtime = str(result["runtime"]).split()[0]
    return f"{slug(result['board'])}-{slug(runtime)}-{slug(result['model'])}.csv"


def slower(result: Mapping[str, Any], path: Path, say: Callable[[str], None]) -> list[str]:
    """Return a line for each number of threads whose ratio has grown past the tolerance."""
    kept, failed = read_ratios(path), []
    for row in result["runs"]:
        threads, ratio = row["threads"], row["ratio"]
        if threads not in kept:
            say(f"{path} knows nothing of {threads} threads; remove it to have it written anew")
            continue
        told = f"{threads} threads: {ratio:.3f} of the reference network's time"
        told += f", {kept[threads]:.3f} in {path.name}"
        if ratio > kept[threads] * (1 + TOLERANCE):
            failed.append(f"{told}: slower by more than {TOLERANCE:.0%}")
        else:
            say(told)
    return failed


def read_ratios(path: Path) -> dict[int, float]:
    """Return the ratio for each number of threads in a board's file.

    Raises GliosliceError if it is malformed.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {int(row["threads"]): float(row["ratio"]) for row in csv.DictReader(file)}
    except (KeyError, TypeError, ValueError) as error:
        raise GliosliceError(f"{path}: malformed ({error!r}); remove it and run again") from None


def write_file(path: Path, result: Mapping[str, Any]) -> None:
    """Write a board's file, whole or not at all."""
    rows = [flat(result, row) for row in result["runs"]]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def flat(result: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, object]:
    """Return the row of a board's file for one number of threads."""
    cells: dict[str, object] = {
        name: result[name] for name in ("board", "runtime", "kernels", "model")
    }
    cells |= {"sha256": str(result["sha256"])[:12], "seconds": result["seconds"]}
    cells |= {name: row[name] for name in ("threads", "slices")}
    cells["ratio"] = f"{row['ratio']:.4f}"
    cells["slices_per_second"] = _rounded(row["slices_per_second"])
    for name in ("cold_start_ms", "memory_mb"):
        cells[name] = _rounded(result[name])
    cells["first_ms"] = _rounded(row["first_ms"])
    for stage, spread in [*row["ms"].items(), ("reference", row["reference_ms"])]:
        cells |= {f"{stage}_{name}": _rounded(value) for name, value in spread.items()}
    for name in ("temperature_c", "clock_mhz"):
        for when in ("first", "highest", "lowest"):
            cells[f"{name}_{when}"] = _rounded((row[name] or {}).get(when))
    return cells


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
