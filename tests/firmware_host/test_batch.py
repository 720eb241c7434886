"""A folder of cases over one connection: what is done, skipped, and what a bad case costs."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from firmware_host import outputs
from firmware_host import run as run_module
from glioslice.files import write_bytes
from glioslice.wire.messages import BoardHello, HostHello, MaskDigest, Start
from tests.conftest import ROOT
from tests.firmware_host.commands import (
    STREAM_TO_GATED_BOARD,
    left_behind,
    restore_signals,
    spoil_case,
    stream,
)
from tests.firmware_host.conftest import NAMES, Host
from tests.firmware_host.scripted import HELLO, ScriptedBoard

FILES = ["-mask.nii.gz", "-mask.png", "-report.html", "-report.json"]


def serve_all(board: ScriptedBoard, hello: BoardHello = HELLO) -> None:
    """Serve one run after the other: only the first of a session begins with the board's hello."""
    while True:
        board.serve(hello)
        board.open = lambda hello=HELLO: receive_choice(board)  # type: ignore[method-assign]
        board.digest, board.sent, board.failed, board.last = MaskDigest(), 0, 0, None


def receive_choice(board: ScriptedBoard) -> HostHello:
    message = board.receive()
    assert isinstance(message, HostHello)
    return message


StreamFolder = Callable[..., Any]


@pytest.fixture
def stream_folder(host: Host, folder: Path, tmp_path: Path) -> StreamFolder:
    """Return a function that streams the folder to a scripted board."""

    def work(*options: object, behaviour: str = "serve", script: Any = serve_all) -> Any:
        given = ("--input", folder, "--output", tmp_path / "out", *options)
        return host(behaviour, script, *given)

    return work


def made(out: Path) -> dict[str, list[str]]:
    """Return the endings of the files of each case."""
    files: dict[str, list[str]] = {}
    for path in sorted(out.iterdir()):
        name, ending = re.fullmatch(r"(\w+)([-.].*)", path.name).groups()  # type: ignore[union-attr]
        files.setdefault(name, []).append(ending)
    return files


def states(out: Path) -> dict[str, str]:
    with (out / "summary.csv").open() as file:
        return {row["case"]: row["state"] for row in csv.DictReader(file)}


def masks_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}


