"""A whole Raspberry Pi 3B, emulated: Debian's kernel, systemd, and the service as deployed.

`deploy.py` installs over ssh onto the board's file system, whose programs are emulated one by one
for it (`pi.py`); what it leaves is packed and booted as the machine's memory disk. The machine has
no network. Its first serial port, a PL011, is a pseudo-terminal here, and the second takes the
console. QEMU keeps no time: the line is paced on this side, and nothing says how fast a Pi is.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.board import emulation
from tests.board.conftest import NewPi
from tests.board.pi import Pi
from tests.board.test_streaming import streamed

pytestmark = [pytest.mark.board, pytest.mark.slow, pytest.mark.timeout(1800)]

SYSTEM = ("kmod", "linux-image-arm64", "login", "mount", "systemd", "systemd-sysv", "udev")
TOOLS = {
    "qemu-system-aarch64": "qemu-system-arm",
    "fdtput": "device-tree-compiler",
    "cpio": "cpio",
    "zstd": "zstd",
}

PACK = """
cd "$1"
leave() { printf -- '-path ./%s -prune -o ' "$@"; }
find . -xdev $(leave boot usr/lib/modules 'usr/lib/linux-image*' usr/share/doc usr/share/man \\
  usr/share/locale var/lib/apt var/cache) -print | cpio --quiet -o -H newc | zstd -q -3 > "$2"
"""

TELL = """
[Unit]
After=glioslice.service
Requires=glioslice.service
[Service]
Type=oneshot
StandardOutput=journal+console
ExecStart=/bin/sh -c 'grep -E "Uid|CapEff|NoNewPrivs|Seccomp:" /proc/$(systemctl show --property \
MainPID --value glioslice.service)/status; echo told'
"""
"""A unit that shows on the console what the service's process may do."""

WORDS = (
    "console=ttyS1,115200 rdinit=/sbin/init rootfstype=ramfs panic=-1 "
    "systemd.unit=multi-user.target systemd.journald.forward_to_console=1 "
    "systemd.mask=serial-getty@ttyS1.service systemd.mask=getty.target "
    "systemd.show_status=0 systemd.default_timeout_start_sec=900"  # QEMU may be slower than any Pi
)


@dataclass(frozen=True)
class Machine:
    """The pseudo-terminal that is its PL011, and the file that takes its console."""

    line: str
    console: Path

    def says(self, words: str) -> bool:
        return words in self.console.read_text(errors="replace")


@pytest.fixture(scope="module")
def installed(new_pi: NewPi) -> Pi:
    """A board with systemd and a kernel on its disk, after its deployment; its power is off."""
    lacking = sorted(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    if lacking:
        reason = f"a whole machine needs: apt-get install {' '.join(lacking)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    pi = new_pi(*SYSTEM)
    done = pi.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    pi.power_off()
    units = pi.board.layer / "disk/upper/etc/systemd/system"
    (units / "told.service").write_text(TELL)
    (units / "multi-user.target.wants/told.service").symlink_to("../told.service")
    return pi


@pytest.fixture(scope="module")
def machine(installed: Pi) -> Iterator[Machine]:
    """The machine, powered on; it is ended by its process."""
    folder, board = installed.folder, replace(installed.board, binds=())
    root = board.root
    emulation.run(*board.entering("sh", "-eu", "-c", PACK, "pack", board.top, folder / "initrd"))
    [kernel] = (root / "boot").glob("vmlinuz-*")
    [tree] = (root / "usr/lib").glob("linux-image-*/broadcom/bcm2837-rpi-3-b.dtb")
    shutil.copy(tree, folder / "pi3.dtb")
    # Bluetooth holds the PL011 on a Pi 3, until dtoverlay=disable-bt.
    emulation.run("fdtput", "-r", folder / "pi3.dtb", "/soc/serial@7e201000/bluetooth")
    console, said = folder / "console.log", folder / "qemu.log"
    console.touch()
    with said.open("w") as file, subprocess.Popen(
        ["qemu-system-aarch64", "-M", "raspi3b", "-kernel", str(kernel), "-append", WORDS,
         "-dtb", str(folder / "pi3.dtb"), "-initrd", str(folder / "initrd"), "-display", "none",
         "-no-reboot", "-chardev", "pty,id=u0", "-serial", "chardev:u0",
         "-serial", f"file:{console}"],
        stdout=file, stderr=file,
    ) as process:  # fmt: skip
        try:
            wait(lambda: "redirected to" in said.read_text(), 30)
            line = said.read_text().partition("redirected to ")[2].split()[0]
            yield Machine(line, console)
        finally:
            process.kill()


def wait(until: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.5)


def test_systemd_starts_the_service_in_its_cage(machine: Machine) -> None:
    wait(lambda: machine.says("told\r\n") or machine.says("told\n"), 1200)
    assert machine.says("Started ") and machine.says("READY compact")
    text = machine.console.read_text(errors="replace")
    status = dict(re.findall(r"\]: (\w+):\t(\w+)", text))
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"  # a filter
    assert int(status["CapEff"], 16) == 0
    assert int(status["Uid"]) > 60_000  # of DynamicUser


def test_slices_over_its_uart_get_the_masks_of_x86(
    machine: Machine, slab: Path, tmp_path: Path
) -> None:
    relay = [sys.executable, "-m", "tests.board.relay", "{port}", machine.line]
    mask = streamed(tmp_path, slab, "--port", "sim://?baud=115200", far_end=relay)
    assert mask == streamed(tmp_path / "x86", slab, "--port", "sim://")
