"""How a run is reported: on a terminal, in a log, as JSON, and not at all."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from firmware_host import progress
from glioslice.cli import is_due, track
from tests.conftest import ROOT, Write
from tests.firmware_host.commands import STREAM_TO_SCRIPTED_BOARD, left_behind, restore_signals
from tests.firmware_host.conftest import Host
from tests.firmware_host.scripted import SHA256, STEPS, serve

NUMBERS: dict[str, Any] = {
    "slices": 140, "slices_per_second": 12.345, "seconds_left": 65.4, "retransmits": 3,
    "volumes_ml": {"WT": 12.34, "TC": 5.6, "ET": 0.07},
    "device_ms": {"p50": 5.12, "p90": 6.5, "p99": 9.0},
    "link": {"baud": 921600, "up": 30000, "down": 900, "use": 0.33}, "failed": [],
}  # fmt: skip


def rendered(settled: int = 70, **other: Any) -> list[str]:
    from rich.console import Console

    file = io.StringIO()
    numbers = {**NUMBERS, **other}
    Console(file=file, width=110).print(progress.render_status("segmenting it", settled, numbers))
    return file.getvalue().splitlines()


def test_the_display() -> None:
    first, second, third = rendered()
    assert first.startswith("segmenting it  \N{BOX DRAWINGS HEAVY HORIZONTAL}")
    assert first.rstrip().endswith("70/140  12.3 slices/s  1:05 left")
    for expected in (
        "5.1 ms per slice",
        "90 % under 6.5",
        "921,600 baud, 33% in use",
        "retransmitted 3",
    ):
        assert expected in second
    assert "failed" not in second
    for expected in ("WT 12.3 mL", "TC 5.6 mL", "ET 0.1 mL"):
        assert expected in third


def test_the_display_before_the_first_mask_without_a_rate() -> None:
    nothing = dict.fromkeys(("p50", "p90", "p99"))
    link = {"baud": None, "up": 3000, "down": 90, "use": None}
    first, second, _ = rendered(0, seconds_left=None, device_ms=nothing, link=link, failed=[3, 4])
    assert "-:-- left" in first
    assert "device -   link 3.1 kB/s   retransmitted 3   failed 2" in second


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_gets_no_more_than_six_lines(width: int) -> None:
    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=width).print(progress.render_status("segmenting it", 70, NUMBERS))
    lines = file.getvalue().splitlines()
    assert len(lines) <= 6 and all(len(line) <= width for line in lines)


class Screen:
    """A command whose stderr is a terminal, as a person sees it."""

    def __init__(self, behaviour: str, case: Path, out: Path) -> None:
        near, far = pty.openpty()
        options = ["--port", "sim://?baud=4000000", "--input", case, "--allow-model", SHA256]
        options += ["--output", out / "m.nii.gz"]
        self.near, self.drawn = near, b""
        command = [sys.executable, "-c", STREAM_TO_SCRIPTED_BOARD]
        self.process = subprocess.Popen(
            [*command, behaviour, str(out), *map(str, options)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=far, preexec_fn=restore_signals,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "30"},
        )  # fmt: skip
        os.close(far)

    def read(self, until: bytes | None, seconds: float = 120) -> None:
        """Take in what is drawn until it matches `until`, or the command ends."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (until is None or not re.search(until, self.drawn)):
            if select.select([self.near], [], [], 0.2)[0]:
                try:
                    self.drawn += os.read(self.near, 65536)
                except OSError:  # Linux: its other end is closed
                    return
        assert until is None or re.search(until, self.drawn), self.drawn

    def end(self) -> bytes:
        """Return what the command wrote to stdout; its end has come."""
        self.read(None)
        assert self.process.stdout
        printed = self.process.stdout.read()
        self.process.wait(60)
        os.close(self.near)
        return printed


@pytest.mark.slow
def test_a_run_on_a_real_terminal(write_case: Write, tmp_path: Path) -> None:
    """The board goes on once its masks are shown, so every machine shows some numbers."""
    began, steps = time.monotonic(), tmp_path / "steps"
    steps.mkdir()
    screen = Screen(f"steps:{steps}", write_case(), tmp_path / "out")
    for number in STEPS:
        screen.read(rb" %d/14 " % number)
        (steps / str(number)).touch()
    printed = screen.end()
    seconds = time.monotonic() - began
    assert screen.process.returncode == 0, screen.drawn
    text = screen.drawn.decode()
    for expected in ("14/14", "slices/s", "0:00 left", "ms per slice", "WT"):
        assert expected in text
    assert re.search(r"\d,?\d00 baud", text)  # which one depends on how busy the machine is
    assert (
        b"mask: " in printed and b"\x1b" not in printed
    )  # stdout is a pipe: nothing is drawn there
    assert text.count("segmenting Case_1") <= (progress.REDRAWS + 1) * seconds
    assert {*re.findall(r"(\d+)/14 ", text)} >= {*map(str, STEPS), "14"}  # it moved
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert "Traceback" not in text


@pytest.mark.slow
def test_ctrl_c_leaves_the_terminal_as_it_was(write_case: Write, tmp_path: Path) -> None:
    screen = Screen(f"gate:{tmp_path / 'never'}", write_case(), tmp_path / "out")
    screen.read(rb" [34]/14 ")  # the display is drawn a few times a second, not for each slice
    screen.process.send_signal(signal.SIGINT)
    screen.end()
    text = screen.drawn.decode()
    assert screen.process.returncode == 130, text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")
    assert re.search(r"interrupted; \d+ of 14 masks are kept in", text)
    assert "Traceback" not in text
    assert left_behind(tmp_path / "out") == []


