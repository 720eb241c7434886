"""Commands of the host as processes of their own, and small cases to give them."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice, permutations
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from glioslice.cases import MODALITIES
from glioslice.nifti import Space
from tests.conftest import BRATS_2018, BRATS_2023, LPS, ROOT, save

STREAM = [sys.executable, str(ROOT / "firmware_host" / "stream.py")]
ROTATED = np.array([[0, 0, -1, 9], [1, 0, 0, -40], [0, 1, 0, 7], [0, 0, 0, 1.0]])

STREAM_TO_SCRIPTED_BOARD = """
import sys
from firmware_host import stream
behaviour, tag, *options = sys.argv[1:]
board = [sys.executable, "-m", "tests.firmware_host.scripted", "{port}", behaviour, tag]
stream.main(options, far_end=lambda arguments: board)
"""

STREAM_TO_GATED_BOARD = """
import sys
from firmware_host import handshake, stream
gate, slices, *options = sys.argv[1:]

def far_end(arguments):
    python, _, _, *rest = handshake.device_command(arguments.model, arguments.baud)
    return [python, "-m", "tests.firmware_host.gated", gate, slices, *rest]

stream.main(options, far_end)
"""


def stream(*options: object, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """Run `stream.py` to its end."""
    command = [*STREAM, *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)


def restore_signals() -> None:
    """Undo in a child what a shell's `&` does, which ignores SIGINT, and nohup, which SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def list_processes() -> list[str]:
    """Return the process id and the whole command line of everything that runs."""
    listed = subprocess.run(["ps", "-ewwo", "pid=,args="], capture_output=True, text=True)
    return listed.stdout.splitlines()


def left_behind(tag: Path, timeout: float = 60.0) -> list[str]:
    """Return the processes that still have `tag` in their command line after `timeout`."""
    deadline = time.monotonic() + timeout
    while True:
        found = [line for line in list_processes() if str(tag) in line]
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(0.1)


def write_slab(folder: Path, slab: NDArray[np.float32], edition: str) -> Path:
    """Write slices (4, X, Y, Z) as a case of an edition; that of 2023 is mirrored and rotated."""
    suffixes = BRATS_2018 if edition == "2018" else BRATS_2023
    affine = LPS if edition == "2018" else ROTATED
    space = Space((1, 1, 1), affine, nib.Nifti1Header())
    for modality, image in zip(MODALITIES, slab, strict=True):
        path = folder / f"{folder.name}{suffixes[modality]}.nii.gz"
        save(path, space.from_lps(image), affine)
    return folder


def write_small_cases(folder: Path, count: int, slices: int) -> Path:
    """Write up to 60 different small cases of the golden slices: every third voxel of each."""
    with np.load(ROOT / "models" / "golden-slices.npz") as golden:
        steps, air = golden["slices"][:, ::3, ::3], golden["zero_point"]
    inside = (steps != air).any(axis=-1, keepdims=True)
    images = np.where(inside, steps.astype(np.float32) + 130, 0).astype(np.float32)
    for number, places in enumerate(islice(permutations(range(len(images)), slices), count)):
        slab = np.moveaxis(images[list(places)], (3, 1, 2, 0), (0, 1, 2, 3))
        write_slab(folder / f"Case_{number:02}", slab, "2018")
    return folder


def run_isolated(*command: object, cwd: Path) -> str:
    """Run a command without this environment's Python settings; return its stdout."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def spoil_case(folder: Path, name: str, how: str) -> str:
    """Make a case unusable; return what its error must contain."""
    case = folder / name
    t2 = next(case.glob("*t2*.nii.gz"))
    match how:
        case "missing":
            next(path for path in case.iterdir() if "t1c" in path.name).unlink()
            return "T1ce is missing"
        case "shape":
            save(t2, np.ones((28, 36, 19), np.float32), LPS)
            return "shape (28, 36, 19), but"
        case "damaged":
            t2.write_bytes(t2.read_bytes()[:500])
            return "cut short or damaged"
        case "empty":
            for path in case.glob("*.nii.gz"):
                save(path, np.zeros((28, 36, 20), np.float32), LPS)
            return "no brain found"
        case "large":
            for path in case.glob("*.nii.gz"):
                ones = np.ones((60, 60, 20), np.float32) * ("seg" not in path.name)
                save(path, ones, LPS)
            return "larger than the window"
    raise AssertionError(how)
