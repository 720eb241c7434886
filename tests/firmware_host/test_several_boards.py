"""Several boards on one host: who takes which case, what is given back, and what is refused."""

import argparse
import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benchmarks.scale_runs import children_of, stream_and_kill
from firmware_host import batch, handshake, outputs, pooled_cases, stream
from firmware_host.batch import CasePlan
from firmware_host.board_pool import Task, TaskQueue
from firmware_host.board_table import BoardRow, format_boards
from firmware_host.options import parse_options
from firmware_host.outputs import OutputPaths
from firmware_host.pooled_cases import READ_AHEAD, CaseReader, find_boards
from firmware_host.progress import JsonReporter
from firmware_host.shared_case import spans
from glioslice.cases import Case
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from tests.conftest import ROOT
from tests.firmware_host.commands import (
    STREAM,
    STREAM_TO_GATED_BOARD,
    left_behind,
    list_processes,
    restore_signals,
    write_small_cases,
)

CASES = 12
LINE = "sim://?baud=921600"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small cases."""
    return write_small_cases(tmp_path_factory.mktemp("cases") / "cases", CASES, 4)


@pytest.fixture(scope="module")
def few(cases: Path) -> Path:
    """The first five of them."""
    folder = cases.with_name("few")
    for case in sorted(cases.iterdir())[:5]:
        shutil.copytree(case, folder / case.name)
    return folder


@pytest.fixture(scope="module")
def alone(cases: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The masks of a run with one board."""
    out = tmp_path_factory.mktemp("alone")
    run(cases, "--port", LINE, "--output", out)
    return masks(out)


