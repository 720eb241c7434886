"""Forward bytes between two serial ports, as the far end of a link to a virtual machine.

python -m tests.board.relay PORT OTHER
"""

import os
import sys
import threading
import tty


def forward(source: int, target: int) -> None:
    """Forward bytes one way, as fast as they are accepted, until an end is closed."""
    while data := os.read(source, 1024):
        while data:
            data = data[os.write(target, data) :]


def main() -> None:
    """Forward both ways until the first port is closed."""
    first, second = (os.open(name, os.O_RDWR | os.O_NOCTTY) for name in sys.argv[1:3])
    for end in (first, second):
        tty.setraw(end)
    threading.Thread(target=forward, args=(second, first), daemon=True).start()
    forward(first, second)


if __name__ == "__main__":
    main()
