"""Run scripts on a board over ssh, with the user's own keys, configuration and known hosts."""

import shlex
import subprocess
from dataclasses import dataclass

from glioslice.errors import GliosliceError

SSH_FAILED = 255
"""The exit code of ssh itself; any other is that of the script."""

UNREACHABLE = "no reply; is the board switched on and in this network?"
ADVICE = {
    "Permission denied": "the board accepts none of your keys; ssh-copy-id installs one",
    "Host key verification failed": "its host key is unknown or has changed; connect with ssh and "
    "compare the fingerprint with the board's",
    "Could not resolve hostname": "no such name in this network; try its IP address",
    "Connection refused": "nothing listens there; enable ssh on the board (raspi-config)",
    "timed out": UNREACHABLE,
    "No route to host": UNREACHABLE,
}
"""What ssh prints, and what to do about it."""


@dataclass(frozen=True)
class Remote:
    """A board: `target` such as pi@raspberrypi.local; each of `options` is passed to `ssh -o`."""

    target: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise GliosliceError for a target that ssh would read as an option."""
        if not self.target or self.target.startswith("-"):
            raise GliosliceError(f"'{self.target}': expected a board such as pi@raspberrypi.local")

    def run(self, script: str, *, root: bool = False, send: bytes = b"") -> str:
        """Run a POSIX shell script on the board with `send` as its input; return its output.

        `root` runs it with sudo, which must not ask for a password. Raises GliosliceError if the
        board cannot be reached or the script fails; the error ends with the script's last line.
        """
        shell = f"sh -eu -c {shlex.quote(script)}"
        if root:
            shell = f'if [ "$(id -u)" = 0 ]; then {shell}; else sudo -n {shell}; fi'
        command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]
        command += [part for option in self.options for part in ("-o", option)]
        done = subprocess.run(
            [*command, "--", self.target, shell], input=send, capture_output=True, check=False
        )
        if done.returncode:
            raise GliosliceError(
                self._explain(done.returncode, done.stderr.decode(errors="replace"))
            )
        return done.stdout.decode(errors="replace")

    def _explain(self, code: int, stderr: str) -> str:
        """Return what failed, and what to do where that is known."""
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        if code == SSH_FAILED:
            for symptom, advice in ADVICE.items():
                if symptom in stderr:
                    return f"{self.target}: {advice}"
        if any(line.startswith("sudo:") for line in lines):
            return (
                f"{self.target}: sudo asks for a password there; log in once and run "
                "'sudo visudo' to allow NOPASSWD, or deploy as root"
            )
        return f"{self.target}: {(lines or ['no reason given'])[-1]}"
