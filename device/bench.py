"""How long does this board take for a slice, from the payload that came to the mask that leaves?

    python -m device bench --max-ms 100
    python -m device bench --threads 1,2,4 --reference mobilenet.tflite --boards benchmarks/boards

The code that is timed is the runner's own, on golden slices, for `--seconds` a number of threads.
With a reference network in turn with it, `--boards` keeps a file for each board and holds later
runs against it. Exit code 0: fast enough, 1: too slow, 2: what was asked for is not there.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from device.bench_baseline import judged
from device.board import Board, make_board
from device.engine import Engine, installed_runtime
from device.goldens import read_slices
from device.run import Run, Stages
from device.telemetry import Vitals, board_name, peak_memory_mb, process_age_ms, read_vitals
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_json
from glioslice.model_card import default_model
from glioslice.wire.codecs import IMAGES, MASKS, choose, encode_image
from glioslice.wire.messages import Error, Slice

STAGES = ("decode", "invoke", "encode", "whole")
WARM_UP = 20
"""Slices behind the first that are not counted: caches fill and the clock rises."""

BLOCK, REFERENCES = 20, 5
"""Slices in turn with runs of the reference network, which meet the same moments of the machine."""

GLANCE = 1.0
"""Seconds between two looks at temperature and clock."""


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and measure."""
    parser = cli.parser(
        "Time the slices on this board.", "python -m device bench --max-ms 100 --json bench.json"
    )
    parser.prog = "python -m device bench"
    parser.add_argument("--model", type=Path, help="a .tflite file with its card; default: compact")
    parser.add_argument("--threads", type=numbers, default=(1,), help="such as 1,2,4; default: 1")
    parser.add_argument("--seconds", type=float, default=60.0, help="default: 60")
    parser.add_argument("--max-ms", type=float, metavar="MS", help="fail if p99 of a slice is more")
    parser.add_argument("--delegate", help="an accelerator's library, such as libedgetpu.so.1")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="a .tflite to compare with")
    parser.add_argument("--boards", type=Path, metavar="FOLDER", help="where boards' files are")
    parser.add_argument("--json", metavar="FILE", help="numbers for a machine; - is stdout")
    cli.run(work, parser.parse_args(words))


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of threads in a list such as 1,2,4."""
    threads = tuple(int(word) for word in text.split(","))
    if not all(0 < n <= 256 for n in threads):
        raise ValueError
    return threads


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says; too slow ends with exit code 1."""
    say = _to_stderr if arguments.json == "-" else print
    result = measured(
        arguments.model or default_model(),
        arguments.threads,
        arguments.seconds,
        arguments.reference,
        arguments.delegate,
    )
    for line in lines(result):
        say(line)
    if arguments.json == "-":
        print(json.dumps(result))
    elif arguments.json:
        write_json(Path(arguments.json), result)
    failed = judged(result, arguments.max_ms, arguments.boards, say)
    if failed:
        sys.exit(1)


