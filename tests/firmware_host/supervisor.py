"""What starts the device's runner anew when it dies, as a service manager does on a board.

python -m tests.firmware_host.supervisor FOLDER PORT

The first runner is killed after its tenth mask. FOLDER/runs gets a line for each run that began:
how many masks it had to work out.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from device import run

DOOMED = "doomed"
LAST = 10


def runner(folder: Path, port: str, doomed: bool) -> None:
    """Be the runner; one that is doomed kills itself."""
    from device.__main__ import main

    mask, begin = run.Run.mask, run.Run.__init__
    done = 0

    def counted(self, *words):  # type: ignore[no-untyped-def]
        nonlocal done
        if doomed and done == LAST:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        return mask(self, *words)

    def noted(self, *words):  # type: ignore[no-untyped-def]
        begin(self, *words)
        with (folder / "runs").open("a") as file:
            file.write(f"{len(self.waiting)}\n")

    run.Run.mask = counted  # type: ignore[method-assign]
    run.Run.__init__ = noted  # type: ignore[method-assign]
    sys.argv = ["device", "--port", port]
    main()


def main() -> None:
    """Start a runner that dies, then one that lives."""
    folder, port = Path(sys.argv[1]), sys.argv[2]
    if sys.argv[3:]:
        runner(folder, port, sys.argv[3] == DOOMED)
        return
    for fate in (DOOMED, "spared"):
        child = subprocess.Popen([sys.executable, "-m", __spec__.name, str(folder), port, fate])
        signal.signal(signal.SIGTERM, lambda *_, child=child: child.terminate())
        child.wait()


if __name__ == "__main__":
    main()
