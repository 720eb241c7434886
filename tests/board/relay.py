"""Carry bytes between two serial ports: the far end of a line at which no process can be started.

python -m tests.board.relay PORT OTHER
"""

import os
import sys
import threading
import tty


def carry(here: int, there: int) -> None:
    """Carry bytes one way, at the pace at which they are taken, until an end is gone."""
    while data := os.read(here, 1024):
        while data:
            data = data[os.write(there, data) :]


def main() -> None:
    """Carry both ways until the first port is gone."""
    first, second = (os.open(name, os.O_RDWR | os.O_NOCTTY) for name in sys.argv[1:3])
    for end in (first, second):
        tty.setraw(end)
    threading.Thread(target=carry, args=(second, first), daemon=True).start()
    carry(first, second)


if __name__ == "__main__":
    main()
