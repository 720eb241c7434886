"""Memory that stays for the next slice, and memory that goes back."""

import platform
import subprocess
import sys

import pytest

from tests.conftest import ROOT

COUNT = """
import resource, sys
import numpy as np
from glioslice.malloc import settle_memory
if sys.argv[1] == "settled":
    settle_memory()

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


def counted(how: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, how], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_slices_take_no_pages_anew_and_volumes_are_given_back() -> None:
    faults, kept = counted("settled")
    assert faults < 100  # of 240 pages a slice
    assert kept < 4 << 20
    assert counted("as it is")[1] > kept + (8 << 20)
