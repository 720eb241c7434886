"""Deployment from nothing to nothing: over a real ssh server onto an emulated 64-bit Arm.

There is no systemd there; what stands for it, and what it leaves out, is said in `systemctl.py`.
"""

import subprocess
import time
from pathlib import Path

import pytest

from device.deployment.board_state import PYTHON, ROOT
from tests.board.conftest import NewPi
from tests.board.pi import LINE, Pi
from tests.board.test_streaming import streamed

pytestmark = [pytest.mark.board, pytest.mark.slow, pytest.mark.timeout(1800)]

RELEASES = f"{ROOT}/releases"


@pytest.fixture(scope="module")
def installed(new_pi: NewPi) -> tuple[Pi, str, set[str]]:
    """A board after its first deployment, what that said, and the files that it had before."""
    pi = new_pi()
    before = set(pi.files())
    done = pi.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    return pi, done.stdout, before


def pid_of_service(pi: Pi) -> str:
    return pi.remote.run("systemctl show --property MainPID --value glioslice.service").strip()


def test_one_command_installs_tests_and_starts_it(
    installed: tuple[Pi, str, set[str]], slab: Path, tmp_path: Path
) -> None:
    pi, said, _ = installed
    assert "aarch64, Python 3.11, glibc 2.36" in said
    assert "ai-edge-litert 2.3.0 on aarch64, kernels XNNPACK" in said
    assert "XNNPACK: 5 of 5 slices, byte for byte" in said and "self-test passed" in said
    assert f"waits on {LINE}" in said
    mask = streamed(tmp_path, slab, "--port", pi.cable.desk)
    assert mask == streamed(tmp_path / "x86", slab, "--port", "sim://")


def test_doing_it_twice_changes_nothing(installed: tuple[Pi, str, set[str]]) -> None:
    pi, _, _ = installed
    files, pid = pi.files(), pid_of_service(pi)
    done = pi.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it is installed and runs: nothing was changed" in done.stdout
    assert "self-test passed" in done.stdout and "sending" not in done.stdout
    assert pi.files() == files
    assert pid_of_service(pi) == pid != "0"


def test_power_that_is_lost_in_the_middle_leaves_the_old_release_at_work(
    installed: tuple[Pi, str, set[str]],
) -> None:
    pi, _, _ = installed
    here = pi.board.layer / "disk" / "upper" / RELEASES.strip("/")
    [old] = [path.name for path in here.iterdir()]
    deployment = pi.deploying("--model", "nano")
    with subprocess.Popen(deployment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as cut:
        while not any((one / "venv/bin/pip").exists() for one in here.iterdir() if one.name != old):
            assert cut.poll() is None
            time.sleep(0.05)
        pi.power_off()
        assert cut.wait(60) == 2
    assert len(list(here.iterdir())) == 2  # the new one lies there in pieces
    pi.power_on()
    assert pi.remote.run(f"readlink {ROOT}/current").strip() == f"releases/{old}"
    assert pid_of_service(pi) != "0"

    done = pi.deploy("--model", "nano")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "self-test of nano-int8.tflite" in done.stdout and "self-test passed" in done.stdout
    assert old not in [path.name for path in here.iterdir()]


def test_uninstalling_leaves_nothing(installed: tuple[Pi, str, set[str]]) -> None:
    pi, _, before = installed
    assert pi.remote.run(f"{PYTHON} --version").startswith("Python 3.11")
    for _ in range(2):
        done = pi.deploy("--uninstall")
        assert done.returncode == 0, done.stderr
        assert "nothing of glioslice is left" in done.stdout
        assert set(pi.files()) == before
        assert not any("glioslice" in name or "device" in name for name in running(pi))


def running(pi: Pi) -> list[str]:
    """The command lines of the board's processes."""
    return pi.remote.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").splitlines()
