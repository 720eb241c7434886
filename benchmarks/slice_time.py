"""Time the int8 files of fold 1 on this machine, for the table of networks in docs/accuracy.md.

    python benchmarks/slice_time.py

Writes `benchmarks/folds/slice_time.json`: the machine, the runtime, and for each network the median
and the 90th percentile of the milliseconds for a slice on one thread.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.accuracy import SHOWN_SIZES
from benchmarks.folds import FOLDS, FOLDS_FOLDER, FoldRun
from benchmarks.pages import processor
from device.engine import Engine
from glioslice import cli
from glioslice.cases import phantom_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import write_json
from glioslice.preprocessing import slice_volume

ROUNDS = 200


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and time the networks."""
    example = "python benchmarks/slice_time.py"
    parser = cli.parser("Time the int8 files of fold 1, interleaved.", example)
    cli.run(time_slices, parser.parse_args(argv))


def time_slices(_arguments: argparse.Namespace) -> None:
    """Time the networks interleaved, so that a busy moment of the machine affects all of them."""
    engines = {}
    for run in (FoldRun(size, FOLDS[0]) for size in SHOWN_SIZES):
        if not run.has_files:
            raise GliosliceError(f"{run.name}: its file is missing; `make folds` trains it")
        [file] = run.folder.glob("*-int8.tflite")
        engines[run.name] = Engine(file)
    first = next(iter(engines.values()))
    slices, _ = slice_volume(phantom_case(0).images, first.card.window, first.card.clip)
    prepared = {name: e.prepare(slices[len(slices) // 2]) for name, e in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in track(range(ROUNDS), "timing"):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.invoke(prepared[name])
            times[name].append((time.perf_counter() - began) * 1000)
    write_json(
        FOLDS_FOLDER / "slice_time.json",
        {
            "machine": f"{processor()}, one thread",
            "runtime": first.runtime,
            "milliseconds": {
                name: {
                    "median": round(float(np.median(milliseconds)), 3),
                    "p90": round(float(np.percentile(milliseconds, 90)), 3),
                }
                for name, milliseconds in times.items()
            },
        },
    )


if __name__ == "__main__":
    main()
