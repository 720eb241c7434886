"""An archive in parts and on a cluster: nothing is lost, nothing is double, the table is right."""

import csv
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest

from benchmarks.scale_runs import (
    LINE,
    SEGMENT,
    NarrowPipe,
    completed,
    kill_parts,
    scheduler,
)
from device import archive
from device.segment import main
from glioslice.cases import read_case
from glioslice.cluster import LARGEST_BATCH, ArchiveCase, Part, in_part, map_on_dask, parse_part
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import find_model
from tests.conftest import ROOT
from tests.firmware_host.commands import restore_signals, write_small_cases

COUNT = 40

WARNINGS = 1000
"""Bytes: those of some cases, not of all."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty small cases."""
    return write_small_cases(tmp_path_factory.mktemp("cases") / "cases", COUNT, 3)


@pytest.fixture(scope="module")
def few(cases: Path) -> Path:
    """The first four of them."""
    folder = cases.with_name("few")
    for case in sorted(cases.iterdir())[:4]:
        shutil.copytree(case, folder / case.name)
    return folder


@pytest.fixture(scope="module")
def wanted(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one process that nobody disturbs."""
    out = tmp_path_factory.mktemp("wanted")
    segment(cases, "--out", out, "--part", "1/1")
    return files(out)


def segment(*options: object, code: int = 0) -> str:
    """Run the command in a process of its own; return what it printed."""
    command = [*SEGMENT, *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def beside_warnings(errors: str) -> list[str]:
    """Return the lines of stderr that are no warnings of a case: small cases are not brains."""
    return [line for line in errors.splitlines() if not line.startswith("warning: Case_")]


def files(out: Path) -> dict[str, bytes]:
    """Return masks and pictures; rows hold times, which differ."""
    kept = (path for path in out.iterdir() if path.suffix in (".gz", ".png"))
    return {path.name: path.read_bytes() for path in kept if not path.name.startswith(".")}


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "summary.csv").open() as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def check_summary(cases: Path, out: Path, wanted: dict[str, bytes]) -> None:
    """Every case is in the table once, with the volumes of its own row, and has its files."""
    assert "40 of 40 cases are segmented" in segment(cases, "--out", out, "--summary")
    rows = table(out)
    assert list(rows) == [f"Case_{number:02}" for number in range(COUNT)]
    assert len((out / "summary.csv").read_text().splitlines()) == 1 + COUNT
    for name, row in rows.items():
        volumes = read_json(out / f"{name}-result.json")["values"]
        assert row["state"] == "complete" and float(row["WT_ml"]) == volumes["WT_ml"]
    assert files(out) == wanted


def test_each_case_is_in_exactly_one_part() -> None:
    names = [f"BraTS_{number:05}" for number in range(2000)]
    parts = [[n for n in names if in_part(n, Part(k, 16))] for k in range(1, 17)]
    assert sorted(name for part in parts for name in part) == names
    assert all(80 < len(part) < 170 for part in parts)
    # For good: a part that is repeated on another machine or version has the same cases.
    assert [k for k in range(1, 17) if in_part("BraTS_00042", Part(k, 16))] == [10]


@pytest.mark.parametrize("text", ["0/0", "0/4", "5/4", "3", "/", "-1/4", "1/4/2", "a/b", "1 / 2"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(GliosliceError, match="is not a part such as"):
        parse_part(text)


def full_disk(path: Path, *_: object) -> None:
    raise OSError(28, "No space left on device", str(path))


def run_here(*options: object, code: int | None = None) -> None:
    if code is None:
        main([str(option) for option in options])
        return
    with pytest.raises(SystemExit) as end:
        main([str(option) for option in options])
    assert end.value.code == code


def test_parts_overlap_and_are_repeated(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run_here(few, "--out", out, "--part", "1/2")
    first = files(out)
    run_here(few, "--out", out, "--summary", code=2)
    assert "missing: see" in capsys.readouterr().err.splitlines()[-1]
    assert {row["state"] for row in table(out).values()} == {"complete", "missing"}
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    run_here(few, "--out", out, "--part", "1/1")
    assert all(path.stat().st_mtime_ns == at for path, at in times.items())  # not done again
    assert first.items() < files(out).items()
    assert "warning: Case_01: The part that is not 0 has" in capsys.readouterr().err
    run_here(few, "--out", out, "--summary")
    assert "4 of 4 cases are segmented" in capsys.readouterr().out
    assert "unlike the brains" in table(out)["Case_01"]["warnings"]
    (out / "Case_01-mask.nii.gz").unlink()
    run_here(few, "--out", out, "--summary", code=2)
    assert table(out)["Case_01"]["state"] == "missing"
    run_here(few, "--out", out, "--part", "1/1", "--model", "nano")  # all again, by another model
    assert "cases: 4, done before: 0" in capsys.readouterr().out
    run_here(few, "--out", out, "--part", "1/1", "--edition", "brats2023")  # with other labels
    assert "cases: 4, done before: 0" in capsys.readouterr().out
    run_here(few, "--out", out, "--part", "1/1", "--force")
    assert "Case_03: complete (4 of 4)" in capsys.readouterr().out


def test_a_bad_case_is_a_row_and_the_others_are_segmented(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(few, tmp_path / "cases")
    image = next((tmp_path / "cases" / "Case_02").glob("*t2*"))
    image.write_bytes(image.read_bytes()[:500])
    given = (tmp_path / "cases", "--out", tmp_path / "out")
    run_here(*given, "--part", "1/1", code=2)
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith("error: 1 of 4 cases failed")
    assert "cut short or damaged" in printed.err
    run_here(*given, "--summary", code=2)
    rows = table(tmp_path / "out")
    assert (
        rows["Case_02"]["state"] == "failed" and "cut short or damaged" in rows["Case_02"]["error"]
    )
    shutil.copytree(few / "Case_02", tmp_path / "cases" / "Case_02", dirs_exist_ok=True)
    run_here(*given, "--part", "1/1")
    run_here(*given, "--summary")


def test_a_full_disk_ends_a_part_and_leaves_no_half_case(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(archive, "write_montage", full_disk)
        run_here(few, "--out", tmp_path, "--part", "1/1", code=2)
    assert "No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob("*-result.json"))
    run_here(few, "--out", tmp_path, "--part", "1/1")
    run_here(few, "--out", tmp_path, "--summary")


def test_a_defect_in_one_case_is_a_row_and_the_others_are_segmented(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def defective(path: Path, *given: Any, **options: Any) -> Any:
        if path.name == "Case_01":
            raise IndexError("out of range")
        return read_case(path, *given, **options)

    monkeypatch.setattr(archive, "read_case", defective)
    run_here(few, "--out", tmp_path, "--part", "1/1", code=2)
    assert "Case_01: error: unexpected IndexError: out of range" in capsys.readouterr().err
    run_here(few, "--out", tmp_path, "--summary", code=2)
    assert [row["state"] for row in table(tmp_path).values()].count("complete") == 3


def test_a_mask_of_another_model_is_not_taken_for_done(few: Path, tmp_path: Path) -> None:
    """A run with another model ends after a mask was written and before its row was."""
    run_here(few, "--out", tmp_path, "--part", "1/1")
    first = files(tmp_path)
    other = read_json(tmp_path / "Case_00-result.json")["method"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("glioslice.cluster.write_json", full_disk)
        run_here(few, "--out", tmp_path, "--part", "1/1", "--model", "nano", code=2)
    assert files(tmp_path) != first
    run_here(few, "--out", tmp_path, "--part", "1/1")
    assert files(tmp_path) == first
    assert read_json(tmp_path / "Case_00-result.json")["method"] == other


def test_threads_of_a_worker_have_engines_of_their_own(few: Path, tmp_path: Path) -> None:
    """As under `dask worker`, which starts a thread per core."""
    options = archive.SegmentOptions(tmp_path, find_model(None).absolute())
    cases = [ArchiveCase(path.name, path) for path in sorted(few.iterdir())] * 3
    one = partial(archive.segment_one, options)
    wanted = [one(case)[1].labels for case in cases]
    with ThreadPoolExecutor(4) as threads:
        found = [made[1].labels for made in threads.map(one, cases)]
    assert all(np.array_equal(*pair) for pair in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--part", "0/0"), "--part 0/0: is not a part such as"),
        (("--dask", "tcp://127.0.0.1:9"), "no Dask scheduler replies at tcp://127.0.0.1:9"),
        (("--dask", "host"), "--dask host: is not an address"),
        (("--part", "1/1", "--model", "huge"), "no model 'huge'"),
        (("--input", "none", "--part", "1/16"), "none: no such folder or file"),
        (("--part", "1/1", "--flair", "f.nii.gz"), "need a folder of cases"),
    ],
)
def test_what_is_refused_is_one_line_and_no_folder_is_made(
    options: tuple[str, ...], expected: str, few: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("glioslice.cluster.CONNECT_TIMEOUT", 0.5)
    run_here(few, "--out", tmp_path / "out", *options, code=2)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and expected in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_no_file_can_be_written(few: Path, tmp_path: Path) -> None:
    """The limit of the process stands for a full disk: every picture is larger."""
    out = tmp_path / "out"
    for options in (("--part", "1/1"), ("--dask",)):
        command = ["prlimit", "--fsize=2000", *SEGMENT, str(few), "--out", str(out), *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "File too large" in done.stderr.splitlines()[-1]
        assert not list(out.glob("*-result.json")) and not list(out.glob(".*"))
    segment(few, "--out", out, "--part", "1/1")
    segment(few, "--out", out, "--summary")


@pytest.mark.parametrize("name", ["", "."])
def test_a_folder_is_no_scheduler(name: str, few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--dask ARCHIVE` names one by mistake, and so does a variable of the shell that is empty."""
    run_here(few, "--dask", name, code=2)
    assert f"'{name}' is not the address of a scheduler" in capsys.readouterr().err


def test_names_that_are_used_twice_and_folders_without_cases(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_here(few, few, "--out", tmp_path / "out", "--part", "1/2", code=2)
    assert "has the name of" in capsys.readouterr().err
    run_here("--out", tmp_path / "out", "--part", "1/2", code=2)
    assert "need a folder of cases" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_that_are_not_utf8_have_a_part_and_a_row(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / os.fsdecode(b"M\xfcller")
    shutil.copytree(next(few.iterdir()), odd / odd.name)
    run_here(odd, "--out", tmp_path / "out", "--part", "1/1")
    run_here(odd, "--out", tmp_path / "out", "--summary")
    assert f"{odd.name}-mask.nii.gz" in os.listdir(tmp_path / "out")
    assert "M\\udcfcller" in (tmp_path / "out" / "summary.csv").read_text()


def test_the_folder_of_the_masks_may_lie_in_the_archive_and_is_no_case(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = Path(shutil.copytree(few, tmp_path / "cases"))
    for part in ("1/2", "2/2", "1/1"):
        run_here(cases, "--out", cases / "masks", "--part", part)
    assert "cases: 4, done before: 4" in capsys.readouterr().out
    run_here(cases, "--out", cases / "masks", "--summary")
    for out in (cases, cases / "Case_00"):
        for options in ((), ("--part", "1/1")):
            run_here(cases, "--out", out, *options, code=2)
            assert "masks in a folder of cases would be taken for one" in capsys.readouterr().err
    assert len(list((cases / "Case_00").iterdir())) == 4


def test_files_of_killed_processes_are_removed_later(few: Path, tmp_path: Path) -> None:
    run_here(few, "--out", tmp_path, "--part", "1/1")
    old, new = tmp_path / ".12-ab-Case_00-mask.nii.gz", tmp_path / ".13-cd-Case_00-mask.nii.gz"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    run_here(few, "--out", tmp_path, "--summary")
    assert not old.exists() and new.exists()  # the other may still be written


@pytest.mark.slow
def test_parts_that_are_killed_at_random_lose_nothing(
    cases: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    """Two processes at a time; each of four parts is killed once, and two overlap them all."""
    command = [*SEGMENT, str(cases), "--out", str(tmp_path)]
    pipe = NarrowPipe(3 * LINE)  # it begins first, and waits until the others have ended
    with subprocess.Popen([*command, "--part", "1/2"], cwd=ROOT, stdout=pipe.writer) as one:
        while not pipe.written:
            time.sleep(0.01)
        assert kill_parts(command, 4, range(2, 5)) == 4
        assert "(16 of 16)" in pipe.read()
    assert one.returncode == 0
    check_summary(cases, tmp_path, wanted)


@pytest.mark.slow
def test_a_dask_worker_that_is_killed_loses_nothing(
    cases: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with scheduler(tmp_path / "dask", 3) as (address, processes):
        command = [*SEGMENT, str(cases), "--out", str(out), "--dask", address]

        def kill() -> None:
            processes[2].kill()
            processes[2].wait()

        done = Counter(case for case, _ in completed(command, 6, kill))
        assert [one.poll() for one in processes] == [None, None, -signal.SIGKILL, None]
    assert done == {f"Case_{number:02}": 1 for number in range(COUNT)}
    check_summary(cases, out, wanted)


@pytest.mark.slow
def test_a_scheduler_that_is_lost_ends_the_command(cases: Path, tmp_path: Path) -> None:
    """Nobody reads the command's warnings until then, so it cannot be done before."""
    pipe = NarrowPipe(WARNINGS)
    with scheduler(tmp_path / "dask", 1) as (address, processes):
        command = [*SEGMENT, str(cases), "--out", str(tmp_path / "out"), "--dask", address]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=pipe.writer, text=True
        ) as process:
            assert process.stdout is not None
            next(line for line in process.stdout if ": complete" in line)
            processes[0].kill()
            errors = pipe.read()
    assert process.returncode == 2, errors
    [line] = beside_warnings(errors)
    assert re.match(r"error: tcp://\S+: the scheduler is lost; ", line)


@pytest.mark.slow
def test_a_scheduler_that_is_lost_with_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has said that a batch is done, and the results are not fetched yet."""
    result = distributed.Future.result
    with scheduler(tmp_path, 1) as (address, processes):

        def too_late(future: Any) -> Any:
            processes[0].kill()
            processes[0].wait()
            return result(future)

        monkeypatch.setattr(distributed.Future, "result", too_late)
        with pytest.raises(GliosliceError, match="the scheduler is lost; run the same command"):
            list(map_on_dask(str, [1], address))


@pytest.mark.slow
def test_ctrl_c_reaches_the_workers_of_this_machine_too(
    cases: Path, wanted: dict[str, bytes], tmp_path: Path
) -> None:
    """Nobody reads its warnings until then, so it cannot be done before Ctrl-C comes."""
    command = [*SEGMENT, str(cases), "--out", str(tmp_path), "--dask"]
    pipe = NarrowPipe(WARNINGS)
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=pipe.writer, text=True,
        start_new_session=True, preexec_fn=restore_signals,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        next(line for line in process.stdout if ": complete" in line)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        errors = pipe.read()
        printed = process.stdout.read()
    assert (process.returncode, beside_warnings(errors)) == (130, ["interrupted"])
    assert "(40 of 40)" not in printed and not list(tmp_path.glob(".*"))
    segment(cases, "--out", tmp_path, "--part", "1/1")
    check_summary(cases, tmp_path, wanted)


def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glioslice.cluster.CONNECT_TIMEOUT", 0.5)
    with pytest.raises(GliosliceError, match=r"no Dask scheduler replies at tcp://127\.0\.0\.1:9"):
        list(map_on_dask(str, [1], "tcp://127.0.0.1:9"))
    with pytest.raises(GliosliceError, match="--dask nonsense://: is not an address"):
        list(map_on_dask(str, [1], "nonsense://"))


@pytest.mark.slow
def test_a_machine_that_can_start_no_workers(few: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*SEGMENT, str(few), "--out", str(tmp_path), "--dask"], cwd=ROOT, text=True,
        capture_output=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)),
    )  # fmt: skip
    assert done.returncode == 2
    assert beside_warnings(done.stderr)[-1].startswith("error: --dask: no workers can be started")
    assert "Traceback" not in done.stderr


def square(number: int) -> int:
    """Stand for a small case; one of them is a bad one."""
    if number == 40:
        raise ValueError("forty")
    return number * number


@pytest.mark.slow
def test_items_of_a_batch_are_reported_once_and_a_bad_one_alone_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two workers, however many cores this machine has: so batches become large."""
    sizes, submit = [], distributed.Client.submit

    def counted(client: Any, function: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(len(arguments[1]))
        return submit(client, function, *arguments, **options)

    monkeypatch.setattr(distributed.Client, "submit", counted)
    with scheduler(tmp_path, 2) as (address, _):
        found = list(map_on_dask(square, range(100), address))
    assert sorted(item for item, _ in found) == list(range(100))
    results = dict(found)
    assert repr(results.pop(40)) == "ValueError('forty')"
    assert all(result == item * item for item, result in results.items())
    assert sizes[0] == 1 and max(sizes) == LARGEST_BATCH  # until it is known how long one takes


@pytest.mark.slow
def test_the_environment_stays_as_it_was() -> None:
    """Dask sets the limits of malloc in it, for its workers."""
    before = dict(os.environ)
    assert list(map_on_dask(square, [3], "local")) == [(3, 9)]
    assert dict(os.environ) == before


def test_dask_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(GliosliceError, match=r"pip install 'glioslice\[cluster\]'"):
        list(map_on_dask(str, [1], "local"))


@pytest.mark.slow
def test_the_slurm_script_does_its_part(few: Path, tmp_path: Path) -> None:
    """Run as Slurm runs it, with its variables."""
    script = ROOT / "examples" / "segment_archive.slurm"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for task in (1, 2):
        variables = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2"}
        command = ["bash", str(script), str(few), str(tmp_path / "out")]
        subprocess.run(command, env={**os.environ, "PATH": path, **variables}, check=True)
    segment(few, "--out", tmp_path / "out", "--summary")
