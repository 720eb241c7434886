"""Feed the readers of the wire with bytes that a fuzzer makes up: nothing but our own errors.

    python benchmarks/fuzz.py --runs 100000 --seed 1                      # CI: a hundredth
    python benchmarks/fuzz.py --runs 10000000 --seed 1 --log benchmarks/fuzz.log

`fuzz_readers.py` holds the readers. atheris keeps inputs that reach new lines of code and changes
them further. Any exception but a GliosliceError ends it, and so do 256 MB of memory and an input of
ten seconds.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.runs import ROOT
from glioslice import command
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

MEMORY = 256
SECONDS = 10
LONGEST = 1536
CHILD = "--child"


def child(words: list[str]) -> None:
    """Fuzz in this process; libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["glioslice.wire"]):
        from benchmarks.fuzz_readers import read

    atheris.Setup([sys.argv[0], *words], read)
    atheris.Fuzz()


def seeds() -> list[bytes]:
    """Return inputs to begin with: the test vectors, for each reader."""
    from benchmarks.vectors import vectors

    made = vectors()
    bodies = [bytes.fromhex(one["body"]) for one in made["packets"]]
    found = [b"\0" + bytes.fromhex(one["frame"]) for one in made["frames"] + made["packets"]]
    found += [b"\1" + body for body in bodies]
    found += [b"\2" + bytes.fromhex(one["bytes"]) for one in made["messages"]]
    found += [b"\3\4\7\1\0", b"\3\xfc\x13"]
    found += [b"\7" + (len(b) - 1).to_bytes(2, "little") + b for b in bodies]
    return found


def work(arguments: argparse.Namespace) -> None:
    """Run the fuzzer, print and keep what it says."""
    arguments.broken.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        done, seconds = fuzz(arguments, Path(folder))
    said = [line for line in done.stderr.splitlines() if line.startswith("stat::")]
    last = [line for line in done.stderr.splitlines() if "DONE" in line][-1:]
    lines = [f"fuzz: {arguments.runs} runs, seed {arguments.seed}", *last, *said]
    lines.append(f"seconds: {seconds:.0f}; exit code {done.returncode}")
    print("\n".join(lines))
    if done.returncode:
        raise GliosliceError(
            f"an input broke a reader, it is kept in {arguments.broken}:\n"
            f"{done.stdout}{done.stderr[-3000:]}"
        )
    if arguments.log:
        write_bytes(arguments.log, ("\n".join(lines) + "\n").encode())


def fuzz(
    arguments: argparse.Namespace, corpus: Path
) -> tuple[subprocess.CompletedProcess[str], float]:
    """Return how the fuzzer ended that began with the test vectors, and its seconds."""
    for number, data in enumerate(seeds()):
        write_bytes(corpus / f"vector-{number:03}", data)
    words = [
        f"-runs={arguments.runs}",
        f"-seed={arguments.seed}",
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
    return done, time.monotonic() - began


def main() -> None:
    """Do what the command line says."""
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2:])
        return
    parser = command.parser("Fuzz the readers of the wire.", "python benchmarks/fuzz.py")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--broken", type=Path, default=ROOT / "build" / "fuzz", metavar="FOLDER",
        help="where an input goes that broke a reader",
    )  # fmt: skip
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the figures there")
    command.run(work, parser.parse_args())


if __name__ == "__main__":
    main()
