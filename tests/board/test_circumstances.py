"""Obstacles to a deployment: each is reported with its remedy, and nothing is left behind."""

from pathlib import Path

import pytest

from device.deployment import release
from device.deployment.release import Payload
from device.deployment.remote_board import PREFIX, Remote
from glioslice.errors import GliosliceError
from glioslice.model_card import shipped_folder
from tests.board.conftest import NewPi
from tests.board.emulation import ARMHF
from tests.board.pi import PORT, Pi
from tests.board.sshd import make_key

pytestmark = [pytest.mark.board, pytest.mark.slow]

MODEL = shipped_folder("compact") / "compact-int8.tflite"


@pytest.fixture(scope="module")
def empty_pi(new_pi: NewPi) -> Pi:
    """A board on which nothing is installed."""
    return new_pi()


def refuse(pi: Pi, *options: str) -> str:
    """Return the output of a deployment that must fail without changing anything."""
    before = pi.files()
    done = pi.deploy(*options)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert pi.files() == before
    return done.stdout + done.stderr


def send_incomplete(pi: Pi, payload: Payload, archive: bytes) -> str:
    """Return why an archive was not installed; check that nothing of it is left."""
    with pytest.raises(GliosliceError) as caught:
        pi.remote.run(release.install_script(payload.release), root=True, send=archive)
    assert pi.remote.run(f"ls {PREFIX}/releases").split() == ["old"]
    return str(caught.value)


def test_too_little_space_is_detected_first(new_pi: NewPi) -> None:
    pi = new_pi(size="64m")
    assert "MB are free: 600 MB are needed in /opt/glioslice" in refuse(pi)
    pi.remote.run(f"mkdir -p {PREFIX}/releases/old")
    large = Payload({"wheels/large.whl": bytes(80_000_000)}, "")
    assert "no space left?" in send_incomplete(pi, large, large.archive)


def test_a_32_bit_system_is_refused(new_pi: NewPi) -> None:
    output = refuse(new_pi(processor=ARMHF))
    assert "must change: the board runs armv7l: install a 64-bit system" in output


def test_a_python_that_is_too_old_is_refused(new_pi: NewPi) -> None:
    output = refuse(new_pi(suite="bullseye"))
    assert "must change: its Python is 3.9: litert needs 3.11 to 3.13" in output


def test_a_key_that_the_board_does_not_accept(empty_pi: Pi, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    options = tuple(o for o in empty_pi.options if not o.startswith("IdentityFile"))
    stranger = Remote("root@127.0.0.1", (*options, f"IdentityFile={tmp_path}/other"))
    with pytest.raises(GliosliceError, match="accepts none of your keys; ssh-copy-id"):
        stranger.run("true")


def test_a_changed_host_key(empty_pi: Pi, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text((empty_pi.folder / "known").read_text().replace("AAAA", "AAAB", 1))
    options = tuple(o for o in empty_pi.options if not o.startswith("UserKnownHosts"))
    with pytest.raises(GliosliceError, match="host key is unknown or has changed"):
        Remote("root@127.0.0.1", (*options, f"UserKnownHostsFile={known}")).run("true")


def until_it_runs(program: str) -> str:
    """Return a shell's command that waits until its last job has become a program."""
    return f"until grep -qx {program} /proc/$!/comm; do sleep 0.1; done"


def test_a_login_prompt_on_the_port(empty_pi: Pi) -> None:
    unit = "serial-getty@ttyAMA0.service"
    command = f"agetty --noclear {PORT.removeprefix('/dev/')} 115200 > /dev/null 2>&1 < /dev/null"
    empty_pi.remote.run(
        f"setsid {command} & echo $! > /run/systemd/system/{unit}.pid; {until_it_runs('agetty')}"
    )
    try:
        output = refuse(empty_pi)
        assert f"a login prompt uses {PORT}: sudo systemctl disable --now {unit}" in output
    finally:
        empty_pi.remote.run(f"systemctl disable --now {unit}")


def test_another_program_on_the_port(empty_pi: Pi) -> None:
    empty_pi.remote.run(
        f"setsid sleep 600 < {PORT} >/dev/null 2>&1 & echo $! > /run/holder; "
        f"{until_it_runs('sleep')}"
    )
    try:
        assert f"must change: sleep uses {PORT}: stop it" in refuse(empty_pi)
    finally:
        empty_pi.remote.run("kill $(cat /run/holder)")


def test_the_kernels_console_on_the_port(new_pi: NewPi) -> None:
    pi = new_pi(cmdline="console=tty1 console=ttyAMA0,115200 root=/dev/mmcblk0p2\n")
    assert f"the kernel's console is on {PORT}: sudo raspi-config" in refuse(pi)


@pytest.mark.parametrize("part", ["model", "archive"])
def test_truncated_files_are_not_installed(part: str, empty_pi: Pi) -> None:
    content = MODEL.read_bytes()
    whole = Payload({"model/m.tflite": content}, "model/m.tflite")
    archive = whole.archive[: len(content) // 2]
    if part == "model":
        half = Payload({"model/m.tflite": content[: len(content) // 2]}, "model/m.tflite")
        archive = half.archive.replace(half.digests, whole.digests)
    empty_pi.remote.run(f"mkdir -p {PREFIX}/releases/old")
    try:
        output = send_incomplete(empty_pi, whole, archive)
        wanted = {"model": "a file was damaged", "archive": "arrived incomplete"}
        assert wanted[part] in output
    finally:
        empty_pi.remote.run(f"rm -rf {PREFIX}")
