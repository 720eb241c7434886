"""Measure how long this board takes for a slice, from received payload to encoded mask.

    glioslice bench --max-ms 100
    glioslice bench --threads 1,2,4 --reference mobilenet.tflite --boards benchmarks/boards
    python -m device bench                                 # the same on a board

The server's own code is timed on the golden slices, for `--seconds` per number of threads. With
`--reference`, another network runs interleaved; `--boards` keeps a baseline file for each board and
compares later runs with it. Exit code 0: fast enough, 1: too slow, 2: something is missing.

A baseline file, `<board>-<runtime>-<model>.csv`, has a row for each number of threads. Milliseconds
vary from day to day, so the comparison uses the ratio to the reference network. Only a slower run
fails.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import csv
import io
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from device.board import Board, make_board
from device.engine import Engine, load_interpreter
from device.goldens import read_slices
from device.run import SegmentationRun, StageTimes
from device.telemetry import (
    Telemetry,
    board_name,
    peak_memory_mb,
    process_age_ms,
    read_telemetry,
    slug,
)
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes, write_json
from glioslice.model_card import find_model
from glioslice.wire.codecs import IMAGES, MASKS, choose, encode_image
from glioslice.wire.messages import Error, Slice, Start

STAGES = ("decode", "invoke", "encode", "whole")
WARM_UP = 20
"""Slices after the first that are not counted, while caches fill and the clock rises."""

SLICES_PER_TURN, REFERENCE_RUNS_PER_TURN = 20, 5
"""Slices and reference runs alternate, so that both meet the same conditions."""

TELEMETRY_INTERVAL = 1.0
"""Seconds between two readings of temperature and clock."""

TOLERANCE = 0.25
"""Share by which a ratio may grow before a run counts as slower."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the result and compare it with the limits."""
    parser = cli.parser(
        "Measure how long this board takes for a slice.",
        "glioslice bench --max-ms 100 --json bench.json",
    )
    parser.add_argument("--model", help="a shipped size, a folder or a file; default: compact")
    parser.add_argument(
        "--threads",
        type=thread_counts,
        default=(1,),
        help="numbers of threads to measure, such as 1,2,4; default: 1",
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long to measure; default: 60"
    )
    parser.add_argument(
        "--max-ms", type=float, metavar="MS", help="fail if the p99 time of a slice is longer"
    )
    parser.add_argument(
        "--delegate", metavar="LIBRARY", help="an accelerator's library, such as libedgetpu.so.1"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="another .tflite, to time in turn"
    )
    parser.add_argument(
        "--boards", type=Path, metavar="FOLDER", help="folder of earlier results, to compare with"
    )
    parser.add_argument("--json", metavar="FILE", help="write the result as JSON; - is stdout")
    cli.run(bench, parser.parse_args(argv))


def thread_counts(text: str) -> tuple[int, ...]:
    """Return the numbers of threads in a list such as 1,2,4."""
    threads = tuple(int(part) for part in text.split(","))
    if not all(0 < n <= 256 for n in threads):
        raise ValueError
    return threads


def bench(arguments: argparse.Namespace) -> None:
    """Measure what `arguments` select; a run that is too slow ends with exit code 1."""
    result = benchmark_model(
        find_model(arguments.model),
        arguments.threads,
        arguments.seconds,
        arguments.reference,
        arguments.delegate,
    )
    output = sys.stderr if arguments.json == "-" else sys.stdout
    for line in format_result(result):
        print(line, file=output)
    if arguments.json == "-":
        print(json.dumps(result))
    elif arguments.json:
        write_json(Path(arguments.json), result)
    if not check_speed(result, arguments.max_ms, arguments.boards, output):
        sys.exit(1)


