"""What is refused before a line is opened, and how files are named."""

import os
from pathlib import Path

import pytest

from firmware_host import run, stream
from firmware_host.outputs import check_writable, targets
from glioslice.errors import GliosliceError
from tests.conftest import Write


def test_names_beside_the_mask(tmp_path: Path) -> None:
    files = targets(tmp_path / "a.b.nii.gz", None)
    assert files.partial == tmp_path / "a.b.partial.nii.gz"
    assert files.montage == tmp_path / "a.b.png"
    assert targets(tmp_path / "a.nii", tmp_path / "p.png").partial.name == "a.partial.nii"
    for wrong in ("mask.png", ".nii.gz", "mask"):
        with pytest.raises(GliosliceError, match="written as"):
            targets(tmp_path / wrong, None)


@pytest.mark.parametrize("there", ["m.nii.gz", "m.partial.nii.gz", "m.png", "r.json"])
def test_no_file_is_overwritten_without_force(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("precious")
    files = targets(tmp_path / "m.nii.gz", None, [tmp_path / "r.json"])
    with pytest.raises(GliosliceError, match=rf"{there}: is there already.*--force"):
        check_writable(files, force=False)
    check_writable(files, force=True)
    assert (tmp_path / there).read_text() == "precious"
    assert os.listdir(tmp_path) == [there]


def test_folders_that_take_no_file(tmp_path: Path) -> None:
    check_writable(targets(tmp_path / "new" / "deep" / "m.nii.gz", None), force=False)
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "d.nii.gz").mkdir()
    for path, words in (
        ("/proc/m.nii.gz", "/proc: no file can be written here"),
        (tmp_path / "file" / "m.nii.gz", "file: no file can be written here"),
        (tmp_path / "d.nii.gz", "this is a folder"),
    ):
        with pytest.raises(GliosliceError, match=words):
            check_writable(targets(Path(path), None), force=True)
    with pytest.raises(GliosliceError, match="names of their own"):
        check_writable(targets(tmp_path / "m.nii.gz", tmp_path / "r", [tmp_path / "r"]), force=True)


def test_outputs_are_looked_at_before_the_line_is_opened(
    write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def never(*words: object, **more: object) -> None:
        raise AssertionError("the line was opened")

    monkeypatch.setattr(run, "open_port", never)
    (tmp_path / "m.nii.gz").write_text("precious")
    words = ["--port", "x", "--input", str(write_case()), "--output", str(tmp_path / "m.nii.gz")]
    with pytest.raises(SystemExit) as end:
        stream.main(words)
    assert end.value.code == 2
    assert "is there already" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        stream.main([*words[:3], str(tmp_path / "none"), "--output", str(tmp_path / "n.nii")])
    assert "no such folder" in capsys.readouterr().err