@pytest.mark.slow
def test_every_case_over_one_session(
    stream_folder: StreamFolder,
    host: Host,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = stream_folder()
    printed = capsys.readouterr()
    out = tmp_path / "out"
    assert ended.code == 0, printed.err
    assert made(out) == {**dict.fromkeys(NAMES, FILES), "summary": [".csv"]}
    assert sum(isinstance(message, Start) for message in ended.board.received) == 3
    for name in NAMES:
        alone = tmp_path / "alone" / f"{name}-mask.nii.gz"
        single = host("serve", lambda b: b.serve(), "--input", folder / name, "--output", alone)
        assert single.code == 0
        assert alone.read_bytes() == (out / alone.name).read_bytes()
    later = nib.Nifti1Image.from_filename(out / "Ben-mask.nii.gz")
    assert np.asarray(later.dataobj).max() == 3  # the labels of its own edition
    head, *rows, last = printed.out.splitlines()
    assert head.split() == [
        "case", "state", "slices", "s", "WT", "mL", "TC", "mL", "ET", "mL",
        "Dice", "WT", "Dice", "TC", "Dice", "ET",
    ]  # fmt: skip
    assert [row.split()[:3] for row in rows] == [[name, "complete", "14"] for name in NAMES]
    assert last == f"table: {out / 'summary.csv'}"
    report = json.loads((out / "Ada-report.json").read_text())
    with (out / "summary.csv").open() as file:
        ada = next(csv.DictReader(file))
    for region in ("WT", "TC", "ET"):
        assert float(ada[f"{region}_ml"]) == report["volumes_ml"][region]
        assert float(ada[f"{region}_dice"]) == report["dice"][region]
    for number, name in enumerate(NAMES, 1):
        assert f"{name}: case {number} of 3" in printed.err


@pytest.mark.slow
def test_finished_cases_are_skipped(
    stream_folder: StreamFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert stream_folder().code == 0
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    (out / "Ben-mask.nii.gz").unlink()
    report = json.loads((out / "Cleo-report.json").read_text())
    (out / "Cleo-report.json").write_text(json.dumps(report | {"complete": False}))
    (out / "Cleo-mask.partial.nii.gz").write_text("of an earlier run")
    (out / "Ada-report.json").unlink()  # a mask without a report is done
    capsys.readouterr()
    ended = stream_folder()
    assert ended.code == 0
    assert sum(isinstance(message, Start) for message in ended.board.received) == 2
    assert states(out) == {"Ada": "done before", "Ben": "complete", "Cleo": "complete"}
    assert (out / "Ada-mask.nii.gz").stat().st_mtime_ns == before[out / "Ada-mask.nii.gz"]
    assert made(out)["Cleo"] == FILES  # the partial mask is gone

    def never(*options: object, **more: object) -> None:
        raise AssertionError("the port was opened")

    monkeypatch.setattr("firmware_host.run.open_port", never)
    from firmware_host import stream as command

    options = ["--port", "x", "--input", str(tmp_path / "cases"), "--output", str(out)]
    command.main(options)  # nothing to do: no board is needed
    printed = capsys.readouterr().out
    assert printed.count("done before") == 1 + 3  # in the run before, and in this
    assert re.search(r"Ben +done before +14 ", printed)  # its numbers are those of its report


@pytest.mark.slow
def test_force_does_all_again(stream_folder: StreamFolder, tmp_path: Path) -> None:
    assert stream_folder().code == 0
    ended = stream_folder("--force")
    assert ended.code == 0
    assert sum(isinstance(message, Start) for message in ended.board.received) == 3
    assert set(states(tmp_path / "out").values()) == {"complete"}


@pytest.mark.parametrize("how", ["missing", "shape", "damaged", "empty", "large"])
def test_a_bad_case_is_reported_and_the_others_are_streamed(
    how: str,
    stream_folder: StreamFolder,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = spoil_case(folder, "Ada", how)  # the first one
    assert stream_folder().code == 2
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert sum(line.startswith("Ada: ") and expected in line for line in lines) == 1
    assert lines[-1] == "error: 1 of 3 cases failed; see the table"
    assert states(tmp_path / "out") == {"Ada": "failed", "Ben": "complete", "Cleo": "complete"}
    assert "Ada" not in made(tmp_path / "out")
    assert re.search(r"^Ada +failed +- +- ", printed.out, re.M)
    assert "Traceback" not in printed.err


@pytest.mark.slow
def test_slices_that_fail_make_a_bad_case(
    stream_folder: StreamFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail_once(board: ScriptedBoard) -> None:
        end = board.end

        def end_well() -> None:
            end()
            board.behaviour = "serve"

        board.behaviour, board.end = "fail", end_well  # type: ignore[method-assign]
        serve_all(board)

    assert stream_folder(script=fail_once).code == 2
    printed = capsys.readouterr()
    assert "Ada: the board failed on slices 6, 13 of the case" in printed.err
    assert "12 of 14 masks are kept in" in printed.err
    out = tmp_path / "out"
    assert states(out) == {"Ada": "failed", "Ben": "complete", "Cleo": "complete"}
    assert made(out)["Ada"] == ["-mask.partial.nii.gz", "-report.html", "-report.json"]


@pytest.mark.slow
def test_a_lost_link_ends_the_batch_and_the_next_run_continues(
    stream_folder: StreamFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop_in_the_second(board: ScriptedBoard) -> None:
        board.serve()
        board.open = lambda hello=HELLO: receive_choice(board)  # type: ignore[method-assign]
        board.digest, board.sent, board.last = MaskDigest(), 0, None
        send_mask = board.send_mask

        def limited(index: int, codec: int, mask: Any) -> None:
            if index == 5:
                board.connection.flush(60.0)
                board.connection.close()
            send_mask(index, codec, mask)

        board.send_mask = limited  # type: ignore[method-assign]
        board.serve()

    out = tmp_path / "out"
    assert stream_folder(script=stop_in_the_second).code == 2
    printed = capsys.readouterr()
    assert "5 of 14 masks are kept" in printed.err.splitlines()[-1]
    assert states(out) == {"Ada": "complete", "Ben": "ended", "Cleo": "waiting"}
    assert made(out)["Ben"] == ["-mask.partial.nii.gz", "-report.html", "-report.json"]
    first = (out / "Ada-mask.nii.gz").stat().st_mtime_ns
    assert stream_folder().code == 0
    assert states(out) == {"Ada": "done before", "Ben": "complete", "Cleo": "complete"}
    assert (out / "Ada-mask.nii.gz").stat().st_mtime_ns == first
    assert made(out)["Ben"] == FILES


def test_only_the_first_run_of_a_session_can_be_resumed(
    stream_folder: StreamFolder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A case that cannot be read does not start a run."""
    spoil_case(folder, "Ada", "missing")
    hello, start, resumable = replace(HELLO, kept=7, answered=3), run_module.start_stream, []

    def noted(line: Any, hello: BoardHello, *options: Any) -> run_module.StreamJob:
        resumable.append((hello.kept, hello.answered))
        return start(line, hello, *options)

    monkeypatch.setattr(run_module, "start_stream", noted)
    assert stream_folder(script=lambda board: serve_all(board, hello)).code == 2
    assert resumable == [(7, 3), (0, 0)]


def test_masks_that_cannot_be_trusted_leave_nothing_of_that_case(
    stream_folder: StreamFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stream_folder(behaviour="lie").code == 2
    assert states(tmp_path / "out") == dict.fromkeys(NAMES, "failed")
    assert made(tmp_path / "out") == {"summary": [".csv"]}
    assert capsys.readouterr().err.count("their digest differs") == 3


@pytest.mark.slow
def test_outputs_that_cannot_be_made_do_not_end_the_batch(
    stream_folder: StreamFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def render(*arguments: Any) -> str:
        if arguments[1].name == "Ben":
            raise ZeroDivisionError("a defect")
        return "a report"

    monkeypatch.setattr(outputs, "render_html", render)
    assert stream_folder().code == 2
    printed = capsys.readouterr().err
    assert "Ben: unexpected ZeroDivisionError" in printed and "Traceback" not in printed
    out = tmp_path / "out"
    assert states(out) == {"Ada": "complete", "Ben": "failed", "Cleo": "complete"}
    assert (out / "Ben-mask.partial.nii.gz").exists() and not (out / "Ben-mask.nii.gz").exists()


@pytest.mark.slow
def test_a_mask_that_could_not_be_replaced_is_not_taken_for_done(
    stream_folder: StreamFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report of a run with --force is complete, and the mask beside it an older one."""
    assert stream_folder().code == 0

    def full(path: Path, *_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(outputs, "write_mask", full)
    assert stream_folder("--force").code == 2
    monkeypatch.undo()
    assert stream_folder().code == 0
    assert states(tmp_path / "out") == {
        "Ada": "complete",
        "Ben": "done before",
        "Cleo": "done before",
    }


@pytest.mark.slow
def test_a_full_disk_ends_the_batch(
    stream_folder: StreamFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name.startswith("Ben"):
            raise OSError(28, "No space left on device", str(path))
        write_bytes(path, content)

    monkeypatch.setattr(outputs, "write_bytes", full)
    assert stream_folder().code == 2
    assert "Ben-mask.png: No space left on device" in capsys.readouterr().err.splitlines()[-1]
    out = tmp_path / "out"
    assert states(out) == {"Ada": "complete", "Ben": "ended", "Cleo": "waiting"}
    assert "Cleo" not in made(out)


def test_an_unknown_model_is_refused_before_the_first_case(
    host: Host, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--input", folder, "--output", tmp_path / "out")
    ended = host("serve", lambda board: board.serve(), *options, allow=False)
    assert ended.code == 2 and ended.board.received == []
    assert states(tmp_path / "out") == dict.fromkeys(NAMES, "waiting")
    assert "--allow-model" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_an_output_folder_among_the_cases_is_not_a_case(
    stream_folder: StreamFolder, host: Host, folder: Path
) -> None:
    options = ("--input", folder, "--output", folder / "masks")
    assert host("serve", serve_all, *options).code == 0
    assert host("serve", serve_all, *options, "--force").code == 0
    assert states(folder / "masks") == dict.fromkeys(NAMES, "complete")


def test_json_events_of_every_case(
    stream_folder: StreamFolder, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_case(folder, "Ada", "missing")
    assert stream_folder("--json").code == 2
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    cases = {event["case"]: event["state"] for event in events if event["event"] == "case"}
    assert cases == {"Ada": "failed", "Ben": "complete", "Cleo": "complete"}
    *_, table, end = events
    assert (table["event"], end["event"], end["state"]) == ("table", "end", "failed")
    assert [row["state"] for row in table["cases"]] == ["failed", "complete", "complete"]
    assert table["cases"][1]["slices"] == 14


@pytest.mark.slow
def test_the_real_device_gives_the_masks_of_single_runs(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "notes")
    out = tmp_path / "out"
    done = stream("--port", "sim://?baud=921600&errors=1e-5", "--input", folder, "--output", out)
    assert done.returncode == 0, done.stderr
    assert states(out) == dict.fromkeys(NAMES, "complete")
    for name in NAMES:
        alone = tmp_path / f"{name}-mask.nii.gz"
        options = ("--port", "sim://?baud=4000000", "--input", folder / name, "--output", alone)
        assert stream(*options).returncode == 0
        assert alone.read_bytes() == (out / alone.name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_batch_continues(
    number: signal.Signals, folder: Path, tmp_path: Path
) -> None:
    """The board waits in the midst of the second case until the signal is sent."""
    out, gate = tmp_path / "out", tmp_path / "go"
    options = ["--port", "sim://?baud=4000000", "--input", str(folder), "--output", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", STREAM_TO_GATED_BOARD, str(gate), "20", *options], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=restore_signals,
    )  # fmt: skip
    assert process.stderr
    for line in process.stderr:
        if line.startswith("segmenting Ben: "):
            break
    process.send_signal(number)
    gate.touch()
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert re.search(r"^interrupted; \d+ of 14 masks are kept in .*Ben-mask\.partial", errors, re.M)
    assert "Traceback" not in errors
    assert states(out) == {"Ada": "complete", "Ben": "ended", "Cleo": "waiting"}
    assert re.search(r"^Cleo +waiting ", printed, re.M)
    assert left_behind(tmp_path) == []
    assert stream(*options).returncode == 0
    assert states(out) == {"Ada": "done before", "Ben": "complete", "Cleo": "complete"}
    assert made(out) == {**dict.fromkeys(NAMES, FILES), "summary": [".csv"]}


@pytest.mark.slow
def test_names_that_are_not_utf8_are_written(
    stream_folder: StreamFolder, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(b"M\xfcller")
    (folder / "Cleo").rename(folder / odd)
    assert stream_folder().code == 0, capsys.readouterr().err
    out = tmp_path / "out"
    for ending in FILES:
        assert (out / f"{odd}{ending}").is_file()
    assert states(out) == {"Ada": "complete", "Ben": "complete", "M\\udcfcller": "complete"}
    assert json.loads((out / f"{odd}-report.json").read_text())["case"] == odd
