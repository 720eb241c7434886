"""Which cases of a folder are streamed, what they are named, and which options are refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from firmware_host import batch, stream
from firmware_host.options import parse_options
from glioslice.errors import GliosliceError
from glioslice.files import write_json
from tests.conftest import Write, save
from tests.firmware_host.conftest import NAMES
from tests.firmware_host.scripted import HELLO

BIDS = {
    "flair": "_FLAIR", "t1": "_T1w", "t1ce": "_ce-gd_T1w", "t2": "_T2w", "seg": "_dseg"
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--output", "m.nii.gz"), "needs a folder as --output"),
        (("--output", "file"), "needs a folder as --output"),
        (("--output", "cases"), "would be taken for one"),
        (("--report", "r.json"), "--report is for one case"),
        (("--montage", "m.png", "--record", "f"), "--montage, --record is for one case"),
        (("--output", "/proc/masks"), "/proc: no file can be written here"),
    ],
)
def test_options_for_one_case(
    options: tuple[str, ...], expected: str, folder: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        stream.main(["--port", "/dev/ttyNONE0", "--input", "cases", *options])
    assert end.value.code == 2
    assert expected in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases", "file"]


def test_cases_are_named_by_their_files_and_no_two_alike(
    folder: Path, write_case: Write, tmp_path: Path
) -> None:
    """In BIDS each case lies in a folder `anat`."""
    for name in ("sub-1", "sub-2"):
        case = write_case(name, suffixes=BIDS)
        shutil.copytree(case, tmp_path / "bids" / name / "anat")
    given = ["--port", "sim://", "--input", str(tmp_path / "bids")]
    plans = batch.plan_cases(parse_options(given), tmp_path / "out")
    assert [plan.name for plan in plans] == ["sub-1", "sub-2"]
    shutil.copytree(folder / "Ada", folder / "HGG" / "Ada")
    with pytest.raises(GliosliceError, match="rename one"):
        batch.plan_cases(parse_options([*given[:3], str(folder)]), tmp_path / "out")


def test_masks_are_not_written_into_a_case(folder: Path, tmp_path: Path) -> None:
    given = ["--port", "sim://", "--input", str(folder)]
    with pytest.raises(GliosliceError, match="would be taken for one"):
        batch.plan_cases(parse_options(given), folder / "Ada")


def test_which_folder_holds_several(folder: Path, tmp_path: Path) -> None:
    found = batch.folder_cases(folder)
    assert found is not None and [path.name for path in found] == list(NAMES)
    assert batch.folder_cases(folder / "Ada") is None
    assert batch.folder_cases(folder / "notes") is None  # it is refused as a case
    assert batch.folder_cases(tmp_path / "nowhere") is None
    assert batch.folder_cases(None) is None
    task = tmp_path / "Task01"
    for name in ("A.nii.gz", "B.c.nii"):
        save(task / "imagesTr" / name, np.ones((3, 3, 3, 4), np.float32))
    several = batch.folder_cases(task)
    assert several is not None and [path.name for path in several] == ["A.nii.gz", "B.c.nii"]
    (task / "imagesTr" / "B.c.nii").unlink()
    assert batch.folder_cases(task) is None


def test_masks_of_another_model_are_reported(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = parse_options(["--port", "sim://", "--input", str(folder)])
    plans = batch.plan_cases(options, tmp_path)
    for name, sha256 in (("Ada", HELLO.sha256), ("Ben", "0" * 64)):
        report = {"complete": True, "model": {"name": "any", "sha256": sha256}}
        write_json(tmp_path / f"{name}-report.json", report)
        (tmp_path / f"{name}-mask.nii.gz").write_text("a mask")
    rows = {plan.name: batch.previous_row(plan, force=False) for plan in plans}
    batch.warn_of_other_models(plans, rows, HELLO)
    [warning] = caplog.messages
    assert f"another model than {HELLO.model}: 1;" in warning
