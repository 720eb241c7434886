"""What stands in a deployment's way, each as it is: named with what to do, and nothing is left."""

from pathlib import Path

import pytest

from device.deployment import service
from device.deployment.board_state import ROOT
from device.deployment.payload import Payload
from device.deployment.remote import Remote
from glioslice.errors import GliosliceError
from glioslice.model_card import shipped
from tests.board.conftest import NewPi
from tests.board.emulation import ARMHF
from tests.board.pi import LINE, Pi
from tests.board.sshd import made_key

pytestmark = [pytest.mark.board, pytest.mark.slow]

MODEL = shipped("compact") / "compact-int8.tflite"


@pytest.fixture(scope="module")
def bare(new_pi: NewPi) -> Pi:
    """A board on which nothing is installed."""
    return new_pi()


def refused(pi: Pi, *words: str) -> str:
    """Return what a deployment says that ends without having changed anything."""
    before = pi.files()
    done = pi.deploy(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert pi.files() == before
    return done.stdout + done.stderr


def sent(pi: Pi, payload: Payload, archive: bytes) -> str:
    """Return why an archive was not installed, and see that nothing of it is left."""
    with pytest.raises(GliosliceError) as caught:
        pi.remote.run(service.installing(payload.release), root=True, send=archive)
    assert pi.remote.run(f"ls {ROOT}/releases").split() == ["old"]
    return str(caught.value)


def test_too_little_space_is_seen_beforehand(new_pi: NewPi) -> None:
    pi = new_pi(size="64m")
    assert "MB are free: 600 MB are needed in /opt/glioslice" in refused(pi)
    pi.remote.run(f"mkdir -p {ROOT}/releases/old")
    large = Payload({"wheels/large.whl": bytes(80_000_000)}, "")
    assert "no space left?" in sent(pi, large, large.archive)


def test_a_32_bit_system_is_refused(new_pi: NewPi) -> None:
    said = refused(new_pi(processor=ARMHF))
    assert "must change: the board runs armv7l: install a 64-bit system" in said


def test_a_python_that_is_too_old_is_refused(new_pi: NewPi) -> None:
    said = refused(new_pi(suite="bullseye"))
    assert "must change: its Python is 3.9: litert needs 3.11 to 3.13" in said


def test_a_key_that_the_board_does_not_take(bare: Pi, tmp_path: Path) -> None:
    made_key(tmp_path / "other")
    options = tuple(o for o in bare.options if not o.startswith("IdentityFile"))
    stranger = Remote("root@127.0.0.1", (*options, f"IdentityFile={tmp_path}/other"))
    with pytest.raises(GliosliceError, match="takes none of your keys; ssh-copy-id puts one"):
        stranger.run("true")


def test_a_board_that_is_not_the_one_it_was(bare: Pi, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text((bare.folder / "known").read_text().replace("AAAA", "AAAB", 1))
    options = tuple(o for o in bare.options if not o.startswith("UserKnownHosts"))
    with pytest.raises(GliosliceError, match="host key is unknown or has changed"):
        Remote("root@127.0.0.1", (*options, f"UserKnownHostsFile={known}")).run("true")


def test_a_login_prompt_on_the_line(bare: Pi) -> None:
    unit = "serial-getty@ttyAMA0.service"
    words = f"agetty --noclear {LINE.removeprefix('/dev/')} 115200 > /dev/null 2>&1 < /dev/null"
    bare.remote.run(f"setsid {words} & echo $! > /run/systemd/system/{unit}.pid; sleep 2")
    try:
        said = refused(bare)
        assert f"a login prompt holds {LINE}: sudo systemctl disable --now {unit}" in said
    finally:
        bare.remote.run(f"systemctl disable --now {unit}")


def test_another_program_on_the_line(bare: Pi) -> None:
    bare.remote.run(f"setsid sleep 600 < {LINE} >/dev/null 2>&1 & echo $! > /run/holder")
    try:
        assert f"must change: sleep holds {LINE}: stop it" in refused(bare)
    finally:
        bare.remote.run("kill $(cat /run/holder)")


def test_the_kernels_console_on_the_line(new_pi: NewPi) -> None:
    pi = new_pi(cmdline="console=tty1 console=ttyAMA0,115200 root=/dev/mmcblk0p2\n")
    assert f"the kernel's console is on {LINE}: sudo raspi-config" in refused(pi)


@pytest.mark.parametrize("part", ["model", "archive"])
def test_what_is_cut_in_half_on_its_way_is_not_installed(part: str, bare: Pi) -> None:
    content = MODEL.read_bytes()
    whole = Payload({"model/m.tflite": content}, "model/m.tflite")
    archive = whole.archive[: len(content) // 2]
    if part == "model":
        half = Payload({"model/m.tflite": content[: len(content) // 2]}, "model/m.tflite")
        archive = half.archive.replace(half.digests, whole.digests)
    bare.remote.run(f"mkdir -p {ROOT}/releases/old")
    try:
        said = sent(bare, whole, archive)
        wanted = {"model": "a file was damaged on its way", "archive": "did not arrive whole"}
        assert wanted[part] in said
    finally:
        bare.remote.run(f"rm -rf {ROOT}")
