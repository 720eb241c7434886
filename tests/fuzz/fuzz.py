"""Feed the readers of the wire with bytes that a fuzzer makes up: nothing but our own errors.

    python tests/fuzz/fuzz.py --runs 100000 --seed 1                      # CI: a hundredth
    python tests/fuzz/fuzz.py --runs 10000000 --seed 1 --keep build/fuzz-1 --log benchmarks/fuzz.log

`fuzz_readers.py` holds the readers. atheris keeps inputs that reach new lines of code and changes
them further. Any exception but a GliosliceError ends it, and so do 256 MB of memory and an input of
ten seconds. It goes in rounds, each a process of its own that begins with what the others found:
code that atheris 3.0 watches leaks, the mask codec 7 kB an input; unwatched, the same inputs leave
nothing behind.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.folds import ROOT
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_bytes, write_json

ROUND = 100_000
"""Inputs of a process."""

MEMORY = 256
SECONDS = 10
LONGEST = 1536
CHILD = "--child"


def child(words: list[str]) -> None:
    """Fuzz in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["glioslice.wire"]):
        from tests.fuzz.readers import read

    atheris.Setup([sys.argv[0], *words], read)
    atheris.Fuzz()


def seeds() -> list[bytes]:
    """Return inputs to begin with: the test vectors, for each reader."""
    import numpy as np

    from glioslice.wire.codecs import IMAGES, MASKS, encode_image, encode_mask
    from tests.fuzz.readers import BEFORE, IMAGE_SHAPE
    from tools.wire_vectors import vectors

    made = vectors()
    bodies = [bytes.fromhex(one["body"]) for one in made["packets"]]
    found = [b"\0" + bytes.fromhex(one["frame"]) for one in made["frames"] + made["packets"]]
    found += [b"\1" + body for body in bodies]
    found += [b"\2" + bytes.fromhex(one["bytes"]) for one in made["messages"]]
    before = BEFORE[::-1].copy()
    found += [bytes([3, 2 * n]) + encode_mask(n, before) for n in MASKS]
    found += [b"\3\7" + encode_mask(3, before, BEFORE)]
    ramp = np.arange(np.prod(IMAGE_SHAPE)).reshape(IMAGE_SHAPE).astype(np.int8)
    found += [bytes([8, number]) + encode_image(number, ramp) for number in IMAGES]
    found += [b"\7" + (len(b) - 1).to_bytes(2, "little") + b for b in bodies]
    return found


@dataclass
class Figures:
    """What the rounds so far have come to."""

    rounds: int = 0
    runs: int = 0
    executed: int = 0
    new_inputs: int = 0
    slowest_input_s: int = 0
    peak_rss_mb: int = 0
    seconds: int = 0

    def lines(self) -> list[str]:
        """Return them for people and for the log."""
        return [f"{name}: {value}" for name, value in asdict(self).items()]


def work(arguments: argparse.Namespace) -> None:
    """Run the rounds that are left, print and keep what they say."""
    arguments.broken.mkdir(parents=True, exist_ok=True)
    with workplace(arguments.keep) as folder:
        corpus, state = folder / "corpus", folder / "state.json"
        if state.exists():
            kept = read_json(state)
            if kept.pop("seed") != arguments.seed:
                raise GliosliceError(f"{folder}: holds another seed's rounds; name another folder")
            figures = Figures(**kept)
        else:
            figures = Figures()
            for number, data in enumerate(seeds()):
                write_bytes(corpus / f"vector-{number:03}", data)
        while (left := arguments.runs - figures.runs) > 0:
            one_round(arguments, corpus, min(left, ROUND), figures)
            write_json(state, {"seed": arguments.seed, **asdict(figures)})
    lines = [f"fuzz: {arguments.runs} runs, seed {arguments.seed}", *figures.lines()]
    print("\n".join(lines))
    if arguments.log:
        write_bytes(arguments.log, ("\n".join(lines) + "\n").encode())


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """Yield the folder of inputs and figures: one that stays, or one for now."""
    if folder:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def one_round(arguments: argparse.Namespace, corpus: Path, runs: int, figures: Figures) -> None:
    """Add a round in a process of its own; raises GliosliceError if an input broke a reader."""
    words = [
        f"-runs={runs}",
        f"-seed={arguments.seed * 10_000 + figures.rounds}",
        f"-rss_limit_mb={MEMORY}",
        f"-timeout={SECONDS}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={arguments.broken}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, CHILD, *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise GliosliceError(
            f"an input broke a reader, it is kept in {arguments.broken}:\n"
            f"{done.stdout}{done.stderr[-3000:]}"
        )
    found = dict(re.findall(r"stat::(\w+): +(\d+)", done.stderr))
    figures.rounds += 1
    figures.runs += runs
    figures.executed += int(found["number_of_executed_units"])
    figures.new_inputs += int(found["new_units_added"])
    figures.slowest_input_s = max(figures.slowest_input_s, int(found["slowest_unit_time_sec"]))
    figures.peak_rss_mb = max(figures.peak_rss_mb, int(found["peak_rss_mb"]))
    figures.seconds += round(time.monotonic() - began)


def main() -> None:
    """Do what the command line says."""
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2:])
        return
    parser = cli.parser("Fuzz the readers of the wire.", "python tests/fuzz/fuzz.py")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--broken", type=Path, default=ROOT / "build" / "fuzz", metavar="FOLDER",
        help="where an input goes that broke a reader",
    )  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="to go on from when run again")
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the figures there")
    cli.run(work, parser.parse_args())


if __name__ == "__main__":
    main()
