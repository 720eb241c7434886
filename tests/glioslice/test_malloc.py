"""Small blocks are reused, large blocks are returned to the system."""

import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

COUNT = """
import resource, sys
import numpy as np
from glioslice.malloc import configure_malloc
if sys.argv[1] == "configured":
    configure_malloc()

def slices(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        one = [np.ones(size, np.uint8) for size in (490_000, 370_000, 120_000)]
        del one
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

volume = [np.ones(30 << 20, np.uint8) for _ in range(2)]
del volume
slices(5)
print(slices(100))
before = resident()
volume = [np.ones(8 << 20, np.uint8) for _ in range(5)]
del volume
print(resident() - before)
"""


def measure(setting: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, setting], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_slices_cause_no_page_faults_and_volumes_are_returned() -> None:
    faults, kept = measure("configured")
    assert faults < 100  # a slice has 240 pages
    assert kept < 4 << 20
    assert measure("default")[1] > kept + (8 << 20)
