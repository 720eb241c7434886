"""`python -m device` as a process: how it starts and how it ends."""

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
from glioslice.model_card import shipped_folder
from glioslice.wire.messages import End, Error, ErrorCode, HostHello, Mask, Mode, Start
from glioslice.wire.ports import LineLost, open_port
from glioslice.wire.simulator import port as sim
from glioslice.wire.simulator.port import SimPort
from tests.conftest import ROOT
from tests.device.conftest import MODEL, PATIENCE, RUNNER, Host, SharedPort, Slab, play, serve

pytestmark = pytest.mark.slow  # every test starts a process

StartServer = Callable[..., SimPort]


@pytest.fixture
def start_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartServer]:
    """Start a server with these options at the far end of a simulated link."""
    monkeypatch.chdir(ROOT)
    with ExitStack() as stack:

        def open_link(*options: str) -> SimPort:
            port = open_port("sim://?baud=4000000", command=[*RUNNER, *options, "--port", "{port}"])
            assert isinstance(port, SimPort)
            stack.callback(port.close)
            return port

        yield open_link


def cpu_seconds(process: int) -> float:
    """Return what a process has used of the processor: a busy machine does not change it."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_server_is_ready_soon_and_stops_at_once(number: signal.Signals) -> None:
    near, far = pty.openpty()
    tty.setraw(far)
    name = os.ttyname(far)
    with subprocess.Popen(
        [*RUNNER, "--port", name], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        digits = sha256(shipped_folder("nano") / MODEL)[:12]
        assert process.stdout.readline() == f"READY nano {digits} on {name}\n"
        ready = cpu_seconds(process.pid)
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
        assert "error" not in process.stderr.read()
    assert ready < 6.0, "processor's seconds; two are usual"
    os.close(near)
    os.close(far)


def test_a_run_over_a_link_and_sigterm_within_the_next(
    start_server: StartServer, patient: Slab
) -> None:
    line = start_server()
    host = Host(SharedPort(line))
    masks, _ = serve(host, patient)
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    host.send(Start(3), *patient.slices(host.hello)[:2])
    assert [isinstance(host.receive(), Mask) for _ in range(2)] == [True, True]
    line._process.send_signal(signal.SIGTERM)
    error, end = host.receive(), host.receive()
    assert isinstance(error, Error) and error.code is ErrorCode.STOPPED
    assert isinstance(end, End) and end.masks == 2
    assert line._process.wait(PATIENCE) == 0
    with pytest.raises(LineLost, match="exit code 0"):
        line.read(PATIENCE) or line.read(PATIENCE)


@pytest.mark.parametrize("options", [(), ("--input",)])
def test_a_case_on_the_board(
    options: tuple[str, ...], stored_case: Path, start_server: StartServer, patient: Slab
) -> None:
    host = Host(SharedPort(start_server(*options, str(stored_case))))
    assert Mode.PLAY in host.connect().modes
    volume, masks, _ = play(host)
    assert volume.shape == patient.labels.shape
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)


@pytest.mark.parametrize("moment", ["idle", "within a run"])
def test_a_hang_up_ends_the_process(
    moment: str,
    start_server: StartServer,
    patient: Slab,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = start_server()
    host = Host(SharedPort(line))
    slices = patient.slices(host.connect())
    if moment == "idle":
        host.connection.close()
    else:
        host.send(HostHello(Mode.SERVE, 2, 3), Start(len(slices)), *slices[:2])
        assert isinstance(host.receive(), Mask)
    monkeypatch.setattr(sim, "GRACE", 0.01)
    monkeypatch.setattr(sim, "TERM", PATIENCE)  # it is not killed, however busy the machine is
    monkeypatch.setattr(line._process, "terminate", lambda: None)  # no request, the link drops
    started = time.monotonic()
    line.close()
    assert time.monotonic() - started < PATIENCE / 2
    assert line._process.returncode == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: /dev/")


def test_a_closed_link_ends_the_server_without_an_error(
    start_server: StartServer, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sim, "GRACE", PATIENCE)  # the link is not cut before it has ended
    line = start_server()
    host = Host(SharedPort(line))
    host.connect()
    host.connection.close()
    line.close()
    assert line._process.returncode == 0
    assert "error" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "/dev/ttyNone"], "/dev/ttyNone: "),
        (["--port", "/dev/null", "--input", "/no/case"], "/no/case: "),
        (["--port", "/dev/null", "--model", "/no/file"], "'/no/file'"),
    ],
)
def test_a_server_that_cannot_start_reports_why(options: list[str], message: str) -> None:
    done = subprocess.run(
        [*RUNNER, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and message in line


def test_help_shows_an_example() -> None:
    done = subprocess.run([*RUNNER, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "example:" in done.stdout and "--port /dev/ttyGS0" in done.stdout


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
