"""`glioslice check` reports that a case is ready, or every problem file by file."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from glioslice import check
from tests.conftest import Write


def run_check(*arguments: object) -> int:
    """Run the command and return its exit code."""
    try:
        check.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_case_that_is_ready(write_case: Write, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_case()
    for arguments in ([folder], ["--input", folder]):
        assert run_check(*arguments) == 0
        out = capsys.readouterr().out
        assert out.endswith("ready\n")
        assert "BraTS 2018-2021, 28 x 36 x 20 voxels" in out
        assert "in slices 4 to 17" in out  # of the volume, counted from 1


def test_every_unusable_file_gets_a_line(
    write_case: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_case()
    (folder / "Case_1_t1.nii.gz").write_bytes(b"x")
    thick = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.diag([1.0, 1, 5, 1]))
    nib.save(thick, folder / "Case_1_t2.nii.gz")
    assert run_check(folder) == 2
    captured = capsys.readouterr()
    problems = [line for line in captured.out.splitlines() if line.startswith("problem: ")]
    assert len(problems) == 2
    assert "Case_1_t1.nii.gz" in problems[0]
    assert "5.00 mm" in problems[1]
    assert captured.err.count("\n") == 1


def test_a_folder_of_cases_gets_a_line_each(
    write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_case("a")
    write_case("b")
    assert run_check(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ready")[:2] for line in lines] == [("a", ": ready"), ("b", ": ready")]
    (tmp_path / "a" / "a_t1ce.nii.gz").unlink()
    assert run_check(tmp_path) == 2
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].startswith("a: problem: ")
    assert captured.out.splitlines()[1].startswith("b: ready")
    assert "1 of 2" in captured.err


def test_what_is_missing_is_a_warning(
    write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_case("a")
    (folder / "a_t1.nii.gz").unlink()
    (folder / "a_flair.nii.gz").write_bytes(b"damaged")
    assert run_check(folder) == 2
    capsys.readouterr()
    for options in (["--missing", "t2,flair"], ["--missing", "t2", "--missing", "FLAIR"]):
        assert run_check(folder, *options) == 0
        out = capsys.readouterr().out
        warnings = [line for line in out.splitlines() if line.startswith("warning: ")]
        assert ["is missing" in line for line in warnings[:4]] == [True, True, True, False]
        assert warnings[0].startswith("warning: FLAIR") and "Do not rely on WT" in warnings[0]
        assert out.count(" missing\n") == 3
    assert run_check(tmp_path, "--missing", "flair") == 0
    for value in ("t3", "t1,t1ce,t2,flair", ""):
        assert run_check(folder, "--missing", value) == 2
        assert "argument --missing: " in capsys.readouterr().err.splitlines()[-1]


def test_a_path_without_a_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], [tmp_path], [tmp_path / "nowhere"]):
        assert run_check(*arguments) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_a_case_by_option(write_case: Write, capsys: pytest.CaptureFixture[str]) -> None:
    case = write_case("a")
    assert run_check("--input", case) == 0
    assert run_check(case, "--input", case) == 2
    assert "give one of them" in capsys.readouterr().err
