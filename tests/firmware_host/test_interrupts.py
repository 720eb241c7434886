"""Any number of Ctrl-C, at any moment of a run, keeps what has arrived."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from firmware_host import interrupts, run
from tests.conftest import ROOT, Write
from tests.firmware_host.commands import STREAM_TO_SCRIPTED_BOARD, restore_signals
from tests.firmware_host.conftest import Host
from tests.firmware_host.scripted import SHA256, serve

MOMENTS = 8
TRACED = ("run.py", "session.py", "outputs.py", "mask_volume.py", "report.py", "interrupts.py")

# A signal while the command gives its handlers back would end these tests.
UNCOUNTED = interrupts.handled.__wrapped__.__code__  # type: ignore[attr-defined]


class Moments:
    """Counts the lines that the host runs from its first mask on, and signals at one of them.

    At line `at` and at the next ones it sends three signals. `arrived` is how many masks were
    stored by then.
    """

    def __init__(self, at: int | None) -> None:
        self.at, self.lines, self.arrived = at, 0, 0
        self.masks: Any = None

    def trace(self, frame: FrameType, event: str, _value: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.endswith(TRACED) or frame.f_code is UNCOUNTED:
            return None
        if frame.f_code is run.receive_all.__code__ and event == "call":
            self.masks = frame.f_locals["job"].masks
        if self.masks is not None and event == "line":
            self.lines += 1
            if self.at is not None and self.lines in (self.at, self.at + 1, self.at + 9):
                if self.lines == self.at:
                    self.arrived = self.masks.mask_count
                os.kill(os.getpid(), signal.SIGINT)
        return self.trace


@pytest.fixture
def run_traced(
    host: Host, write_case: Write, tmp_path: Path
) -> Callable[[str, int | None], tuple[Moments, int, Path]]:
    case = write_case()

    def run_once(behaviour: str, at: int | None) -> tuple[Moments, int, Path]:
        moments, out = Moments(at), tmp_path / f"out-{at}"
        options = ("--output", out / "m.nii.gz", "--report", out / "r.json", "--labels", "msd")
        sys.settrace(moments.trace)
        try:
            ended = host(behaviour, serve, "--input", case, *options)
        finally:
            sys.settrace(None)
        return moments, ended.code, out

    return run_once


@pytest.mark.slow
def test_three_signals_at_any_line_of_a_run(
    run_traced: Callable[[str, int | None], tuple[Moments, int, Path]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, code, _ = run_traced("serve", None)
    assert code == 0 and whole.lines > 500
    complete, lines = set(), whole.lines
    for moment in range(MOMENTS):
        behaviour = "slow" if 2 * moment < MOMENTS else "serve"  # seldom complete; soon writing
        while True:
            at = 1 + moment * (lines - 20) // (MOMENTS - 1)
            moments, code, out = run_traced(behaviour, at)
            if moments.lines >= at:
                break
            lines = moments.lines  # several masks came at once: fewer lines than before
            assert code == 0 and lines > 500
        printed = capsys.readouterr().err
        assert code == 130, (at, printed)
        assert "Traceback" not in printed
        report = json.loads((out / "r.json").read_text())
        assert report["masks"] >= moments.arrived
        complete.add(report["complete"])
        kept = "m.nii.gz" if report["complete"] else "m.partial.nii.gz"
        assert (out / kept).exists() == (report["masks"] > 0)
        assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert complete == {True, False}  # signals while masks arrive, and while files are written


def test_a_signal_is_noted_raised_once_and_otherwise_without_effect() -> None:
    raised = []
    with interrupts.handled():
        with interrupts.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            try:
                with interrupts.allowed():
                    raise AssertionError("not reached")
            except KeyboardInterrupt:
                raised.append("noted before")
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # not again
        assert interrupts.requested()
    os.kill(os.getpid(), signal.SIGINT)  # nor after the command
    assert raised == ["noted before"]
    # Another command in this process.
    with interrupts.handled(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_timeout_signals_the_process_and_its_group(write_case: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--port", "sim://?baud=4000000", "--input", write_case(), "--allow-model", SHA256]
    options += ["--output", out / "m.nii.gz"]
    command = [sys.executable, "-c", STREAM_TO_SCRIPTED_BOARD, f"gate:{out / 'go'}", str(out)]
    with subprocess.Popen(
        ["timeout", "-s", "INT", "600", *command, *map(str, options)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=restore_signals,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr
        errors = next(line for line in process.stderr if ": 3 of 14" in line)
        process.send_signal(signal.SIGALRM)  # as if the seconds were over
        errors += process.stderr.read()
    assert "Traceback" not in errors
    match = re.search(r"^interrupted; (\d+) of 14 masks are kept in", errors, re.M)
    assert match and int(match[1]) in (3, 4), errors  # the gate is after the fourth
    assert (out / "m.partial.nii.gz").exists()
