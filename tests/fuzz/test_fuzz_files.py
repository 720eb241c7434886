"""Fuzz the readers of files: whatever a file holds, they raise nothing but our own errors.

    pytest tests/fuzz/test_fuzz_files.py -s                          a short run of each
    pytest tests/fuzz/test_fuzz_files.py -s --fuzz-inputs 1000000    a million inputs each

`file_readers.py` holds the readers, `fuzz.log` what has run. Otherwise as in `test_fuzz.py`.
"""

from pathlib import Path

import pytest

from tests.fuzz.file_readers import READERS
from tests.fuzz.rounds import fuzz, run_fuzzer

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
    name: str, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    wanted = int(pytestconfig.getoption("--fuzz-inputs"))
    inputs = wanted // SHARE if wanted <= DEFAULT else wanted
    first = READERS[name].first_inputs()
    fuzz(name, first, inputs, tmp_path, memory_mb=MEMORY_MB, longest=LONGEST_INPUT)


def test_a_file_reader_that_raises_another_error_is_found(tmp_path: Path) -> None:
    options = ["-runs=1000", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    done = run_fuzzer(["-c", BROKEN_READER, "card"], *options, scratch=tmp_path)
    assert done.returncode != 0
    assert "KeyError" in done.stdout + done.stderr
