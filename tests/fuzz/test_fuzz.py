"""Fuzz the readers of the wire: whatever bytes arrive, they raise nothing but our own errors.

    pytest tests/fuzz -s                           a hundredth of the run in fuzz.log
    pytest tests/fuzz -s --fuzz-inputs 10000000    that run: 72 minutes

`readers.py` holds the readers. atheris keeps inputs that reach new lines of code and mutates them
further. Any exception but a GliosliceError fails the test, and so do 256 MB of memory and an input
that takes ten seconds; the input is then kept in build/fuzz/. The inputs are split into rounds,
each a process of its own that starts from what the others found: code that atheris 3.0 instruments
leaks (the mask codec 7 kB an input), the same code without it does not.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest

from glioslice.wire.codecs import IMAGES, MASKS, encode_image, encode_mask
from tests.conftest import ROOT
from tests.fuzz.readers import IMAGE_SHAPE, PREVIOUS
from tools.wire_vectors import vectors

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

INPUTS_PER_ROUND = 100_000
MEMORY_MB = 256
SECONDS_PER_INPUT = 10
LONGEST_INPUT = 1536
SEED = 1

BROKEN_READER = """
import sys
from glioslice.wire import packets
packets.open_from_bytes = lambda body: [][len(body)]
from tests.fuzz import target
target.main(sys.argv[1:])
"""


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


def first_inputs() -> list[bytes]:
    """Return what the fuzzer starts from: the test vectors, for each reader."""
    published = vectors()
    bodies = [bytes.fromhex(packet["body"]) for packet in published["packets"]]
    inputs = [b"\0" + bytes.fromhex(f["frame"]) for f in published["frames"] + published["packets"]]
    inputs += [b"\1" + body for body in bodies]
    inputs += [b"\2" + bytes.fromhex(message["bytes"]) for message in published["messages"]]
    mask = PREVIOUS[::-1].copy()
    inputs += [bytes([3, 2 * codec]) + encode_mask(codec, mask) for codec in MASKS]
    inputs += [b"\3\7" + encode_mask(3, mask, PREVIOUS)]
    ramp = np.arange(np.prod(IMAGE_SHAPE)).reshape(IMAGE_SHAPE).astype(np.int8)
    inputs += [bytes([8, codec]) + encode_image(codec, ramp) for codec in IMAGES]
    inputs += [b"\7" + (len(b) - 1).to_bytes(2, "little") + b for b in bodies]
    return inputs


def run_fuzzer(program: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run a process of the fuzzer on one core.

    A shell forks it: libFuzzer limits the peak memory, and a process that pytest starts itself
    inherits the peak of pytest.
    """
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, *program, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, errors="replace"
    )


def test_readers_raise_nothing_but_our_own_errors(
    pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    inputs = int(pytestconfig.getoption("--fuzz-inputs"))
    corpus, broken = tmp_path / "corpus", ROOT / "build" / "fuzz"
    corpus.mkdir()
    broken.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(first_inputs()):
        (corpus / f"vector-{number:03}").write_bytes(content)
    figures = Figures()
    for start in range(0, inputs, INPUTS_PER_ROUND):
        began = time.monotonic()
        done = run_fuzzer(
            ["tests/fuzz/target.py"],
            f"-runs={min(INPUTS_PER_ROUND, inputs - start)}",
            f"-seed={SEED * 10_000 + figures.rounds}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-timeout={SECONDS_PER_INPUT}",
            f"-max_len={LONGEST_INPUT}",
            f"-artifact_prefix={broken}/",
            "-print_final_stats=1",
            str(corpus),
        )
        assert done.returncode == 0, f"see {broken}:\n{done.stdout}{done.stderr[-3000:]}"
        found = re.findall(r"stat::(\w+): +(\d+)", done.stderr)
        figures.add({name: int(value) for name, value in found}, time.monotonic() - began)
    print(f"fuzz: {inputs} inputs, seed {SEED}")
    print(*(f"{name}: {value}" for name, value in asdict(figures).items()), sep="\n")
    assert inputs <= figures.executed < inputs + 1000 * figures.rounds
    assert figures.peak_rss_mb < MEMORY_MB


def test_a_reader_that_raises_another_error_is_found(tmp_path: Path) -> None:
    options = ["-runs=100000", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    done = run_fuzzer(["-c", BROKEN_READER], *options)
    assert done.returncode != 0
    assert "IndexError" in done.stdout + done.stderr