def benchmark_model(
    model: Path,
    threads: Sequence[int],
    seconds: float,
    reference: Path | None = None,
    delegate: str | None = None,
) -> dict[str, Any]:
    """Return board, runtime and model, and for each number of threads the times of a slice.

    `cold_start_ms` counts from the start of the process and, like `memory_mb`, belongs to the first
    number of threads; the memory is read before the reference network is loaded. Raises
    GliosliceError if model, runtime or reference cannot be used, or the network fails.
    """
    result: dict[str, Any] = {"board": board_name(), "model": model.stem, "seconds": seconds}
    rows = []
    for count in threads:
        started = time.perf_counter_ns()
        engine = Engine(model, threads=count, delegate=delegate)
        engine_ms = (time.perf_counter_ns() - started) / 1e6
        board = make_board(engine, model)
        messages = encode_golden_slices()
        first_ms = segment_messages(board, messages[-1:])[0].whole / 1e6
        result.setdefault("cold_start_ms", process_age_ms())
        for _ in range(WARM_UP // len(messages)):
            segment_messages(board, messages)
        result.setdefault("memory_mb", peak_memory_mb())
        result |= {"runtime": engine.runtime, "kernels": engine.kernels}
        result["sha256"] = board.hello.sha256
        run_reference = load_reference(reference, count) if reference else None
        row = {"threads": count, "engine_ms": engine_ms, "first_ms": first_ms}
        rows.append(row | measure_sustained(board, messages, seconds, run_reference))
    return result | {"runs": rows}


def encode_golden_slices() -> list[Slice]:
    """Return the golden slices as messages, in the smallest codec that works here."""
    codec = choose(sum(1 << number for number in IMAGES), IMAGES)
    slices, *_ = read_slices()
    return [Slice(i, codec, encode_image(codec, one)) for i, one in enumerate(slices)]


def segment_messages(board: Board, messages: Sequence[Slice]) -> list[StageTimes]:
    """Return the times of each slice. Raises GliosliceError if the network fails."""
    run = SegmentationRun(board, Start(len(messages)), choose(board.hello.mask_codecs, MASKS))
    for message in messages:
        if isinstance(run.segment_message(message), Error):
            raise GliosliceError(f"a golden slice failed: {run.summary()}")
    return run.stage_times


def load_reference(path: Path, threads: int) -> Callable[[], object]:
    """Return a function that runs a .tflite file once, on zeros.

    Raises GliosliceError if the runtime refuses the file.
    """
    interpreter = load_interpreter(path, model_path=str(path), num_threads=threads)
    try:
        for tensor in interpreter.get_input_details():
            interpreter.set_tensor(tensor["index"], np.zeros(tensor["shape"], tensor["dtype"]))
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise GliosliceError(f"{path}: cannot be run: {error}") from None
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


def measure_sustained(
    board: Board,
    messages: Sequence[Slice],
    seconds: float,
    run_reference: Callable[[], object] | None,
) -> dict[str, Any]:
    """Return the times of slices that are segmented one after the other for `seconds`."""
    times: list[StageTimes] = []
    reference_ms: list[float] = []
    telemetry: list[Telemetry] = [read_telemetry()]
    started = last_reading = time.monotonic()
    while not times or time.monotonic() < started + seconds:
        for _ in range(SLICES_PER_TURN // len(messages)):
            times += segment_messages(board, messages)
        if run_reference:
            reference_ms += [_time_ms(run_reference) for _ in range(REFERENCE_RUNS_PER_TURN)]
        if time.monotonic() > last_reading + TELEMETRY_INTERVAL:
            telemetry.append(read_telemetry())
            last_reading = time.monotonic()
    telemetry.append(read_telemetry())
    stage_ms = {name: [getattr(one, name) / 1e6 for one in times] for name in STAGES}
    return {
        "slices": len(times),
        "slices_per_second": len(times) / (sum(stage_ms["whole"]) / 1000),
        "ms": {name: time_percentiles(values) for name, values in stage_ms.items()},
        "reference_ms": time_percentiles(reference_ms) if reference_ms else None,
        "ratio": time_ratio(stage_ms["whole"], reference_ms) if reference_ms else None,
        "temperature_c": range_over_time([one.temperature_c for one in telemetry]),
        "clock_mhz": range_over_time([one.clock_mhz for one in telemetry]),
        "throttled": telemetry[-1].throttled,
    }


def time_ratio(milliseconds: Sequence[float], reference: Sequence[float]) -> float:
    """Return a slice's time as a share of the reference network's, by the 10th percentile of each.

    Other load on the machine lengthens the slower times, and not both alike.
    """
    return float(np.percentile(milliseconds, 10) / np.percentile(reference, 10))


def time_percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99 and the worst of milliseconds."""
    p50, p90, p99, worst = np.percentile(values, (50, 90, 99, 100)).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "worst": worst}


def range_over_time(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return first, lowest, highest and last reading; None if the board provides none."""
    readings = [value for value in values if value is not None]
    if not readings:
        return None
    return {
        "first": readings[0],
        "lowest": min(readings),
        "highest": max(readings),
        "last": readings[-1],
    }


def format_result(result: dict[str, Any]) -> list[str]:
    """Return a result as lines of text."""
    lines = [
        f"{result['model']} on {result['board']}, {result['runtime']}, kernels {result['kernels']}"
    ]
    cold_start, memory = result["cold_start_ms"], result["memory_mb"]
    if cold_start is not None and memory is not None:
        lines.append(f"cold start to the first mask: {cold_start:.0f} ms; memory: {memory:.0f} MB")
    for row in result["runs"]:
        lines += _format_row(row)
    return lines


def _format_row(row: dict[str, Any]) -> list[str]:
    """Return the lines for one number of threads."""
    lines = [
        f"{row['threads']} threads: engine ready in {row['engine_ms']:.0f} ms, first slice "
        f"{row['first_ms']:.1f} ms, then {row['slices']:,} slices, "
        f"{row['slices_per_second']:.1f} per second",
        f"  {'ms':10}{'p50':>9}{'p90':>9}{'p99':>9}{'worst':>9}",
    ]
    for name, spread in [*row["ms"].items(), ("reference", row["reference_ms"])]:
        if spread:
            lines.append(f"  {name:10}" + "".join(f"{v:9.2f}" for v in spread.values()))
    if row["ratio"] is not None:
        lines.append(f"  a slice takes {row['ratio']:.3f} times as long as the reference network")
    for name, unit in (("temperature", "c"), ("clock", "mhz")):
        readings = row[f"{name}_{unit}"]
        values = readings and ", ".join(f"{when} {value:.0f}" for when, value in readings.items())
        lines.append(f"  {name}: {values or 'not available on this board'}")
    if row["throttled"] is not None:
        lines.append(f"  throttling: {', '.join(row['throttled']) or 'no flag is set'}")
    return lines


def _time_ms(function: Callable[[], object]) -> float:
    started = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - started) / 1e6


def check_speed(
    result: Mapping[str, Any],
    max_ms: float | None,
    boards: Path | None,
    output: TextIO | None = None,
) -> bool:
    """Return whether a result of `bench` is fast enough; print why to `output` or stdout.

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


if __name__ == "__main__":
    main()
