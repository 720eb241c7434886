"""An emulated board with an ssh server and a serial link, which can lose power and keeps its disk.

The server is this machine's sshd; the programs that it starts are the board's.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
import tty
from dataclasses import replace
from pathlib import Path

from device.deployment.remote_board import Remote
from glioslice.errors import GliosliceError
from tests.board.emulation import EmulatedBoard
from tests.board.relay import forward
from tests.board.sshd import make_server
from tests.conftest import ROOT

SESSION = """#!/bin/sh
exec {program} /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""
PORT = "/dev/ttyAMA0"
DEPLOY = [sys.executable, str(ROOT / "device" / "deploy.py")]


class Cable:
    """Two pseudo-terminals joined by their masters; `board` and `host` name its ends."""

    def __init__(self) -> None:
        self._masters, self._ends = zip(*(os.openpty() for _ in range(2)), strict=True)
        for end in self._ends:
            tty.setraw(end)
        self.board, self.host = map(os.ttyname, self._ends)
        for here, there in (self._masters, self._masters[::-1]):
            threading.Thread(target=forward, args=(here, there), daemon=True).start()


class Pi:
    """A board in `folder`, off until `power_on`."""

    def __init__(self, board: EmulatedBoard, folder: Path) -> None:
        self.folder, self.cable = folder, Cable()
        stand_in, state = folder / "systemctl", folder / "systemd"
        shutil.copy(Path(__file__).with_name("systemctl.py"), stand_in)
        stand_in.chmod(0o755)
        state.mkdir()
        binds = (f"{self.cable.board}:{PORT}", f"{stand_in}:/usr/bin/systemctl")
        self.board = replace(board, binds=(*board.binds, *binds, f"{state}:/run/systemd/system"))
        session = folder / "session"
        session.write_text(SESSION.format(program=" ".join(self.board.program_command())))
        session.chmod(0o755)
        self.server = make_server(folder, f"ForceCommand {session}")
        self.options = (f"Port={self.server.port}", *self.server.options)
        self.remote = Remote("root@127.0.0.1", self.options)
        self._process: subprocess.Popen[bytes] | None = None

    def power_on(self) -> None:
        """Start the enabled services and the ssh server; wait until it accepts connections."""
        for old in (self.folder / "systemd").iterdir():  # memory is lost
            old.unlink()
        boot = " ".join(self.board.program_command("systemctl", "default"))
        wanted = self.board.top / "etc/systemd/system/multi-user.target.wants"
        script = f"[ ! -d {wanted} ] || {boot} || true; exec {' '.join(self.server.command)}"
        self._process = subprocess.Popen(
            self.board.namespace_command("sh", "-c", script, alone=True)
        )
        until = time.monotonic() + 300  # the services start first
        while True:
            try:
                self.remote.run("true")
                return
            except GliosliceError:
                assert self._process.poll() is None and time.monotonic() < until
                time.sleep(0.2)

    def power_off(self) -> None:
        """Kill every process of the board at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def deploy_command(self, *options: str) -> list[str]:
        """Return the deployment's command for this board."""
        ssh_options = [part for one in self.options for part in ("--ssh-option", one)]
        return [*DEPLOY, "root@127.0.0.1", *ssh_options, "--port", PORT, *options]

    def deploy(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the deployment."""
        return subprocess.run(
            self.deploy_command(*options), cwd=ROOT, capture_output=True, text=True, check=False
        )

    def files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of everything written to the board's disk, by path."""
        disk = self.board.layer / "disk" / "upper"
        found = {path: path.lstat() for path in sorted(disk.rglob("*"))}
        return {
            str(path.relative_to(disk)): (status.st_size, status.st_mtime_ns)
            for path, status in found.items()
            # Python's caches of its own modules exist on any board that ran it before.
            if (path.is_symlink() or path.is_file()) and disk / "usr/lib" not in path.parents
        }
