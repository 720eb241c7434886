"""What the server reports to systemd."""

import os
import pty
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from device.server import ALIVE, READY, STOPPING, notify
from tests.conftest import ROOT
from tests.device.conftest import RUNNER


@pytest.mark.parametrize("address", ["{folder}/notify", "@glioslice-test-{pid}"])
def test_a_state_is_a_datagram(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = address.format(folder=tmp_path, pid=os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.settimeout(5.0)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        notify(READY)
        assert systemd.recv(99) == b"READY=1"
    notify(ALIVE)  # nothing listens any more


def test_without_systemd_no_socket_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was opened"))
    notify(READY)


@pytest.mark.slow
def test_the_server_reports_that_it_is_ready_alive_and_stopping(tmp_path: Path) -> None:
    near, far = pty.openpty()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(300.0)
        with subprocess.Popen(
            [*RUNNER, "--port", os.ttyname(far)], cwd=ROOT, stdout=subprocess.DEVNULL,
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        ) as process:  # fmt: skip
            states = [systemd.recv(99).decode() for _ in range(4)]
            assert states == [READY, ALIVE, ALIVE, ALIVE]
            process.send_signal(signal.SIGTERM)
            while states[-1] == ALIVE:
                states.append(systemd.recv(99).decode())
            assert states[-1] == STOPPING
            assert process.wait(60.0) == 0
    os.close(near)
    os.close(far)
