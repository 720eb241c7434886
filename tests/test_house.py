"""HOUSE.md's rules: the arrows between folders, what a board needs, and names on sys.path."""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tools.goldens import SLICES

FOLDERS = ("glioslice", "device", "training", "convert", "firmware_host")
SCRIPTS = ("device", "training", "convert", "firmware_host", "benchmarks")

HEAVY = ("torch", "tensorflow", "scipy", "monai", "onnx", "rich", "sklearn")
IMPORT_ALL = f"""
import pkgutil, sys, importlib
sys.modules.update(dict.fromkeys({HEAVY}))  # an import of one of them now raises
for package in ("glioslice", "device"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
"""


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "line"),
    [
        (None, ""),
        ("glioslice/labels.py", "import device.engine"),
        ("device/engine.py", "import training.network"),
        ("firmware_host/__init__.py", "import device.engine"),
        ("training/train.py", "import device.engine"),
        ("training/network.py", "import convert.pack"),
        ("convert/pack.py", "import firmware_host"),
    ],
)
def test_an_arrow_against_the_house_fails(module: str | None, line: str, tmp_path: Path) -> None:
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    if module:
        with (tmp_path / module).open("a") as file:
            file.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert (done.returncode != 0) == bool(module), done.stdout
    if module:
        assert "BROKEN" in done.stdout


def test_board_code_imports_nothing_heavy() -> None:
    """Nor needs it: nibabel tries scipy where it is installed, and does without where not."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {"glioslice.cases", "glioslice.wire.link", "device.engine"} <= set(done.stdout.split())


def test_no_script_hides_a_package() -> None:
    """A script's folder comes first on sys.path: its modules must bear names of their own."""
    taken = set(sys.stdlib_module_names) | set(metadata.packages_distributions())
    for folder in SCRIPTS:
        mine = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "__main__"}
        assert not mine & taken


def test_no_patient_voxels_are_tracked() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    volumes = [name for name in tracked if name.endswith((".nii", ".nii.gz", ".npy", ".npz"))]
    assert volumes == [str(SLICES.relative_to(ROOT))]  # the phantom's: test_goldens.py proves it
