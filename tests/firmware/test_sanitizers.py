"""The tests of link and codecs again, in a process with AddressSanitizer, and static analysis."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.firmware.boards import BAUD
from tests.firmware.library import FIRMWARE, STAND_IN, WARNINGS, host_sources

pytestmark = pytest.mark.slow

RUNTIMES = {"gcc": "libasan.so", "clang": "libclang_rt.asan-x86_64.so"}
CHECKED = ["tests/firmware/test_link.py", "tests/firmware/test_codecs.py"]
BRIEF = "not test_every_message and not TestC and not modulus"
"""Of the lines one a role is enough here: they take half a minute."""


@pytest.mark.parametrize("compiler", RUNTIMES)
def test_link_and_codecs_under_address_sanitizer(compiler: str) -> None:
    name = f"-print-file-name={RUNTIMES[compiler]}"
    runtime = subprocess.run([compiler, name], capture_output=True, text=True, check=True).stdout
    environment = {
        **os.environ,
        "GLIOSLICE_FIRMWARE_BUILD": f"{compiler} address,undefined",
        "LD_PRELOAD": runtime.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # of Python
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CHECKED]
    command += ["-k", BRIEF + " or bit and errors"]
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]


def test_cppcheck_finds_nothing() -> None:
    folders = [FIRMWARE / name for name in ("wire", "server", "boards", "examples")]
    command = ["cppcheck", "--enable=warning,performance,portability", "--error-exitcode=1"]
    command += ["--inline-suppr", "--quiet", "--std=c99", "--suppress=missingIncludeSystem"]
    command += [f"-I{folder}" for folder in (*folders, STAND_IN)]
    command += [*map(str, folders), str(FIRMWARE / "main.c")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("board", BAUD)
def test_the_analyzer_of_gcc_finds_nothing_in_what_a_board_needs(
    board: str, tmp_path: Path
) -> None:
    command = ["make", "-s", f"BOARD={board}", "PROGRAM=echo", f"OUT={tmp_path}"]
    result = subprocess.run(
        [*command, "EXTRA=-fanalyzer"], cwd=FIRMWARE, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0 and "warning" not in result.stderr, result.stderr


@pytest.mark.parametrize(
    "source",
    [*(p for p in host_sources() if p.suffix == ".c"), FIRMWARE / "main.c"],
    ids=lambda path: path.stem,
)
def test_the_analyzer_of_gcc_finds_nothing(source: Path) -> None:
    folders = [f"-I{FIRMWARE / name}" for name in ("wire", "server", "boards")]
    folders.append(f"-I{STAND_IN}")
    options = [*WARNINGS, "-fanalyzer", "-O2", "-c", "-o", os.devnull]
    result = subprocess.run(
        ["gcc", *options, *folders, str(source)], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
