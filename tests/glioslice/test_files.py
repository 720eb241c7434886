"""Files are written atomically; JSON and checksums."""

import os
from pathlib import Path

import pytest

from glioslice.errors import GliosliceError
from glioslice.files import atomic_path, read_json, sha256, write_bytes, write_json


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "mask.nii.gz"
    write_bytes(path, b"old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        assert temporary.name.endswith("mask.nii.gz")
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


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
