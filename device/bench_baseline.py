"""A board's baseline file: the slice times with which later runs on the same board are compared.

`<board>-<runtime>-<model>.csv` has a row for each number of threads. Milliseconds vary from day to
day, so the comparison uses the ratio to a reference network that ran interleaved with the slices.
Only a slower run fails.
"""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from device.telemetry import slug
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

TOLERANCE = 0.25
"""Share by which a ratio may grow before a run counts as slower."""


def check_speed(
    result: Mapping[str, Any],
    max_ms: float | None,
    boards: Path | None,
    output: TextIO | None = None,
) -> bool:
    """Return whether a result of `device.bench` is fast enough; print why to `output` or stdout.

    It is too slow if p99 of a whole slice exceeds `max_ms`, or if a ratio exceeds the one in the
    board's file in the folder `boards`. A board without a file gets one. Raises GliosliceError if
    the file is malformed.
    """
    failures, notes = [], []
    for row in result["runs"]:
        p99 = row["ms"]["whole"]["p99"]
        if max_ms is not None and p99 > max_ms:
            failures.append(f"{row['threads']} threads: p99 is {p99:.1f} ms, the limit {max_ms:g}")
    if max_ms is not None and not failures:
        notes.append(f"p99 of every run is at most {max_ms:g} ms")
    if any(row["ratio"] is None for row in result["runs"]):
        notes.append("no --reference network: no ratio, and no baseline to write or compare with")
    elif boards is not None:
        path = boards / baseline_name(result)
        if path.is_file():
            slower, others = compare_ratios(result, path)
            failures += slower
            notes += others
        elif not failures:
            write_baseline(path, result)
            notes.append(f"{path} written; later runs on this board are compared with it")
    for line in [*notes, *(f"FAILED: {failure}" for failure in failures)]:
        print(line, file=output)
    return not failures


def baseline_name(result: Mapping[str, Any]) -> str:
    """Return the name of a board's file; it does not contain the runtime's version."""
    runtime = str(result["runtime"]).split()[0]
    return f"{slug(result['board'])}-{slug(runtime)}-{slug(result['model'])}.csv"


def compare_ratios(result: Mapping[str, Any], path: Path) -> tuple[list[str], list[str]]:
    """Return a line for each number of threads: those that became slower, and all others."""
    baseline = read_ratios(path)
    slower, others = [], []
    for row in result["runs"]:
        threads, ratio = row["threads"], row["ratio"]
        if threads not in baseline:
            others.append(f"{path} has no row for {threads} threads; remove it to write a new one")
            continue
        text = f"{threads} threads: {ratio:.3f} times as long as the reference network"
        text += f", {baseline[threads]:.3f} in {path.name}"
        if ratio > baseline[threads] * (1 + TOLERANCE):
            slower.append(f"{text}: slower by more than {TOLERANCE:.0%}")
        else:
            others.append(text)
    return slower, others


def read_ratios(path: Path) -> dict[int, float]:
    """Return the ratio for each number of threads in a board's file.

    Raises GliosliceError if it is malformed.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {int(row["threads"]): float(row["ratio"]) for row in csv.DictReader(file)}
    except (KeyError, TypeError, ValueError) as error:
        raise GliosliceError(f"{path}: malformed ({error!r}); remove it and run again") from None


def write_baseline(path: Path, result: Mapping[str, Any]) -> None:
    """Write a board's file atomically."""
    rows = [baseline_row(result, row) for row in result["runs"]]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def baseline_row(result: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, object]:
    """Return the row of a board's file for one number of threads."""
    cells: dict[str, object] = {
        name: result[name] for name in ("board", "runtime", "kernels", "model")
    }
    cells |= {"sha256": str(result["sha256"])[:12], "seconds": result["seconds"]}
    cells |= {name: row[name] for name in ("threads", "slices")}
    cells["ratio"] = f"{row['ratio']:.4f}"
    cells["slices_per_second"] = _format_number(row["slices_per_second"])
    for name in ("cold_start_ms", "memory_mb"):
        cells[name] = _format_number(result[name])
    cells["first_ms"] = _format_number(row["first_ms"])
    for stage, spread in [*row["ms"].items(), ("reference", row["reference_ms"])]:
        cells |= {f"{stage}_{name}": _format_number(value) for name, value in spread.items()}
    for name in ("temperature_c", "clock_mhz"):
        for when in ("first", "highest", "lowest"):
            cells[f"{name}_{when}"] = _format_number((row[name] or {}).get(when))
    return cells


def _format_number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
