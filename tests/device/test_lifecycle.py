"""What systemd hears of the runner."""

import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from device.lifecycle import ALIVE, READY, STOPPING, notify
from glioslice.model_card import shipped
from tests.conftest import ROOT
from tests.device.conftest import MODEL


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
    notify(ALIVE)  # nobody listens any more


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was opened"))
    notify(READY)


def test_a_runner_is_ready_lives_and_stops(tmp_path: Path) -> None:
    near, far = pty.openpty()
    words = [sys.executable, "-m", "device", "--model", str(shipped("nano") / MODEL)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(300.0)
        with subprocess.Popen(
            [*words, "--port", os.ttyname(far)], cwd=ROOT, stdout=subprocess.DEVNULL,
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        ) as process:  # fmt: skip
            heard = [systemd.recv(99).decode() for _ in range(4)]
            assert heard == [READY, ALIVE, ALIVE, ALIVE]
            process.send_signal(signal.SIGTERM)
            while heard[-1] == ALIVE:
                heard.append(systemd.recv(99).decode())
            assert heard[-1] == STOPPING
            assert process.wait(60.0) == 0
    os.close(near)
    os.close(far)
