"""A whole Raspberry Pi 3B, emulated: Debian's kernel, systemd, and the service as deployed.

`deploy.py` installs over ssh onto a board of `pi.py`. Its file system is then packed and booted
as the machine's initrd. The machine has no network. Its first serial port, a PL011, is a
pseudo-terminal on this machine; the second is its console. QEMU does not emulate timing, so the
link is paced on this side, and nothing here shows how fast a Pi is.
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
from tests.board.conftest import NewPi, stream_case
from tests.board.pi import Pi

pytestmark = [pytest.mark.board, pytest.mark.slow]

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

STATUS_UNIT = """
[Unit]
After=glioslice.service
Requires=glioslice.service
[Service]
Type=oneshot
StandardOutput=journal+console
ExecStart=/bin/sh -c 'grep -E "Uid|CapEff|NoNewPrivs|Seccomp:" /proc/$(systemctl show --property \
MainPID --value glioslice.service)/status; echo status complete'
"""
"""A unit that prints the privileges of the service's process on the console."""

KERNEL_OPTIONS = (
    "console=ttyS1,115200 rdinit=/sbin/init rootfstype=ramfs panic=-1 "
    "systemd.unit=multi-user.target systemd.journald.forward_to_console=1 "
    "systemd.mask=serial-getty@ttyS1.service systemd.mask=getty.target "
    "systemd.show_status=0 systemd.default_timeout_start_sec=900"  # QEMU may be slower than any Pi
)


@dataclass(frozen=True)
class VirtualMachine:
    """A running machine: the pseudo-terminal of its PL011, and the log of its console."""

    port: str
    console: Path

    def printed(self, text: str) -> bool:
        return text in self.console.read_text(errors="replace")


@pytest.fixture(scope="module")
def installed(new_pi: NewPi) -> Pi:
    """A board with systemd and a kernel, after its deployment and switched off."""
    lacking = sorted(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    if lacking:
        reason = f"a whole machine needs: apt-get install {' '.join(lacking)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    pi = new_pi(*SYSTEM)
    done = pi.deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    pi.power_off()
    units = pi.board.layer / "disk/upper/etc/systemd/system"
    (units / "status.service").write_text(STATUS_UNIT)
    (units / "multi-user.target.wants/status.service").symlink_to("../status.service")
    return pi


@pytest.fixture(scope="module")
def machine(installed: Pi) -> Iterator[VirtualMachine]:
    """The machine, switched on."""
    folder, board = installed.folder, replace(installed.board, binds=())
    root = board.root
    emulation.run(
        *board.namespace_command("sh", "-eu", "-c", PACK, "pack", board.top, folder / "initrd")
    )
    [kernel] = (root / "boot").glob("vmlinuz-*")
    [tree] = (root / "usr/lib").glob("linux-image-*/broadcom/bcm2837-rpi-3-b.dtb")
    shutil.copy(tree, folder / "pi3.dtb")
    # Bluetooth uses the PL011 on a Pi 3 unless dtoverlay=disable-bt is set.
    emulation.run("fdtput", "-r", folder / "pi3.dtb", "/soc/serial@7e201000/bluetooth")
    console, qemu_log = folder / "console.log", folder / "qemu.log"
    console.touch()
    with qemu_log.open("w") as file, subprocess.Popen(
        ["qemu-system-aarch64", "-M", "raspi3b", "-kernel", str(kernel), "-append", KERNEL_OPTIONS,
         "-dtb", str(folder / "pi3.dtb"), "-initrd", str(folder / "initrd"), "-display", "none",
         "-no-reboot", "-chardev", "pty,id=u0", "-serial", "chardev:u0",
         "-serial", f"file:{console}"],
        stdout=file, stderr=file,
    ) as process:  # fmt: skip
        try:
            wait(lambda: "(label" in qemu_log.read_text(), 120)  # the port is before it
            port = qemu_log.read_text().partition("redirected to ")[2].split()[0]
            yield VirtualMachine(port, console)
        finally:
            process.kill()


def wait(until: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.5)


def test_systemd_starts_the_service_in_its_sandbox(machine: VirtualMachine) -> None:
    wait(
        lambda: machine.printed("status complete\r\n") or machine.printed("status complete\n"), 1200
    )
    assert machine.printed("Started ") and machine.printed("READY compact")
    text = machine.console.read_text(errors="replace")
    status = dict(re.findall(r"\]: (\w+):\t(\w+)", text))
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"  # a filter
    assert int(status["CapEff"], 16) == 0
    assert int(status["Uid"]) > 60_000  # of DynamicUser


def test_slices_over_the_uart_give_the_masks_of_x86(
    machine: VirtualMachine, slab: Path, tmp_path: Path
) -> None:
    relay = [sys.executable, "-m", "tests.board.relay", "{port}", machine.port]
    mask = stream_case(tmp_path, slab, "--port", "sim://?baud=115200", far_end=relay)
    assert mask == stream_case(tmp_path / "x86", slab, "--port", "sim://")
