"""A board at the far end of ssh, with the user's own keys, configuration and known hosts."""

import shlex
import subprocess
from dataclasses import dataclass

from glioslice.errors import GliosliceError

LOST = 255
"""The exit code of ssh itself; any other is the board's."""

MEND = {
    "Permission denied": "the board takes none of your keys; ssh-copy-id puts one there",
    "Host key verification failed": "its host key is unknown or has changed; ssh to it by hand "
    "and compare the fingerprint with the board's",
    "Could not resolve hostname": "no such name in this network; try its address",
    "Connection refused": "nothing listens there; enable ssh on the board (raspi-config)",
    "timed out": "no answer; is the board on, and in this network?",
    "No route to host": "no answer; is the board on, and in this network?",
}


@dataclass(frozen=True)
class Remote:
    """`target` is what ssh takes, such as pi@raspberrypi.local; `options` go to every `ssh -o`."""

    target: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise GliosliceError for a target that ssh would read as an option."""
        if not self.target or self.target.startswith("-"):
            raise GliosliceError(f"'{self.target}': expected a board such as pi@raspberrypi.local")

    def run(self, script: str, *, root: bool = False, send: bytes = b"") -> str:
        """Run a POSIX shell script on the board, with `send` as its input; return what it prints.

        `root` runs it with sudo, which must not ask for a password. Raises GliosliceError if the
        board cannot be reached or the script fails: the error ends with the last line it said.
        """
        shell = f"sh -eu -c {shlex.quote(script)}"
        if root:
            shell = f'if [ "$(id -u)" = 0 ]; then {shell}; else sudo -n {shell}; fi'
        words = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]
        words += [word for option in self.options for word in ("-o", option)]
        done = subprocess.run(
            [*words, "--", self.target, shell], input=send, capture_output=True, check=False
        )
        if done.returncode:
            raise GliosliceError(
                self._failed(done.returncode, done.stderr.decode(errors="replace"))
            )
        return done.stdout.decode(errors="replace")

    def _failed(self, code: int, errors: str) -> str:
        said = [line.strip() for line in errors.splitlines() if line.strip()] or ["no reason given"]
        if code == LOST:
            for sign, mend in MEND.items():
                if sign in errors:
                    return f"{self.target}: {mend}"
        if any(line.startswith("sudo:") for line in said):
            return (
                f"{self.target}: sudo asks for a password there; log in once and run "
                "'sudo visudo' to allow NOPASSWD, or deploy as root"
            )
        return f"{self.target}: {said[-1]}"
