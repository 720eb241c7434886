"""An archive of studies: in parts and through Dask, killed, repeated, refused."""

import csv
import gzip
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale_runs import kill_parts, scheduler
from glioslice.cases import read_case
from scanner import prepare
from scanner.case_files import write_case
from scanner.pipeline import Prepared
from scanner.volumes import Grid, Volume
from tests.conftest import ROOT
from tests.scanner.simulated_scanner import FLAIR, T1CE, Head, write_study

PREPARE = [sys.executable, "-m", "scanner.prepare"]
OPTIONS = ("--brain-extraction", "none")
STUDIES = ("Study_A", "Study_B")


@pytest.fixture(scope="module")
def archive(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two coarse studies of a head without skull, and a folder that holds none."""
    folder = tmp_path_factory.mktemp("archive") / "studies"
    stripped = {m: Volume(v.voxels * head.brain, v.grid) for m, v in head.volumes.items()}
    coarse = [replace(p, in_plane=3.0, size=(70, 80), thickness=6.0) for p in (T1CE, FLAIR)]
    write_study(folder / STUDIES[0], replace(head, volumes=stripped), coarse)
    shutil.copytree(folder / STUDIES[0], folder / STUDIES[1])
    (folder / "Notes").mkdir()
    (folder / "Notes" / "a.txt").write_text("no images")
    return folder


def run(archive: Path, out: Path, *options: str, code: int = 0) -> str:
    command = [*PREPARE, str(archive), "--out", str(out), *OPTIONS, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def files(case: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(case.iterdir()):
        content = path.read_bytes()
        yield path.name, gzip.decompress(content) if path.suffix == ".gz" else content


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open() as file:
        return {row["case"]: row for row in csv.DictReader(file)}


@pytest.mark.slow
def test_a_killed_part_is_repeated_and_a_worker_writes_the_same_case(
    archive: Path, tmp_path: Path
) -> None:
    studies, parts, dask = (tmp_path / name for name in ("studies", "parts", "dask"))
    for name in STUDIES:
        shutil.copytree(archive / name, studies / name)
    command = [*PREPARE, str(studies), *OPTIONS, "--out", str(parts)]
    assert kill_parts(command, 1, range(2, 3)) == 1  # after the first study
    assert "2 of 2 cases are prepared" in run(studies, parts, "--summary")
    assert "2 cases, 2 done before" in run(studies, parts, "--part", "1/1")
    rows = [table(parts)[name] for name in STUDIES]
    assert [row["state"] for row in rows] == ["complete", "complete"]
    assert rows[0]["sequences"] == "flair t1ce" and rows[0]["brain_ml"] == rows[1]["brain_ml"]
    assert {path.name for path in parts.iterdir() if not path.name.startswith(".prepare-")} == {
        *STUDIES, *(f"{name}-result.json" for name in STUDIES), "summary.csv"
    }  # fmt: skip
    shutil.rmtree(studies / STUDIES[0])
    with scheduler(tmp_path / "files", 1) as (address, _):
        assert "Study_B: complete (1 of 1)" in run(studies, dask, "--dask", address)
    assert dict(files(parts / STUDIES[1])) == dict(files(dask / STUDIES[1]))
    assert read_case(parts / STUDIES[0]).space.shape == (240, 240, 155)


@pytest.mark.slow
def test_a_study_that_is_refused_is_a_row_and_a_full_disk_ends_the_part(
    archive: Path, tmp_path: Path
) -> None:
    limited = tmp_path / "one"
    shutil.copytree(archive / STUDIES[0], limited / STUDIES[0])
    shutil.copytree(archive / "Notes", limited / "Notes")
    command = [*PREPARE, str(limited), "--out", str(tmp_path / "out"), *OPTIONS, "--part", "1/1"]
    done = subprocess.run(
        ["prlimit", "--fsize=1000000", *command], cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["Notes-result.json"]
    run(limited, tmp_path / "out", "--part", "1/1", code=2)  # the other one is done now
    printed = run(limited, tmp_path / "out", "--summary", code=2)
    assert "1 of 2 cases are prepared" in printed and "1 failed" in printed
    row = table(tmp_path / "out")["Notes"]
    assert row["state"] == "failed" and "holds no MR images" in row["error"]


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
    options: tuple[str, ...], expected: str, archive: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("glioslice.cluster.CONNECT_TIMEOUT", 0.5)
    with pytest.raises(SystemExit) as end:
        prepare.main([str(archive), "--out", str(tmp_path / "out"), *options])
    [line] = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith("error: ") and expected in line
    assert not (tmp_path / "out").exists()


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
    assert not list(tmp_path.glob(".prepare-*"))
