"""The device's server, which waits at its Nth slice until a file exists: a run stays half done.

python -m tests.firmware_host.gated FILE N --port PORT      # and other options of the device
"""

import sys
from itertools import count

from device import run
from device.__main__ import main
from tests.firmware_host.scripted import wait_at


def wait_at_slice(gate: str, number: int) -> None:
    """Let this process wait at a slice, counted from 0 over all runs."""
    mask, done = run.SegmentationRun.segment_slice, count()

    def waiting(self, *options):  # type: ignore[no-untyped-def]
        if next(done) == number:
            wait_at(f"gate:{gate}")
        return mask(self, *options)

    run.SegmentationRun.segment_slice = waiting  # type: ignore[method-assign]


if __name__ == "__main__":
    wait_at_slice(sys.argv[1], int(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    main()
