"""Restarts the board's server when it dies, as a service manager does.

    python -m tests.firmware_host.supervisor FOLDER PORT

The first server is killed after its tenth mask. FOLDER/runs gets a line for each run: the number of
masks that it had to compute.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from device import run

KILLED = "killed"
LAST = 10


def serve(folder: Path, port: str, killed: bool) -> None:
    """Run the board's server; with `killed` it kills itself after LAST masks."""
    from device.__main__ import main

    mask, begin = run.SegmentationRun.segment_slice, run.SegmentationRun.__init__
    done = 0

    def counted(self, *options):  # type: ignore[no-untyped-def]
        nonlocal done
        if killed and done == LAST:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        return mask(self, *options)

    def noted(self, *options):  # type: ignore[no-untyped-def]
        begin(self, *options)
        with (folder / "runs").open("a") as file:
            file.write(f"{len(self.pending)}\n")

    run.SegmentationRun.segment_slice = counted  # type: ignore[method-assign]
    run.SegmentationRun.__init__ = noted  # type: ignore[method-assign]
    sys.argv = ["device", "--port", port]
    main()


def main() -> None:
    """Start a server that dies, then one that keeps running."""
    folder, port = Path(sys.argv[1]), sys.argv[2]
    if sys.argv[3:]:
        serve(folder, port, sys.argv[3] == KILLED)
        return
    for fate in (KILLED, "kept"):
        child = subprocess.Popen([sys.executable, "-m", __spec__.name, str(folder), port, fate])
        signal.signal(signal.SIGTERM, lambda *_, child=child: child.terminate())
        child.wait()


if __name__ == "__main__":
    main()
