"""An archive of studies: in parts and through Dask, killed, repeated, refused."""

import csv
import gzip
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale_runs import scheduler
from glioslice.cases import read_case
from glioslice.files import FOLDER_PREFIX
from scanner import prepare
from scanner.archive import PrepareOptions
from scanner.case_files import write_case
from scanner.pipeline import Prepared
from scanner.volumes import Grid, Volume
from tests.conftest import ROOT
from tests.scanner.simulated_scanner import FLAIR, T1CE, Head, write_study

PREPARE = [sys.executable, "-m", "scanner.prepare"]
PREPARE_AND_DIE = """
import os, signal, sys
from scanner import case_files, prepare
write_image = case_files._write_image

def write_and_die(*image):
    write_image(*image)
    os.kill(os.getpid(), signal.SIGKILL)

case_files._write_image = write_and_die
prepare.main(sys.argv[1:])
"""
"""It is killed once the first image of a case is written."""

OPTIONS = ("--brain-extraction", "none")
NO_STUDY, STUDY = "Notes", "Study_A"


@pytest.fixture(scope="module")
def archive(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coarse study of a head without skull, and a folder that holds none."""
    folder = tmp_path_factory.mktemp("archive") / "studies"
    stripped = {m: Volume(v.voxels * head.brain, v.grid) for m, v in head.volumes.items()}
    coarse = [replace(p, in_plane=2.0, size=(105, 120), thickness=4.0) for p in (T1CE, FLAIR)]
    write_study(folder / STUDY, replace(head, volumes=stripped), coarse)
    (folder / NO_STUDY).mkdir()
    (folder / NO_STUDY / "a.txt").write_text("no images")
    return folder


def run_here(archive: Path, out: Path, *options: str, code: int = 0) -> None:
    arguments = [str(archive), "--out", str(out), *OPTIONS, *options]
    if not code:
        prepare.main(arguments)
        return
    with pytest.raises(SystemExit) as end:
        prepare.main(arguments)
    assert end.value.code == code


def files(case: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(case.iterdir()):
        content = path.read_bytes()
        yield path.name, gzip.decompress(content) if path.suffix == ".gz" else content


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open() as file:
        return {row["case"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_a_killed_part_is_repeated_and_a_worker_makes_the_same_case(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts, dask = tmp_path / "parts", tmp_path / "dask"
    options = (str(archive), "--out", str(parts), *OPTIONS, "--part", "1/1")
    command = [sys.executable, "-c", PREPARE_AND_DIE, *options]
    killed = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == "cases: 2, done before: 0\n"
    [half] = parts.glob(f"{FOLDER_PREFIX}*")  # it is removed after an hour
    shutil.move(half, tmp_path / "half")
    run_here(archive, parts, "--part", "1/1", code=2)  # one of the two is no study
    printed = capsys.readouterr()
    assert f"{STUDY}: complete" in printed.out and f"{NO_STUDY}: error: " in printed.err
    with scheduler(tmp_path / "files", 1) as (address, _):
        run_here(archive, dask, "--dask", address, code=2)
    assert f"{STUDY}: complete" in capsys.readouterr().out
    for out in (parts, dask):
        run_here(archive, out, "--summary", code=2)
        printed = capsys.readouterr()
        assert "1 of 2 cases are prepared" in printed.out and "1 failed: see" in printed.err
        rows = table(out)
        assert list(rows) == [NO_STUDY, STUDY]
        assert rows[NO_STUDY]["state"] == "failed" and "no MR images" in rows[NO_STUDY]["error"]
        assert rows[STUDY]["state"] == "complete" and rows[STUDY]["sequences"] == "flair t1ce"
        assert {path.name for path in out.iterdir()} == {
            STUDY, f"{STUDY}-result.json", f"{NO_STUDY}-result.json", "summary.csv"
        }  # fmt: skip
    first, second = (np.asarray(read_case(out / STUDY).images) for out in (parts, dask))
    assert first.shape == (4, 240, 240, 155)
    assert np.array_equal(first, second)
    run_here(archive, parts, "--part", "1/1", code=2)
    assert "cases: 2, done before: 1" in capsys.readouterr().out


def test_a_case_without_its_link_is_not_done_with_one(tmp_path: Path) -> None:
    without, with_link = (PrepareOptions(tmp_path, keep_link=keep) for keep in (False, True))
    assert without.method != with_link.method


@pytest.mark.slow
def test_a_full_disk_ends_a_part_and_leaves_no_half_case(archive: Path, tmp_path: Path) -> None:
    """The limit of the process stands for a full disk: the case's images are larger."""
    command = [*PREPARE, str(archive), "--out", str(tmp_path / "out"), *OPTIONS, "--part", "1/1"]
    done = subprocess.run(
        ["prlimit", "--fsize=2000000", *command], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1], done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{NO_STUDY}-result.json"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--part", "0/0"), "is not a part such as"),
        (("--part", "3"), "is not a part such as"),
        (("--part", "1/2", "--study", "2"), "--study: for one study"),
        (("--part", "1/2", "--t1ce", "5"), "--t1ce: for one study"),
        (("--dask", "--brain-extraction", "mask.nii.gz"), "a mask is of one head"),
        (("--dask", "tcp://127.0.0.1:9"), "no Dask scheduler replies at tcp://127.0.0.1:9"),
    ],
)
def test_what_is_refused_before_any_study(
    options: tuple[str, ...], expected: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "studies" / STUDY).mkdir(parents=True)
    monkeypatch.setattr("glioslice.cluster.CONNECT_TIMEOUT", 0.5)
    with pytest.raises(SystemExit) as end:
        prepare.main([str(tmp_path / "studies"), "--out", str(tmp_path / "out"), *options])
    [line] = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith("error: ") and expected in line
    assert not (tmp_path / "out").exists()


