"""An emulated board with an ssh server and a serial line: it may lose its power and keeps its disk.

The server is this machine's sshd, what it starts are the board's programs.
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

from device.deployment.remote import Remote
from glioslice.errors import GliosliceError
from tests.board.emulation import Board
from tests.board.relay import carry
from tests.board.sshd import made_server
from tests.conftest import ROOT

SESSION = """#!/bin/sh
exec {program} /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""
LINE = "/dev/ttyAMA0"
DEPLOY = [sys.executable, str(ROOT / "device" / "deploy.py")]


class Cable:
    """Two pseudo-terminals joined by their masters; `board` and `desk` are its ends' names."""

    def __init__(self) -> None:
        self._masters, self._ends = zip(*(os.openpty() for _ in range(2)), strict=True)
        for end in self._ends:
            tty.setraw(end)
        self.board, self.desk = map(os.ttyname, self._ends)
        for here, there in (self._masters, self._masters[::-1]):
            threading.Thread(target=carry, args=(here, there), daemon=True).start()


class Pi:
    """A board in `folder`, off until `power_on`."""

    def __init__(self, board: Board, folder: Path) -> None:
        self.folder, self.cable = folder, Cable()
        stand_in, state = folder / "systemctl", folder / "systemd"
        shutil.copy(Path(__file__).with_name("systemctl.py"), stand_in)
        stand_in.chmod(0o755)
        state.mkdir()
        binds = (f"{self.cable.board}:{LINE}", f"{stand_in}:/usr/bin/systemctl")
        self.board = replace(board, binds=(*board.binds, *binds, f"{state}:/run/systemd/system"))
        session = folder / "session"
        session.write_text(SESSION.format(program=" ".join(self.board.program())))
        session.chmod(0o755)
        self.server = made_server(folder, f"ForceCommand {session}")
        self.options = (f"Port={self.server.port}", *self.server.options)
        self.remote = Remote("root@127.0.0.1", self.options)
        self._process: subprocess.Popen[bytes] | None = None

    def power_on(self) -> None:
        """Start the services that are enabled, then the ssh server; wait until it answers."""
        for old in (self.folder / "systemd").iterdir():  # what is in memory is gone
            old.unlink()
        boot = " ".join(self.board.program("systemctl", "default"))
        wanted = self.board.top / "etc/systemd/system/multi-user.target.wants"
        script = f"[ ! -d {wanted} ] || {boot} || true; exec {' '.join(self.server.command)}"
        self._process = subprocess.Popen(self.board.entering("sh", "-c", script, alone=True))
        until = time.monotonic() + 60
        while True:
            try:
                self.remote.run("true")
                return
            except GliosliceError:
                assert self._process.poll() is None and time.monotonic() < until
                time.sleep(0.2)

    def power_off(self) -> None:
        """Let every process of the board end at once, without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None

    def deploying(self, *words: str) -> list[str]:
        """Return the deployment's command for this board."""
        options = [word for option in self.options for word in ("--ssh-option", option)]
        return [*DEPLOY, "root@127.0.0.1", *options, "--port", LINE, *words]

    def deploy(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the deployment to its end."""
        return subprocess.run(
            self.deploying(*words), cwd=ROOT, capture_output=True, text=True, check=False
        )

    def files(self) -> dict[str, tuple[int, int]]:
        """Return size and time of all that was written to the board's disk, by path."""
        disk = self.board.layer / "disk" / "upper"
        found = {path: path.lstat() for path in sorted(disk.rglob("*"))}
        return {
            str(path.relative_to(disk)): (status.st_size, status.st_mtime_ns)
            for path, status in found.items()
            # What Python keeps of its own modules is there on a board that ran it before.
            if (path.is_symlink() or path.is_file()) and disk / "usr/lib" not in path.parents
        }
