"""Rounds of the fuzzer: each is a process of its own that starts from what the others found.

Code that atheris 3.0 instruments leaks (the mask codec 7 kB an input), the same code without it
does not; so one process gets a bounded number of inputs.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.conftest import ROOT

INPUTS_PER_ROUND = 100_000
SECONDS_PER_INPUT = 10
SEED = 1


@dataclass
class Figures:
    """The rounds so far: sums, and the largest of times and memory."""

    rounds: int = 0
    executed: int = 0
    new_inputs: int = 0
    slowest_input_s: int = 0
    peak_rss_mb: int = 0
    seconds: int = 0

    def add(self, statistics: dict[str, int], seconds: float) -> None:
        """Add libFuzzer's statistics of a round."""
        self.rounds += 1
        self.executed += statistics["number_of_executed_units"]
        self.new_inputs += statistics["new_units_added"]
        self.slowest_input_s = max(self.slowest_input_s, statistics["slowest_unit_time_sec"])
        self.peak_rss_mb = max(self.peak_rss_mb, statistics["peak_rss_mb"])
        self.seconds += round(seconds)


def run_fuzzer(
    program: Sequence[str], *options: str, scratch: Path
) -> subprocess.CompletedProcess[str]:
    """Run a process of the fuzzer on one core, with its temporary files in `scratch`.

    A shell forks it: libFuzzer limits the peak memory, and a process that pytest starts itself
    inherits the peak of pytest.
    """
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, *program, *options]
    limits = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(scratch)}
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | limits, capture_output=True, text=True, errors="replace"
    )


def fuzz(
    name: str, first: Sequence[bytes], inputs: int, folder: Path, *, memory_mb: int, longest: int
) -> None:
    """Give a reader of `target.py` some inputs, which start from `first`, and print the figures.

    Raises AssertionError if an input raises anything but our own errors, exceeds the memory or the
    seconds; it is then kept in build/fuzz/.
    """
    corpus, scratch, broken = folder / "corpus", folder / "files", ROOT / "build" / "fuzz"
    for made in (corpus, scratch, broken):
        made.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(first):
        (corpus / f"first-{number:03}").write_bytes(content)
    figures = Figures()
    for start in range(0, inputs, INPUTS_PER_ROUND):
        began = time.monotonic()
        done = run_fuzzer(
            ["tests/fuzz/target.py", name],
            f"-runs={min(INPUTS_PER_ROUND, inputs - start)}",
            f"-seed={SEED * 10_000 + figures.rounds}",
            f"-rss_limit_mb={memory_mb}",
            f"-timeout={SECONDS_PER_INPUT}",
            f"-max_len={longest}",
            f"-artifact_prefix={broken}/{name}-",
            "-print_final_stats=1",
            str(corpus),
            scratch=scratch,
        )
        assert done.returncode == 0, f"see {broken}:\n{done.stdout}{done.stderr[-3000:]}"
        found = re.findall(r"stat::(\w+): +(\d+)", done.stderr)
        figures.add({key: int(value) for key, value in found}, time.monotonic() - began)
    print(f"\nfuzz {name}: {inputs} inputs, seed {SEED}")
    print(*(f"{key}: {value}" for key, value in asdict(figures).items()), sep="\n")
    assert inputs <= figures.executed < inputs + 1000 * figures.rounds
    assert figures.new_inputs > 0 and figures.peak_rss_mb < memory_mb
