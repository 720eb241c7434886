"""`python -m device` as a process: how it starts, how it ends."""

import os
import pty
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from glioslice.files import sha256
from glioslice.model_card import shipped
from glioslice.wire.messages import End, Error, ErrorCode, HostHello, Mask, Mode, Start
from glioslice.wire.ports import LineLost, open_port
from glioslice.wire.simulator import port as sim
from glioslice.wire.simulator.port import SimPort
from tests.conftest import ROOT
from tests.device.conftest import MODEL, Host, Patient, Wire, play, serve

RUNNER = [sys.executable, "-m", "device", "--model", str(shipped("nano") / MODEL)]
Begin = Callable[..., SimPort]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Start a runner with these words at the far end of a simulated line."""
    monkeypatch.chdir(ROOT)
    with ExitStack() as stack:

        def open_line(*words: str) -> SimPort:
            port = open_port("sim://?baud=4000000", command=[*RUNNER, *words, "--port", "{port}"])
            assert isinstance(port, SimPort)
            stack.callback(port.close)
            return port

        yield open_line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ready_soon_and_ended_at_once(number: signal.Signals) -> None:
    near, far = pty.openpty()
    tty.setraw(far)
    name = os.ttyname(far)
    began = time.monotonic()
    with subprocess.Popen(
        [*RUNNER, "--port", name], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        digits = sha256(shipped("nano") / MODEL)[:12]
        assert process.stdout.readline() == f"READY nano {digits} on {name}\n"
        ready = time.monotonic() - began
        process.send_signal(number)
        assert process.wait(5.0) == 0
        assert "error" not in process.stderr.read()
    assert ready < 10.0, "three seconds on a machine that does nothing else"
    os.close(near)
    os.close(far)


def test_a_run_over_a_line_and_sigterm_within_the_next(begin: Begin, patient: Patient) -> None:
    line = begin()
    host = Host(Wire(line))
    masks, _ = serve(host, patient)
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    host.say(Start(3), *patient.slices(host.hello)[:2])
    assert [isinstance(host.hear(), Mask) for _ in range(2)] == [True, True]
    line._process.send_signal(signal.SIGTERM)
    error, end = host.hear(), host.hear()
    assert isinstance(error, Error) and error.code is ErrorCode.STOPPED
    assert isinstance(end, End) and end.masks == 2
    assert line._process.wait(5.0) == 0
    with pytest.raises(LineLost, match="exit code 0"):
        line.read(5.0) or line.read(5.0)


def test_a_case_on_the_board(lying: Path, begin: Begin, patient: Patient) -> None:
    host = Host(Wire(begin("--input", str(lying))))
    assert Mode.PLAY in host.join().modes
    volume, masks, _ = play(host)
    assert volume.shape == patient.labels.shape
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)


@pytest.mark.parametrize("moment", ["idle", "within a run"])
def test_a_hang_up_ends_the_process(
    moment: str,
    begin: Begin,
    patient: Patient,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = begin()
    host = Host(Wire(line))
    slices = patient.slices(host.join())
    if moment == "idle":
        host.connection.close()
    else:
        host.say(HostHello(Mode.SERVE, 2, 3), Start(len(slices)), *slices[:2])
        assert isinstance(host.hear(), Mask)
    monkeypatch.setattr(sim, "GRACE", 0.01)
    monkeypatch.setattr(line._process, "terminate", lambda: None)  # nobody asks, the line drops
    began = time.monotonic()
    line.close()
    assert time.monotonic() - began < 2.5
    assert line._process.returncode == 2
    [said] = [one for one in capfd.readouterr().err.splitlines() if "INFO" not in one]
    assert said.startswith("error: /dev/") and "the line was lost" in said


def test_a_board_whose_line_is_closed_leaves_in_silence(
    begin: Begin, patient: Patient, capfd: pytest.CaptureFixture[str]
) -> None:
    line = begin()
    host = Host(Wire(line))
    host.join()
    host.connection.close()
    line.close()
    assert line._process.returncode == 0
    assert "error" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "/dev/ttyNone"], "error: /dev/ttyNone: there is no such port; plug the"),
        (["--port", "/dev/null", "--input", "/no/case"], "error: /no/case: no such folder"),
        (["--port", "/dev/null", "--model", "/no/file"], "error: /no/file: no such model file"),
    ],
)
def test_what_cannot_start_says_why(words: list[str], said: str) -> None:
    done = subprocess.run([*RUNNER, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = [one for one in done.stderr.splitlines() if "INFO" not in one]
    assert line.startswith(said)


def test_help_shows_an_example() -> None:
    done = subprocess.run([*RUNNER, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "python -m device --port /dev/ttyGS0 --model" in done.stdout


def test_the_shipped_compact_model_is_the_default() -> None:
    near, far = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "device", "--port", os.ttyname(far)],
        cwd=ROOT, text=True, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline().startswith("READY compact ")
        process.terminate()
    os.close(near)
    os.close(far)
