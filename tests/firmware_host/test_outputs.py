"""How files are named, and what is refused before the port is opened."""

import os
from pathlib import Path

import pytest

from firmware_host import run, stream
from firmware_host.outputs import check_writable, output_paths
from glioslice.errors import GliosliceError
from tests.conftest import Write


def test_names_beside_the_mask(tmp_path: Path) -> None:
    files = output_paths(tmp_path / "a.b.nii.gz", None)
    assert files.partial == tmp_path / "a.b.partial.nii.gz"
    assert files.montage == tmp_path / "a.b.png"
    assert output_paths(tmp_path / "a.nii", tmp_path / "p.png").partial.name == "a.partial.nii"
    for wrong in ("mask.png", ".nii.gz", "mask"):
        with pytest.raises(GliosliceError, match="written as"):
            output_paths(tmp_path / wrong, None)
    with pytest.raises(GliosliceError, match=r"r\.pdf: a report is written as \.html"):
        output_paths(tmp_path / "m.nii", None, [tmp_path / "r.HTML", tmp_path / "r.pdf"])


@pytest.mark.parametrize("there", ["m.nii.gz", "m.partial.nii.gz", "m.png", "r.json"])
def test_no_file_is_overwritten_without_force(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("precious")
    files = output_paths(tmp_path / "m.nii.gz", None, [tmp_path / "r.json"])
    with pytest.raises(GliosliceError, match=rf"{there}: already exists.*--force"):
        check_writable(files, force=False)
    check_writable(files, force=True)
    assert (tmp_path / there).read_text() == "precious"
    assert os.listdir(tmp_path) == [there]


def test_folders_that_take_no_file(tmp_path: Path) -> None:
    check_writable(output_paths(tmp_path / "new" / "deep" / "m.nii.gz", None), force=False)
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "d.nii.gz").mkdir()
    for path, expected in (
        ("/proc/m.nii.gz", "/proc: no file can be written here"),
        (tmp_path / "file" / "m.nii.gz", "file: no file can be written here"),
        (tmp_path / "d.nii.gz", "is a folder"),
    ):
        with pytest.raises(GliosliceError, match=expected):
            check_writable(output_paths(Path(path), None), force=True)
    with pytest.raises(GliosliceError, match="different names"):
        check_writable(
            output_paths(tmp_path / "m.nii", None, [tmp_path / "r.csv", tmp_path / "r.csv"]),
            force=True,
        )


def test_outputs_are_checked_before_the_port_is_opened(
    write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def never(*options: object, **more: object) -> None:
        raise AssertionError("the port was opened")

    monkeypatch.setattr(run, "open_port", never)
    (tmp_path / "m.nii.gz").write_text("precious")
    options = ["--port", "x", "--input", str(write_case()), "--output", str(tmp_path / "m.nii.gz")]
    with pytest.raises(SystemExit) as end:
        stream.main(options)
    assert end.value.code == 2
    assert "already exists" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        stream.main([*options[:3], str(tmp_path / "none"), "--output", str(tmp_path / "n.nii")])
    assert "no such folder" in capsys.readouterr().err