def test_cases_never_take_the_place_of_studies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "studies" / STUDY).mkdir(parents=True)
    with pytest.raises(SystemExit):
        prepare.main([str(tmp_path / "studies"), "--out", str(tmp_path / "studies"), "--dask"])
    assert "is the folder of the studies" in capsys.readouterr().err
    (tmp_path / "out" / STUDY).mkdir(parents=True)
    (tmp_path / "out" / STUDY / "mine.txt").write_text("kept")
    with pytest.raises(SystemExit):
        prepare.main([str(tmp_path / "studies"), "--out", str(tmp_path / "out"), "--part", "1/1"])
    printed = capsys.readouterr()
    assert "holds other files" in printed.err and "1 of 1 cases failed" in printed.err
    assert (tmp_path / "out" / STUDY / "mine.txt").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [([], "need a folder of studies"), (["none"], "no such folder"), (["."], "holds no folders")],
)
def test_an_archive_needs_folders(
    given: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(tmp_path / one) for one in given]
    with pytest.raises(SystemExit):
        prepare.main([*folders, "--out", str(tmp_path / "out"), "--summary"])
    assert expected in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_two_processes_may_write_the_same_case(tmp_path: Path) -> None:
    """Each puts its folder in place of the other's, and one of the two remains whole."""
    image = np.ones((8, 8, 8), np.float32)
    prepared = Prepared({"t1ce": image}, Grid((8, 8, 8), np.eye(4)), {}, {}, image > 0, "none", b"")
    program = (
        "import sys, pickle, pathlib; from scanner.case_files import write_case\n"
        "case, out = pickle.load(open(sys.argv[1], 'rb')), pathlib.Path(sys.argv[2])\n"
        "for _ in range(60): write_case(out, case, force=True)"
    )
    (tmp_path / "case.pickle").write_bytes(pickle.dumps(prepared))
    command = [sys.executable, "-c", program, str(tmp_path / "case.pickle"), str(tmp_path / "Case")]
    with subprocess.Popen(command, cwd=ROOT) as one, subprocess.Popen(command, cwd=ROOT) as two:
        pass
    assert one.returncode == two.returncode == 0
    write_case(tmp_path / "alone" / "Case", prepared)
    assert dict(files(tmp_path / "Case")) == dict(files(tmp_path / "alone" / "Case"))
    assert not list(tmp_path.glob(f"{FOLDER_PREFIX}*"))
