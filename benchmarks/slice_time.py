"""Time the int8 files of fold 1 on this machine, interleaved, for the table of rivals.

    python benchmarks/slice_time.py

Writes `benchmarks/folds/slice_time.json`: machine, runtime, and for each network the median and the
90th percentile of the milliseconds that a slice takes on one thread.
"""

import time

import numpy as np

from benchmarks.accuracy_tables import rivals
from benchmarks.folds import KEPT
from benchmarks.runtimes import processor
from device.engine import Engine
from device.segment import slices_of
from glioslice import cli
from glioslice.cases import phantom_case
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.files import write_json

ROUNDS = 200


def main() -> None:
    """Write them."""
    example = "python benchmarks/slice_time.py"
    parser = cli.parser("Time the int8 files of fold 1, interleaved.", example)
    cli.run(lambda _: work(), parser.parse_args())


def work() -> None:
    """Invoke the networks in turn, so that a busy moment of the machine meets all of them."""
    engines = {}
    for run in rivals():
        if not run.packed:
            raise GliosliceError(f"{run.name}: its file is missing; `make folds` trains it")
        [file] = run.folder.glob("*-int8.tflite")
        engines[run.name] = Engine(file)
    first = next(iter(engines.values()))
    slices, _ = slices_of(phantom_case(0).images, first.card)
    prepared = {name: e.prepare(slices[len(slices) // 2]) for name, e in engines.items()}
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in track(range(ROUNDS), "timing"):
        for name, engine in engines.items():
            began = time.perf_counter()
            engine.invoke(prepared[name])
            taken[name].append((time.perf_counter() - began) * 1000)
    write_json(
        KEPT / "slice_time.json",
        {
            "machine": f"{processor()}, one thread",
            "runtime": first.runtime,
            "milliseconds": {
                name: {
                    "median": round(float(np.median(times)), 3),
                    "p90": round(float(np.percentile(times, 90)), 3),
                }
                for name, times in taken.items()
            },
        },
    )


if __name__ == "__main__":
    main()