def test_plain_lines_elsewhere(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host("serve", serve, "--input", write_case(), "--output", tmp_path / "m.nii").code == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "segmenting" in line]
    form = r"segmenting Case_1: (\d+) of 14, \d+\.\d slices/s, \d:\d\d left, WT \d.*ET \d+\.\d mL"
    found = [re.fullmatch(form, line) for line in lines]
    assert [match and match[1] for match in found] == ["3", "6", "9", "12", "14"]


def test_a_terminal_without_rich(
    host: Host, write_case: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setitem(sys.modules, "rich", None)
    assert host("serve", serve, "--input", write_case(), "--output", tmp_path / "m.nii").code == 0
    assert "segmenting Case_1: 14 of 14" in screen.getvalue()


def test_a_log_gets_a_line_when_several_slices_arrive_at_once() -> None:
    """One message may bring several slices."""
    assert [is_due(*steps, 20) for steps in ((0, 4), (4, 5), (5, 9), (9, 17), (17, 20))] == [
        False, True, False, True, True,
    ]  # fmt: skip
    assert is_due(19, 20, 20) and not is_due(20, 20, 20)
    assert is_due(0, 1, 1)


def test_other_long_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(list(range(9)), "counting")) == list(range(9))
    printed = capsys.readouterr().err.splitlines()
    assert printed == [f"counting: {done} of 9" for done in (2, 4, 6, 8, 9)]


def events_and_errors(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, Any]], str]:
    """Return the objects on stdout, and what stands on stderr."""
    printed = capsys.readouterr()
    return [json.loads(line) for line in printed.out.splitlines()], printed.err


@pytest.mark.slow
def test_json_events_and_nothing_else(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.nii.gz"
    options = ("--output", out, "--report", tmp_path / "r.json", "--json")
    began = time.monotonic()
    assert host("slow", serve, "--input", write_case(), *options).code == 0
    seconds = time.monotonic() - began
    events, errors = events_and_errors(capsys)
    events = [event for event in events if event["event"] != "log"]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "start" and kinds[-2:] == ["case", "end"]
    assert set(kinds[1:-2]) == {"progress"}
    # Two a second and the last: over the two seconds of the board not one a slice.
    assert 3 <= kinds.count("progress") <= seconds / progress.EVENT_INTERVAL + 1
    assert (events[0]["case"], events[0]["slices"]) == ("Case_1", 14)
    assert events[0]["model"] == {"name": "rule", "sha256": SHA256}
    masks = [event["masks"] for event in events if event["event"] == "progress"]
    assert masks == sorted(masks) and masks[-1] == 14
    for key in ("slices_per_second", "device_ms", "link", "retransmits", "volumes_ml",
                "seconds_left"):  # fmt: skip
        assert key in events[1]
    last = events[-2]
    assert (last["state"], last["error"]) == ("complete", None)
    assert last["files"] == [str(out), str(tmp_path / "m.png"), str(tmp_path / "r.json")]
    report = json.loads((tmp_path / "r.json").read_text())
    assert {k: v for k, v in report.items() if k in last["report"]} == last["report"]
    assert events[-1] == {"event": "end", "state": "complete", "error": None}
    assert errors == ""


@pytest.mark.slow
def test_warnings_are_json_events_too(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--input", write_case(), "--output", tmp_path / "m.nii.gz", "--json")
    log = tmp_path / "log"
    assert host("restart", serve, *options, "--log-file", log).code == 0
    assert "the board has restarted" in log.read_text()
    events, errors = events_and_errors(capsys)
    lines = [event["message"] for event in events if event["event"] == "log"]
    assert len(lines) < 6  # the unusual input and the restart, but no debug records
    assert any("the board has restarted" in line for line in lines)
    assert errors == ""


@pytest.mark.parametrize(("behaviour", "kept"), [("stop", True), ("lie", False)])
def test_json_events_of_an_early_end(
    behaviour: str, kept: bool, host: Host, write_case: Write, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out" / "m.nii.gz"
    assert host(behaviour, serve, "--input", write_case(), "--output", out, "--json").code == 2
    events, errors = events_and_errors(capsys)
    case, end = events[-2:]
    assert (case["event"], case["state"]) == ("case", "failed")
    assert case["files"] == ([str(out.parent / "m.partial.nii.gz")] if kept else [])
    assert (case["report"] is not None) == kept
    assert (end["event"], end["state"]) == ("end", "failed")
    assert end["error"] == case["error"] == errors.strip().removeprefix("error: ")


def test_json_events_of_a_run_that_never_started(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--input", write_case(), "--output", tmp_path / "m.nii.gz", "--json")
    assert host("serve", serve, *options, allow=False).code == 2
    [end], errors = events_and_errors(capsys)
    assert (end["event"], end["state"]) == ("end", "failed")
    assert "--allow-model" in end["error"] and "--allow-model" in errors


@pytest.mark.slow
def test_quiet_prints_errors_only(
    host: Host, write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--input", write_case(), "--output", tmp_path / "m.nii.gz", "--quiet", "--force")
    assert host("restart", serve, *options).code == 0  # the board's restart is a warning otherwise
    assert capsys.readouterr() == ("", "")
    assert (tmp_path / "m.nii.gz").is_file()
    assert host("stop", serve, *options).code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1 and "4 of 14 masks are kept" in printed.err