def run(cases: Path, *options: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [*STREAM, str(cases), *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    return done


def masks(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*-mask.nii.gz")}


def states(out: Path) -> dict[str, str]:
    with (out / "summary.csv").open() as file:
        return {row["case"]: row["state"] for row in csv.DictReader(file)}


def test_a_task_that_was_given_back_goes_to_another_board() -> None:
    queue: TaskQueue[int] = TaskQueue()
    for board in ("a", "b"):
        queue.connect(board)
    queue.open([Task("one", 1), Task("two", 2)])
    first = queue.take("a")
    assert first is not None and first.name == "one"
    queue.give_back(first, "a")
    second = queue.take("a")  # not the one on which it failed
    assert second is not None and second.name == "two"
    assert queue.take("b") is first
    queue.give_back(first, "b")
    queue.disconnect("b")
    queue.give_back(second, "a")
    assert queue.take("a") is second  # nobody else is left, so it tries again
    queue.finish()
    assert queue.take("a") is first and not queue.over
    queue.finish()
    assert queue.over and queue.take("a") is None


def test_an_idle_board_waits_for_what_others_may_give_back() -> None:
    queue: TaskQueue[int] = TaskQueue()
    queue.connect("a")
    queue.connect("b")
    queue.open([Task("one", 1)])
    task = queue.take("a")
    taken: list[Task[int] | None] = []
    idle = threading.Thread(target=lambda: taken.append(queue.take("b")))
    idle.start()
    idle.join(0.1)
    assert idle.is_alive() and task is not None
    queue.give_back(task, "a")
    idle.join(60)
    assert taken == [task]
    queue.stop()
    assert queue.take("a") is None


def test_cases_are_read_ahead_in_order_and_few_at_a_time(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = parse_options([str(cases), "--port", LINE, "--boards", "2"])
    plans = batch.plan_cases(arguments, tmp_path)
    begun: list[str] = []
    read_planned = batch.read_planned

    def counted(plan: CasePlan, arguments: argparse.Namespace) -> Case:
        begun.append(plan.name)
        return read_planned(plan, arguments)

    monkeypatch.setattr(batch, "read_planned", counted)
    monkeypatch.setattr(pooled_cases, "READERS", 1)  # so that they begin in order
    names = [plan.name for plan in plans]
    with CaseReader(plans, arguments) as reader:
        assert reader.read(plans[0]).name == names[0]
        assert reader.read(plans[2]).name == names[2]
        assert reader.read(plans[0]).name == names[0]  # it was given back
    ahead = set(begun) - {names[0], names[2]}
    assert ahead <= {*names[1 : 3 + READ_AHEAD]} and begun.count(names[0]) == 2
    assert begun[:3] == names[:3] and max(Counter(begun[1:]).values()) == 1
    broken = replace(plans[1], path=tmp_path / "nowhere")
    with CaseReader([broken], arguments) as reader, pytest.raises(GliosliceError, match="nowhere"):
        reader.read(broken)


@pytest.mark.slow
def test_the_link_is_not_idle_while_files_are_written(
    few: Path, alone: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write, report, begun = outputs.write_outputs, JsonReporter.event, threading.Event()

    def noted(reporter: JsonReporter, kind: str, **content: Any) -> None:
        report(reporter, kind, **content)
        if (kind, content.get("case")) == ("start", "Case_01"):
            begun.set()

    def slowly(*content: Any) -> list[str]:
        begun.wait(60)
        time.sleep(1.5)  # long enough for Case_01 to end
        return write(*content)

    monkeypatch.setattr(JsonReporter, "event", noted)
    monkeypatch.setattr(outputs, "write_outputs", slowly)
    options = (few, "--port", LINE, "--boards", 1, "--output", tmp_path, "--json")
    stream.main([str(option) for option in options])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    order = [(one["event"], one["case"]) for one in events if one["event"] in ("start", "case")]
    assert order.index(("start", "Case_01")) < order.index(("case", "Case_00"))
    assert order.index(("case", "Case_00")) < order.index(("start", "Case_02"))  # two at most
    assert masks(tmp_path) == {name: alone[name] for name in masks_of_few(few)}


@pytest.mark.parametrize(("slices", "boards"), [(1, 4), (140, 4), (155, 10), (7, 1)])
def test_spans_cover_every_slice_once(slices: int, boards: int) -> None:
    found = spans(slices, boards)
    assert [z for first, stop in found for z in range(first, stop)] == list(range(slices))
    sizes = [stop - first for first, stop in found]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.slow
def test_boards_that_are_killed_lose_no_case(
    cases: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    """Four boards, of which one is killed after every second case."""
    events, kills = stream_and_kill(cases, tmp_path, 2, "--port", "sim://?baud=115200")
    assert kills >= 4
    ended = Counter(event["case"] for event in events if event["event"] == "case")
    assert set(ended) == {path.name for path in cases.iterdir()}  # none lost
    assert set(ended.values()) == {1}  # none double
    assert set(states(tmp_path).values()) == {"complete"}
    assert masks(tmp_path) == alone
    assert not list(tmp_path.glob("*.partial*")) and not list(tmp_path.glob(".*"))
    *_, boards, table, end = (e for e in events if e["event"] in ("boards", "table", "end"))
    rows = boards["boards"]
    assert sum(row["finished"] for row in rows) == CASES
    assert sum(row["returned"] for row in rows) == sum(e["event"] == "returned" for e in events)
    assert len(table["cases"]) == CASES and end["state"] == "complete"


@pytest.mark.slow
def test_one_case_on_several_boards_has_the_same_mask(
    cases: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    case = cases / "Case_07"
    mask, report = tmp_path / "m.nii.gz", tmp_path / "r.json"
    given = ("--boards", 3, "--share-case", "--output", mask, "--report", report)
    done = run(case, "--port", LINE, *given)
    assert mask.read_bytes() == alone["Case_07-mask.nii.gz"]
    found = json.loads(report.read_text())
    assert found["complete"] is True and found["masks"] == found["slices"] == 4
    assert all(re.search(rf"^sim-{n} +finished", done.stdout, re.M) for n in (1, 2, 3))


@pytest.mark.slow
def test_a_full_disk_after_a_shared_case_keeps_its_masks(
    cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(outputs, "write_bytes", full)  # the montage, the first file
    given = ("--boards", 2, "--share-case", "--output", tmp_path / "m.nii.gz", "--json")
    with pytest.raises(SystemExit, match="2"):
        stream.main([str(option) for option in (cases / "Case_07", "--port", LINE, *given)])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    [ended] = [event for event in events if event["event"] == "case"]
    assert ended["state"] == "failed" and "4 of 4 masks are kept" in ended["error"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.partial.nii.gz"]


@pytest.mark.slow
def test_a_board_that_is_lost_while_files_are_written_loses_no_case(
    few: Path, alone: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write, first, killed = outputs.write_outputs, threading.Lock(), threading.Event()

    def slowly(paths: OutputPaths, *content: Any) -> list[str]:
        if not first.acquire(blocking=False):
            killed.wait()  # so that a case is left: no board begins its third before
        else:
            for board in children_of(os.getpid()):
                with suppress(ProcessLookupError):  # the command that lists them is one
                    os.kill(board, signal.SIGKILL)
            killed.set()
            time.sleep(2)
        return write(paths, *content)

    monkeypatch.setattr(outputs, "write_outputs", slowly)
    options = (few, "--port", LINE, "--boards", 2, "--output", tmp_path, "--json")
    stream.main([str(option) for option in options])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ended = Counter(event["case"] for event in events if event["event"] == "case")
    assert set(ended.values()) == {1} and set(states(tmp_path).values()) == {"complete"}
    assert any(event["event"] == "returned" for event in events)
    assert masks(tmp_path) == {name: alone[name] for name in masks_of_few(few)}


WARM_BOARD = """
import runpy
from device import telemetry
telemetry.read_temperature = lambda: 52.0
runpy.run_module("device", run_name="__main__", alter_sys=True)
"""


def warm_board(arguments: argparse.Namespace) -> list[str]:
    """A board with a thermometer."""
    python, _, _, *options = handshake.device_command(arguments.model, arguments.baud)
    return [python, "-c", WARM_BOARD, *options]


@pytest.mark.slow
def test_the_table_has_the_temperature_of_a_board_that_sends_it(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (few, "--port", LINE, "--boards", 2, "--output", tmp_path)
    stream.main([*map(str, options), "--json"], warm_board)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    boards = [event["boards"] for event in events if event["event"] == "boards"][-1]
    assert [board["temperature_c"] for board in boards] == [52.0, 52.0]
    rows = [BoardRow(**board) for board in boards]
    assert all("  52 °C  " in line for line in format_boards(rows)[1:])
    assert "  -  " in format_boards([replace(rows[0], temperature_c=None)])[1]


def masks_of_few(few: Path) -> list[str]:
    return [f"{path.name}-mask.nii.gz" for path in few.iterdir()]


def board_command(tmp_path: Path, first: str, others: str) -> Callable[[object], list[str]]:
    """Return the far end of which the first board runs one command and the others another."""
    script = f"mkdir {shlex.quote(str(tmp_path / 'first'))} 2>/dev/null && {first} || {others}"
    return lambda arguments: ["sh", "-c", script.replace("PYTHON", sys.executable)]


def refused(capsys: pytest.CaptureFixture[str], *options: object, far_end: object = None) -> str:
    with pytest.raises(SystemExit) as end:
        stream.main([str(option) for option in options], far_end)  # type: ignore[arg-type]
    printed = capsys.readouterr()
    assert end.value.code == 2 and "Traceback" not in printed.err
    return printed.err.splitlines()[-1]


SERVE = "exec PYTHON -m device --quiet --port {port} --model"


@pytest.mark.slow
def test_boards_with_different_models_are_refused(
    few: Path, alone: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    far_end = board_command(tmp_path, f"{SERVE} nano", f"{SERVE} compact")
    out = tmp_path / "out"
    options = (few, "--port", LINE, "--boards", 2, "--output", out)
    line = refused(capsys, *options, far_end=far_end)
    assert "different models" in line and "--allow-mixed" in line
    assert [path.name for path in out.iterdir()] == ["summary.csv"]
    (tmp_path / "first").rmdir()
    stream.main([*map(str, options), "--allow-mixed"], far_end)
    assert set(states(out).values()) == {"complete"}


@pytest.mark.slow
def test_boards_that_never_reply_are_named_and_the_others_work(
    few: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = run(few, "--port", "/dev/ttyNONE7", "--port", LINE, "--output", out)
    assert "warning: /dev/ttyNONE7: " in done.stderr and "going on without it" in done.stderr
    assert masks(out) == {name: alone[name] for name in masks_of_few(few)}
    done = run(few, "--port", "/dev/ttyNONE7", "--port", "/dev/ttyNONE8", "--force", code=2)
    assert done.stderr.count("no board replies") == 1


@pytest.mark.slow
def test_a_full_disk_ends_the_pool_and_keeps_what_is_done(
    few: Path, alone: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(path: Path, content: bytes) -> None:
        if path.name.startswith("Case_02"):
            raise OSError(28, "No space left on device", str(path))
        write_bytes(path, content)

    monkeypatch.setattr(outputs, "write_bytes", full)
    options = (few, "--port", LINE, "--boards", 2, "--output", tmp_path)
    assert "No space left on device" in refused(capsys, *options)
    found = states(tmp_path)
    assert found["Case_02"] == "ended" and "complete" in found.values()
    check_interrupted(tmp_path, alone)
    monkeypatch.undo()
    stream.main([str(option) for option in options])
    assert set(states(tmp_path).values()) == {"complete", "done before"}
    assert masks(tmp_path) == {name: alone[name] for name in masks_of_few(few)}


@pytest.mark.slow
def test_no_file_can_be_written(few: Path, tmp_path: Path) -> None:
    """The limit of the process stands for a full disk: every report is larger."""
    command = ["prlimit", "--fsize=2000", *STREAM, str(few), "--port", LINE, "--boards", "2"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "File too large" in done.stderr.splitlines()[-1]
    assert masks(tmp_path / "out") == {} and not list((tmp_path / "out").glob(".*"))


@pytest.mark.slow
def test_a_held_ctrl_c_keeps_what_arrived_and_the_pool_continues(
    few: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    """Each of the two boards waits within its second case until the signals are sent."""
    out, gate = tmp_path / "out", tmp_path / "go"
    options = [str(few), "--port", LINE, "--boards", "2", "--output", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-c", STREAM_TO_GATED_BOARD, str(gate), "6", *options], cwd=ROOT,
        stderr=subprocess.PIPE, text=True, preexec_fn=restore_signals,
    )  # fmt: skip
    assert process.stderr is not None
    next(line for line in process.stderr if ": complete on" in line)
    children = children_of(process.pid)
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    gate.touch()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and len(children) == 2
    assert "interrupted; what is finished is kept" in errors
    assert not [p for p in list_processes() if int(p.split()[0]) in children]
    assert left_behind(tmp_path) == []
    check_interrupted(out, alone)
    run(few, "--port", LINE, "--boards", "2", "--output", out)
    assert masks(out) == {name: alone[name] for name in masks_of_few(few)}


def check_interrupted(out: Path, alone: dict[str, bytes]) -> None:
    """Every complete case has its mask, and no other; what was begun is partial or not there."""
    found = states(out)
    assert set(found.values()) <= {"complete", "ended", "waiting"}
    complete = [f"{case}-mask.nii.gz" for case, state in found.items() if state == "complete"]
    kept = {name: mask for name, mask in masks(out).items() if ".partial" not in name}
    assert kept == {name: alone[name] for name in complete}
    partial = {path.name.split("-")[0] for path in out.glob("*.partial.nii.gz")}
    assert partial <= {case for case, state in found.items() if state == "ended"}
    assert not list(out.glob(".*"))


class Moment:
    """Counts the lines that the main thread runs in a pool; signals at line `at` and two others.

    A line that is repeated counts once: how often the main thread looks depends on the machine.
    """

    FILES = ("board_pool.py", "pooled_cases.py", "batch.py", "board_table.py")

    def __init__(self, at: int | None) -> None:
        self.at, self.lines = at, 0
        self.seen: set[tuple[object, int]] = set()

    def trace(self, frame: FrameType, event: str, _value: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.endswith(self.FILES):
            return None
        if frame.f_code is pooled_cases._run_pool.__code__ and event == "call":
            self.lines = 1
        place = (frame.f_code, frame.f_lineno)
        if self.lines and event == "line" and place not in self.seen:
            self.seen.add(place)
            self.lines += 1
            if self.at is not None and self.lines in (self.at, self.at + 1, self.at + 9):
                os.kill(os.getpid(), signal.SIGINT)
        return self.trace


@pytest.mark.slow
def test_three_signals_at_any_line_of_a_pool(
    few: Path, alone: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ends: list[str | int | None] = []
    lines = 0
    for part in (None, 0.05, 0.2, 0.6, 0.95):
        moment, out = Moment(None if part is None else int(part * lines)), tmp_path / str(part)
        options = (few, "--port", LINE, "--boards", 2, "--output", out)
        sys.settrace(moment.trace)
        try:
            stream.main([str(option) for option in options])
            ends.append(0)
        except SystemExit as end:
            ends.append(end.code)
        finally:
            sys.settrace(None)
        lines = lines or moment.lines
        assert "Traceback" not in capsys.readouterr().err
        assert len(states(out)) == 5
        check_interrupted(out, alone)
    assert ends == [0, 130, 130, 130, 130]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--port", "/dev/null", "--port", "/dev/null"), "named twice"),
        (("--port", "/dev/null", "--port", "LINK"), "which is also /dev/null"),
        (("--port", "auto", "--port", "/dev/null"), "finds the ports itself"),
        (("--port", LINE, "--boards", "all"), "number of simulated boards"),
        (("--port", "/dev/null", "--boards", "2"), "only 1, at /dev/null"),
        (("--port", LINE, "--boards", "2", "--share-case"), "not for a folder"),
        (("--port", LINE, "--boards", "2", "--play"), "for one board"),
        (("--port", LINE, "--boards", "many"), "not all, a number"),
        (("--port", LINE, "--boards", "0"), "not all, a number"),
        (("--port", LINE, "--share-case"), "for several boards"),
        (("--boards", "none.toml"), "no such file"),
    ],
)
def test_what_does_not_go_together(
    options: tuple[str, ...], expected: str, cases: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "link").symlink_to("/dev/null")
    given = [option.replace("LINK", str(tmp_path / "link")) for option in options]
    assert expected in refused(capsys, cases, "--output", tmp_path / "out", *given)
    assert not (tmp_path / "out").exists()


def test_the_page_lists_what_json_has_of_a_board() -> None:
    page = (ROOT / "docs" / "host.md").read_text(encoding="utf-8")
    [line] = [line for line in page.splitlines() if line.startswith("| `boards` |")]
    assert set(re.findall(r"`(\w+)`", line)) - {"boards"} == {f.name for f in fields(BoardRow)}


def test_an_inventory_names_the_boards_and_their_ports(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(
        "[[board]]\nname = 'ben'\nhost_port = '/dev/null'\n"
        "[[board]]\nname = 'ada'\nhost_port = '/dev/zero'\n"
    )
    found = find_boards(argparse.Namespace(ports=[], boards=str(path)))
    assert [(one.name, one.port) for one in found] == [("ben", "/dev/null"), ("ada", "/dev/zero")]
    with pytest.raises(GliosliceError, match="holds the ports"):
        find_boards(argparse.Namespace(ports=["/dev/null"], boards=str(path)))
    path.write_text("[[board]]\nname = 'ada'\naddress = 'pi@ada.local'\n")
    with pytest.raises(GliosliceError, match="'ada' has no host_port"):
        find_boards(argparse.Namespace(ports=[], boards=str(path)))


def test_one_case_without_sharing_needs_one_board(
    cases: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, cases / "Case_00", "--port", LINE, "--boards", 2)
    assert "--share-case" in line