def measured(
    model: Path,
    threads: Sequence[int],
    seconds: float,
    reference: Path | None = None,
    delegate: str | None = None,
) -> dict[str, Any]:
    """Return board, runtime and model, and for each number of threads what a slice takes.

    Milliseconds from the start of the process, and its memory, are those of the first number; the
    memory is read before the reference network is loaded. Raises GliosliceError if model, runtime
    or reference cannot be used, or the network fails.
    """
    result: dict[str, Any] = {"board": board_name(), "model": model.stem, "seconds": seconds}
    rows = []
    for count in threads:
        began = time.perf_counter_ns()
        engine = Engine(model, threads=count, delegate=delegate)
        ready = (time.perf_counter_ns() - began) / 1e6
        board = make_board(engine, model)
        messages = golden_messages()
        first = served(board, messages[-1:])[0].whole / 1e6
        result.setdefault("cold_start_ms", process_age_ms())
        for _ in range(WARM_UP // len(messages)):
            served(board, messages)
        result.setdefault("memory_mb", peak_memory_mb())
        result |= {"runtime": engine.runtime, "kernels": engine.kernels}
        result["sha256"] = board.hello.sha256
        compare = reference_network(reference, count) if reference else None
        row = {"threads": count, "engine_ms": ready, "first_ms": first}
        rows.append(row | sustained(board, messages, seconds, compare))
    return result | {"runs": rows}


def golden_messages() -> list[Slice]:
    """Return the golden slices as they cross the line, in the smallest codec that works here."""
    codec = choose(sum(1 << number for number in IMAGES), IMAGES)
    slices, *_ = read_slices()
    return [Slice(i, codec, encode_image(codec, one)) for i, one in enumerate(slices)]


def served(board: Board, messages: Sequence[Slice]) -> list[Stages]:
    """Return what the stages of each slice took. Raises GliosliceError if the network fails."""
    run = Run(board.engine, len(messages), choose(board.hello.mask_codecs, MASKS))
    for message in messages:
        if isinstance(run.serve(board, message), Error):
            raise GliosliceError(f"a golden slice failed: {run.summary()}")
    return run.stages


def reference_network(path: Path, threads: int) -> Callable[[], object]:
    """Return what runs a .tflite file once, on zeros. Raises GliosliceError if it is refused."""
    runtime, module = installed_runtime()
    try:
        interpreter = module.Interpreter(model_path=str(path), num_threads=threads)
        interpreter.allocate_tensors()
        for given in interpreter.get_input_details():
            interpreter.set_tensor(given["index"], np.zeros(given["shape"], given["dtype"]))
        interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise GliosliceError(f"{path}: refused by {runtime}: {error}") from None
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


def sustained(
    board: Board, messages: Sequence[Slice], seconds: float, compare: Callable[[], object] | None
) -> dict[str, Any]:
    """Return what slices take for so many seconds, one after the other, and what the board says."""
    taken: list[Stages] = []
    references: list[float] = []
    seen: list[Vitals] = [read_vitals()]
    began = glanced = time.monotonic()
    while not taken or time.monotonic() < began + seconds:
        for _ in range(BLOCK // len(messages)):
            taken += served(board, messages)
        if compare:
            references += [_milliseconds(compare) for _ in range(REFERENCES)]
        if time.monotonic() > glanced + GLANCE:
            seen.append(read_vitals())
            glanced = time.monotonic()
    seen.append(read_vitals())
    milliseconds = {name: [getattr(one, name) / 1e6 for one in taken] for name in STAGES}
    return {
        "slices": len(taken),
        "slices_per_second": len(taken) / (sum(milliseconds["whole"]) / 1000),
        "ms": {name: spread(values) for name, values in milliseconds.items()},
        "reference_ms": spread(references) if references else None,
        "ratio": ratio(milliseconds["whole"], references) if references else None,
        "temperature_c": over_time([v.temperature_c for v in seen]),
        "clock_mhz": over_time([v.clock_mhz for v in seen]),
        "throttled": seen[-1].throttled,
    }


def ratio(milliseconds: Sequence[float], references: Sequence[float]) -> float:
    """Return how much of the reference network's time a slice takes, of the best tenth of each.

    What else a machine does lengthens the others, and not both alike.
    """
    return float(np.percentile(milliseconds, 10) / np.percentile(references, 10))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return p50, p90, p99 and worst of milliseconds."""
    p50, p90, p99, worst = np.percentile(values, (50, 90, 99, 100)).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "worst": worst}


def over_time(values: Sequence[float | None]) -> dict[str, float] | None:
    """Return first, lowest, highest and last of what a board says, None if it does not say it."""
    said = [value for value in values if value is not None]
    if not said:
        return None
    return {"first": said[0], "lowest": min(said), "highest": max(said), "last": said[-1]}


def lines(result: dict[str, Any]) -> list[str]:
    """Return a result as lines for a person."""
    told = [
        f"{result['model']} on {result['board']}, {result['runtime']}, kernels {result['kernels']}"
    ]
    cold, memory = result["cold_start_ms"], result["memory_mb"]
    if cold is not None and memory is not None:
        told.append(f"cold start to the first mask: {cold:.0f} ms; memory: {memory:.0f} MB")
    for row in result["runs"]:
        told.append(
            f"{row['threads']} threads: engine ready in {row['engine_ms']:.0f} ms, first slice "
            f"{row['first_ms']:.1f} ms, then {row['slices']:,} slices, "
            f"{row['slices_per_second']:.1f} a second"
        )
        told.append(f"  {'ms':10}{'p50':>9}{'p90':>9}{'p99':>9}{'worst':>9}")
        for name, spreads in [*row["ms"].items(), ("reference", row["reference_ms"])]:
            if spreads:
                told.append(f"  {name:10}" + "".join(f"{v:9.2f}" for v in spreads.values()))
        if row["ratio"] is not None:
            told.append(f"  a slice takes {row['ratio']:.3f} of the reference network's time")
        for name, unit in (("temperature", "c"), ("clock", "mhz")):
            said = row[f"{name}_{unit}"]
            values = said and ", ".join(f"{when} {value:.0f}" for when, value in said.items())
            told.append(f"  {name}: {values or 'absent on this board'}")
        if row["throttled"] is not None:
            told.append(f"  throttling: {', '.join(row['throttled']) or 'no flag is set'}")
    return told


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - began) / 1e6


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
