"""The check says ready, or all that is wrong, file by file."""

import subprocess
import sys

import nibabel as nib
import numpy as np

from tests.conftest import ROOT, Write


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "glioslice.check", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_good_case(write_case: Write) -> None:
    done = check(write_case())
    assert done.returncode == 0
    assert done.stdout.endswith("ready\n")
    assert "BraTS 2018-2021, 28 x 36 x 20 voxels" in done.stdout


def test_every_bad_file_gets_a_line(write_case: Write) -> None:
    folder = write_case()
    (folder / "Case_1_t1.nii.gz").write_bytes(b"x")
    thick = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.diag([1.0, 1, 5, 1]))
    nib.save(thick, folder / "Case_1_t2.nii.gz")
    done = check(folder)
    assert done.returncode == 2
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2
    assert "Case_1_t1.nii.gz" in problems[0]
    assert "5.00 mm" in problems[1]
    assert done.stderr.count("\n") == 1


def test_help_shows_an_example() -> None:
    assert "python -m glioslice.check ../data" in check("--help").stdout
