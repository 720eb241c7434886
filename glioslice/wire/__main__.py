"""Print a session for people: a recording, or a line on which others talk.

    python -m glioslice.wire session.rec
    python -m glioslice.wire /dev/ttyUSB1 --baud 921600     # until Ctrl-C; nothing is written to it

Where both directions of a line are wired to one receiver, both are told apart.
"""

import argparse
import time
from pathlib import Path

from glioslice import command
from glioslice.errors import GliosliceError
from glioslice.wire.ports import open_port
from glioslice.wire.printing import HEAD, Printer, printed
from glioslice.wire.recording import records
from glioslice.wire.transport import PortError

WAIT = 0.5
"""Seconds of one look at a port."""


def main() -> None:
    """Do what the command line says."""
    parser = command.parser(
        "Print a recorded session, or one that crosses a line now, a line a frame.",
        "python -m glioslice.wire session.rec",
    )
    parser.prog = "python -m glioslice.wire"
    parser.add_argument("what", metavar="FILE-or-PORT", help="of stream.py --record, or a port")
    parser.add_argument("--baud", type=int, help="of the port; default: 115200")
    command.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Print the file, or listen at the port."""
    path = Path(arguments.what)
    if path.is_file():
        for line in printed(records(path)):
            print(line)
    else:
        listen(arguments.what, arguments.baud)


def listen(name: str, baud: int | None) -> None:
    """Print what others say on a port until Ctrl-C, or until the line is lost; writes nothing."""
    try:
        port = open_port(name, baud)
    except PortError as error:
        if error.reason == "missing" and "://" not in name:
            raise GliosliceError(f"{name}: there is no such recording and no such port") from None
        raise
    printer, began = Printer(), time.monotonic()
    print(HEAD, flush=True)
    try:
        while True:
            data = port.read(WAIT)
            for line in printer.bytes(None, data, time.monotonic() - began):
                print(line, flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        port.close()
        for line in printer.closing():
            print(line)


if __name__ == "__main__":
    main()
