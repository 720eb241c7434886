"""Deployment from nothing to nothing: over a real ssh server onto an emulated 64-bit Arm.

The board has no systemd; `systemctl.py` replaces it and lists its limits.
"""

import subprocess
import time
from pathlib import Path

import pytest

from device.deployment.remote_board import PREFIX, PYTHON
from tests.board.conftest import NewPi, stream_case
from tests.board.pi import PORT, Pi

pytestmark = [pytest.mark.board, pytest.mark.slow]

RELEASES = f"{PREFIX}/releases"


@pytest.fixture(scope="module")
def installed(new_pi: NewPi) -> tuple[Pi, str, set[str]]:
    """A board after its first deployment, the output, and the files that it had before."""
    pi = new_pi()
    before = set(pi.files())
    done = pi.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    return pi, done.stdout, before


def pid_of_service(pi: Pi) -> str:
    return pi.remote.run("systemctl show --property MainPID --value glioslice.service").strip()


def test_one_command_installs_starts_and_tests(
    installed: tuple[Pi, str, set[str]], slab: Path, tmp_path: Path
) -> None:
    pi, output, _ = installed
    assert "aarch64, Python 3.11, glibc 2.36" in output
    assert "ai-edge-litert 2.3.0 on aarch64, kernels XNNPACK" in output
    assert "XNNPACK: 5 of 5 slices, byte for byte" in output and "self-test passed" in output
    assert f"waits on {PORT}" in output
    mask = stream_case(tmp_path, slab, "--port", pi.cable.host)
    assert mask == stream_case(tmp_path / "x86", slab, "--port", "sim://")


def test_a_second_deployment_changes_nothing(installed: tuple[Pi, str, set[str]]) -> None:
    pi, _, _ = installed
    files, pid = pi.files(), pid_of_service(pi)
    done = pi.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was changed" in done.stdout
    assert "self-test passed" in done.stdout and "sending" not in done.stdout
    assert pi.files() == files
    assert pid_of_service(pi) == pid != "0"


def test_the_old_release_survives_a_power_loss(
    installed: tuple[Pi, str, set[str]],
) -> None:
    pi, _, _ = installed
    here = pi.board.layer / "disk" / "upper" / RELEASES.strip("/")
    [old] = [path.name for path in here.iterdir()]
    deployment = pi.deploy_command("--model", "nano")
    with subprocess.Popen(deployment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as cut:
        while not any((one / "venv/bin/pip").exists() for one in here.iterdir() if one.name != old):
            assert cut.poll() is None
            time.sleep(0.05)
        pi.power_off()
        assert cut.wait(300) == 2
    assert len(list(here.iterdir())) == 2  # the new one is incomplete
    pi.power_on()
    assert pi.remote.run(f"readlink {PREFIX}/current").strip() == f"releases/{old}"
    assert pid_of_service(pi) != "0"

    done = pi.deploy("--model", "nano")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "self-test of nano-int8.tflite" in done.stdout and "self-test passed" in done.stdout
    assert old not in [path.name for path in here.iterdir()]


def test_uninstalling_removes_everything(installed: tuple[Pi, str, set[str]]) -> None:
    pi, _, before = installed
    assert pi.remote.run(f"{PYTHON} --version").startswith("Python 3.11")
    for _ in range(2):
        done = pi.deploy("--uninstall")
        assert done.returncode == 0, done.stderr
        assert "glioslice is removed" in done.stdout
        assert set(pi.files()) == before
        assert not any("glioslice" in name or "device" in name for name in command_lines(pi))


def command_lines(pi: Pi) -> list[str]:
    """Return the command lines of the board's processes."""
    return pi.remote.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").splitlines()
