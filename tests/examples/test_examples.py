"""Every program in examples/ is short, uses only the public API, and runs as its docstring says."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import ROOT, Write

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PUBLIC = {"glioslice", "device", "convert.to_tflite"}
OURS = ("glioslice", "device", "convert", "training", "firmware_host", "scanner", "tools", "tests")


def run_example(name: str, *arguments: object) -> str:
    command = [sys.executable, f"examples/{name}.py", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_uses_only_the_public_api(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= 30
    for node in ast.walk(ast.parse(source)):
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        ours = {module for module in modules if module.startswith(OURS)}
        assert ours <= PUBLIC


def test_own_messages() -> None:
    assert "1000 bytes sent, 1009 received" in run_example("own_messages")


@pytest.mark.slow
def test_segmenting_and_streaming_give_the_same_mask(write_case: Write, tmp_path: Path) -> None:
    case = write_case(folder=tmp_path / "cases")
    assert "mL of tumour" in run_example("segment_folder", case.parent, tmp_path / "masks")
    run_example("stream_to_simulated_board", case, tmp_path / "streamed.nii.gz")
    segmented = tmp_path / "masks" / f"{case.name}-mask.nii.gz"
    assert segmented.read_bytes() == (tmp_path / "streamed.nii.gz").read_bytes()
    mask = nib.Nifti1Image.from_filename(segmented)
    source = nib.Nifti1Image.from_filename(case / f"{case.name}_flair.nii.gz")
    np.testing.assert_array_equal(mask.affine, source.affine)


@pytest.mark.slow
def test_convert_own_network(tmp_path: Path) -> None:
    out = run_example("convert_own_network", tmp_path / "network")
    assert "-int8.tflite" in out and "-fp16.tflite" in out
    assert (tmp_path / "network" / "report.json").is_file()
