"""The older runtime on an emulated 32-bit Arm, where the reference kernels give the golden masks.

`deploy.py` refuses such boards. PyPI has no wheels of numpy and Pillow for them; Debian's, used
here, are older than glioslice requires.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from device.deployment.release import RUNTIME_PINS, fetch_wheels, only_process
from tests.board import emulation
from tests.board.emulation import ARMHF, CACHE, EmulatedBoard
from tests.conftest import ROOT

pytestmark = [pytest.mark.board, pytest.mark.slow]

LIBRARIES = "LD_LIBRARY_PATH=" + ":".join(
    f"/usr/lib/arm-linux-gnueabihf/{name}" for name in ("blas", "lapack")
)
"""Debian links these when it configures its packages, which does not happen here."""

OTHERS = ("nibabel", "pyserial", "cobs", "packaging", "typing_extensions", "importlib_resources")


def wheels() -> list[Path]:
    """Return the wheels for 32-bit Arm, downloaded if they are not cached, and our own."""
    folder, new = CACHE / "wheels-armhf", CACHE / ".new-wheels-armhf"
    if not folder.is_dir():
        emulation.run(
            sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
            "--platform", "manylinux_2_34_armv7l", "--python-version", "3.11", "--abi", "cp311",
            "--abi", "none", "--implementation", "cp", "--constraint", ROOT / "constraints.txt",
            "--dest", new, RUNTIME_PINS["tflite"], *OTHERS,
        )  # fmt: skip
        new.rename(folder)
    [ours] = [
        path for path in fetch_wheels("aarch64", (3, 11), "litert") if "glioslice" in path.name
    ]
    return [ours, *folder.glob("*.whl")]


def test_the_self_test_passes_on_32_bits(armhf: Path, tmp_path: Path) -> None:
    with only_process():
        emulation.install(wheels(), tmp_path / "site")
    board = EmulatedBoard(ARMHF, armhf, tmp_path / "board", binds=(f"{tmp_path}/site:/opt/site",))
    command = board.site_command(LIBRARIES, "python3", "-m", "device", "selftest")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tflite-runtime 2.14.0 on armv7l" in done.stdout
    assert "reference: 1 of 1 slices, byte for byte" in done.stdout
