"""Files are written atomically; JSON and checksums."""

import os
from pathlib import Path

import pytest

from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import atomic_path, check_folder, read_json, sha256, write_bytes, write_json


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mask.nii.gz"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        assert temporary.name.endswith("mask.nii.gz")
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii"
    with pytest.raises(OSError) as full, atomic_path(path) as temporary:
        temporary.symlink_to("/dev/full")
        with temporary.open("w") as file:
            file.write("x")
    assert cli.one_line(full.value) == f"{path}: No space left on device; free space there"
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_or_a_device_is_not_replaced(tmp_path: Path) -> None:
    """Root could replace /dev/null."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    for special in (path, Path("/dev/null"), tmp_path):
        with pytest.raises(GliosliceError, match=f"{special}: is a"):
            write_bytes(special, b"x")
        assert not special.is_file()


@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_a_link_that_leads_nowhere_takes_no_files(target: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / target)
    for folder in (tmp_path / "link", tmp_path / "link" / "below"):
        with pytest.raises(GliosliceError, match=f"{tmp_path / 'link'}: no file can be written"):
            check_folder(folder)


def test_any_name_that_fits_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 248 + ".nii.gz")
    write_bytes(path, b"")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_follow_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_bytes(tmp_path / "mask.nii", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "mask.nii").stat().st_mode & 0o777 == mode


def test_json(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"größe": [1, 2.5]})
    assert read_json(tmp_path / "a.json") == {"größe": [1, 2.5]}
    (tmp_path / "b.json").write_text("[1")
    (tmp_path / "c.json").write_text("[1]")
    for name, message in (("b", "not valid JSON"), ("c", "object"), ("d", "no such file")):
        with pytest.raises(GliosliceError, match=message):
            read_json(tmp_path / f"{name}.json")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert sha256(tmp_path / "f").startswith("ba7816bf 8f01cfea".replace(" ", ""))
