"""The board's wheel on every Python and runtime that a board may have.

Each environment has only the wheel and its runtime. The same case must give the same mask: byte for
byte on LiteRT, which runs int8 on XNNPACK everywhere, and nearly so on tflite-runtime, which uses
its own kernels on x86.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from glioslice.cases import phantom_case
from glioslice.nifti import Space
from tests.conftest import ROOT, save

BOARD_RUNTIME = "ai-edge-litert==2.3.0"
DEV_RUNTIME = "ai-edge-litert==2.1.0"  # what onnx2tf pins
LEGACY_RUNTIME = "tflite-runtime==2.14.0"


@dataclass(frozen=True)
class BoardEnvironment:
    python: str
    extra: str
    runtime: str

    @property
    def exact(self) -> bool:
        return self.extra == "device"


BOARDS = (
    BoardEnvironment("3.11", "device", BOARD_RUNTIME),
    BoardEnvironment("3.12", "device", BOARD_RUNTIME),
    BoardEnvironment("3.13", "device", BOARD_RUNTIME),
    BoardEnvironment("3.11", "device", DEV_RUNTIME),
    BoardEnvironment("3.11", "device-legacy", LEGACY_RUNTIME),
)

pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    """Run a command that must succeed, without the tests' Python settings; return its stdout.

    A virtual environment must not see the packages of the one that the tests run in.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(version: str) -> str:
    """The interpreter of that version; the test is skipped if this machine has none."""
    # pyenv's own folders first: its shims on the PATH refuse versions that are not selected.
    installed = sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))
    if found := [*installed, *filter(None, [shutil.which(f"python{version}")])]:
        return found[0]
    pytest.skip(f"no Python {version} on this machine")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", folder, ROOT, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantom on disk, because another numpy may give other random numbers."""
    folder = tmp_path_factory.mktemp("case")
    phantom = phantom_case(0)
    for name, image in zip(("flair", "t1", "t1ce", "t2"), phantom.images, strict=True):
        save(folder / f"p_{name}.nii.gz", image, Space.lps((240, 240, 155)).affine)
    return folder


@pytest.fixture(scope="module")
def expected(case: Path, tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.uint8]:
    out = tmp_path_factory.mktemp("here")
    run(sys.executable, "-m", "device.segment", case, "--out", out, cwd=ROOT)
    return read_mask(out)


def read_mask(out: Path) -> NDArray[np.uint8]:
    image = nib.Nifti1Image.from_filename(next(out.glob("*-mask.nii.gz")))
    return np.asarray(image.dataobj, np.uint8)


def test_the_wheel_contains_the_boards_code_and_the_compact_model(wheel: Path) -> None:
    listing = run(sys.executable, "-m", "zipfile", "-l", wheel, cwd=wheel.parent)
    names = {line.split()[0] for line in listing.splitlines()[1:]}
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"glioslice", "device"}
    models = {"compact/compact-int8.tflite", "compact/goldens.json", "golden-slices.npz"}
    assert {f"glioslice/models/{name}" for name in models} <= names
    assert "device/deploy.py" not in names


def test_the_demo_environment_gives_the_same_masks(case: Path, tmp_path: Path) -> None:
    """As `make demo` installs it: evaluation of a TFLite file needs no torch there."""
    run(python("3.11"), "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    demo = tmp_path / "venv" / "bin" / "python"
    install = (demo, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt")
    run(*install, "--editable", f"{ROOT}[device,host]", BOARD_RUNTIME, cwd=tmp_path)
    size = sum(path.lstat().st_size for path in (tmp_path / "venv").rglob("*"))
    assert size < 400e6
    model = ROOT / "models" / "compact" / "compact-int8.tflite"
    for name, interpreter in (("demo", demo), ("dev", sys.executable)):
        options = ("--model", model, "--data", case, "--masks", tmp_path / name)
        run(interpreter, "training/evaluate.py", *options, cwd=ROOT)
    mask = f"{case.name}-mask.nii.gz"
    assert (tmp_path / "demo" / mask).read_bytes() == (tmp_path / "dev" / mask).read_bytes()
    assert np.asarray(nib.Nifti1Image.from_filename(tmp_path / "demo" / mask).dataobj).any()


@pytest.mark.parametrize("board", BOARDS, ids=lambda b: f"{b.runtime}-python{b.python}")
def test_a_board_segments_the_phantom(
    board: BoardEnvironment, wheel: Path, case: Path, expected: NDArray[np.uint8], tmp_path: Path
) -> None:
    run(python(board.python), "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    inside = tmp_path / "venv" / "bin" / "python"
    install = (inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*install, f"{wheel}[{board.extra}]", board.runtime, cwd=tmp_path)
    packages = run(inside, "-m", "pip", "list", "--format", "freeze", cwd=tmp_path)
    assert not {"torch", "tensorflow"} & {line.split("==")[0] for line in packages.splitlines()}
    output = run(inside, "-m", "device", "selftest", cwd=tmp_path)
    assert ("XNNPACK: 5 of 5 slices, byte for byte" in output) == (board.runtime == BOARD_RUNTIME)
    assert "reference: 1 of 1 slices, byte for byte" in output
    out = tmp_path / "out"
    output = run(inside, "-m", "device.segment", case, "--out", out, cwd=tmp_path)
    assert board.runtime.replace("==", " ") in output
    mask = read_mask(out)
    assert np.count_nonzero(expected) > 1000
    if board.exact:
        np.testing.assert_array_equal(mask, expected)
    else:
        differing = np.count_nonzero(mask != expected)
        assert differing <= 0.01 * np.count_nonzero(expected)
