"""Fuzz the readers of files: whatever a file holds, they raise nothing but our own errors.

    pytest tests/fuzz/test_fuzz_files.py -s                          a short run of each
    pytest tests/fuzz/test_fuzz_files.py -s --fuzz-inputs 1000000    a million inputs each

`file_readers.py` holds the readers, `files.log` what has run. Otherwise as in `test_fuzz.py`.
"""

import os
import re
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fuzz.file_readers import READERS
from tests.fuzz.test_fuzz import INPUTS_PER_ROUND, SECONDS_PER_INPUT, SEED, Figures, run_fuzzer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

SHARE = 50
"""The default of --fuzz-inputs, which is for the wire, is divided by this: a file is slower."""

DEFAULT = 100_000
MEMORY_MB = 600
LONGEST_INPUT = 16_384

BROKEN_READER = """
import sys
from glioslice import files
files.read_json = lambda path: {}[path.read_bytes()[:1]]
from tests.fuzz import target
target.main(sys.argv[1:])
"""


@pytest.mark.parametrize("name", READERS)
def test_file_readers_raise_nothing_but_our_own_errors(
    name: str, pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = int(pytestconfig.getoption("--fuzz-inputs"))
    inputs = asked // SHARE if asked <= DEFAULT else asked
    corpus, broken, scratch = tmp_path / "corpus", ROOT / "build" / "fuzz", tmp_path / "files"
    for folder in (corpus, broken, scratch):
        folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setitem(os.environ, "TMPDIR", str(scratch))
    for number, content in enumerate(READERS[name].first_inputs()):
        (corpus / f"first-{number:03}").write_bytes(content)
    figures = Figures()
    for start in range(0, inputs, INPUTS_PER_ROUND):
        began = time.monotonic()
        done = run_fuzzer(
            ["tests/fuzz/target.py", name],
            f"-runs={min(INPUTS_PER_ROUND, inputs - start)}",
            f"-seed={SEED * 10_000 + figures.rounds}",
            f"-rss_limit_mb={MEMORY_MB}",
            f"-timeout={SECONDS_PER_INPUT}",
            f"-max_len={LONGEST_INPUT}",
            f"-artifact_prefix={broken}/{name}-",
            "-print_final_stats=1",
            str(corpus),
        )
        assert done.returncode == 0, f"see {broken}:\n{done.stdout}{done.stderr[-3000:]}"
        found = re.findall(r"stat::(\w+): +(\d+)", done.stderr)
        figures.add({key: int(value) for key, value in found}, time.monotonic() - began)
    print(f"\nfuzz {name}: {inputs} inputs, seed {SEED}")
    print(*(f"{key}: {value}" for key, value in asdict(figures).items()), sep="\n")
    assert inputs <= figures.executed < inputs + 1000 * figures.rounds
    assert figures.new_inputs > 0 and figures.peak_rss_mb < MEMORY_MB


def test_a_file_reader_that_raises_another_error_is_found(tmp_path: Path) -> None:
    options = ["-runs=1000", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    done = run_fuzzer(["-c", BROKEN_READER, "card"], *options)
    assert done.returncode != 0
    assert "KeyError" in done.stdout + done.stderr
