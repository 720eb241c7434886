"""`glioslice segment` stays lighter than a plain script that does less, in one run of both."""

import subprocess
import sys

import pytest

from benchmarks.pipeline import MOST_MEMORY, MOST_TIME, PLAIN, SEGMENT, check_gate
from glioslice.errors import GliosliceError
from tests.conftest import ROOT


@pytest.mark.slow
@pytest.mark.serial
def test_segment_is_lighter_than_a_plain_script() -> None:
    command = [sys.executable, "benchmarks/pipeline.py", "--gate"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{SEGMENT} takes 0.")


@pytest.mark.parametrize(("time", "memory"), [(1.01, 0.5), (0.5, 1.01)])
def test_a_slower_or_larger_one_is_rejected(time: float, memory: float) -> None:
    own = {"seconds": time * MOST_TIME, "megabytes": 1000 * memory * MOST_MEMORY}
    ways = {SEGMENT: own, PLAIN: {"seconds": 1.0, "megabytes": 1000}}
    with pytest.raises(GliosliceError, match="what became slower"):
        check_gate(ways)
    assert check_gate(ways | {SEGMENT: {"seconds": 0.5, "megabytes": 300}})
