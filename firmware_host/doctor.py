"""Diagnose the serial link to a board and advise what to fix.

    glioslice doctor                          # the only port, or the only one with a board
    glioslice doctor --port /dev/ttyUSB0

It sends a line feed and listens, so that a login console shows itself. Then it starts a handshake
at the given rate, and if no board replies, a short one at every other rate that boards use. To a
board that replies it streams three slices of noise, so that every byte value crosses both ways.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing, suppress

from firmware_host import discovery
from firmware_host.diagnosis import Diagnosis, diagnosis, find_cause
from firmware_host.discovery import ProbeTimes, probe_port
from firmware_host.handshake import device_command, hello_timeout, is_simulated
from firmware_host.options import FarEnd
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.wire.connection import Connection
from glioslice.wire.ports import BAUD, open_port

CANDIDATE_RATES = (
    9600,
    19200,
    38400,
    57600,
    115200,
    230400,
    460800,
    921600,
    1000000,
    2000000,
    3000000,
)


MAYBE_ALTERED = ("bytes altered", "silence", "wrong baud rate", "check failed", "no hello")
"""Findings behind which a link that alters bytes may be: it is luck what arrives of a handshake."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and diagnose the link."""
    parser = cli.parser(
        "Diagnose the serial link to a board and advise what to fix. The exit code is 0 only if a "
        "board replies.",
        "glioslice doctor --port /dev/ttyUSB0",
    )
    parser.add_argument(
        "--port", help="the port to examine; default: the only one, or the only one with a board"
    )
    parser.add_argument(
        "--baud", type=cli.positive, help=f"baud rate of the board; default: {BAUD}"
    )
    parser.add_argument(
        "--model", help="model of a simulated board: nano, compact, a model folder or a file"
    )
    cli.run(
        lambda given: examine(given, lambda _: device_command(given.model, given.baud)),
        parser.parse_args(argv),
    )


def examine(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Print the diagnosis; exits with 0 for a healthy board only, else with 2."""
    port, found = arguments.port, None
    if port is None:
        port, found = choose_port(arguments.baud)
    if port is not None:
        simulated = is_simulated(port)
        command = far_end(arguments) if simulated else None
        times = ProbeTimes(reply=hello_timeout(port)) if simulated else ProbeTimes()
        found = diagnose_port(port, arguments.baud or BAUD, command, times)
        if found.name == "no such port":
            names = [f"{name}  {description}" for name, description in discovery.serial_ports()]
            print("existing ports:", *(names or ["none"]), sep="\n  ")
    assert found is not None
    print(f"{found.name}: {found.finding}")
    print(f"{'next' if found.healthy else 'what to do'}: {found.advice}")
    sys.exit(0 if found.healthy else 2)


def choose_port(baud: int | None) -> tuple[str | None, Diagnosis]:
    """Return the port to diagnose if none was named, and the diagnosis if it is None.

    It is the only port, or the only one where a board replies.
    """
    found = discovery.probe_all(baud)
    for one in found:
        print(f"{one.port}  {one.description}  {one.summary}")
    boards = [one for one in found if one.hello]
    ports = boards or found
    if not ports:
        return None, diagnosis("no port", "this machine has no serial port")
    what = "boards reply" if boards else "serial ports, none with a board"
    outcome = diagnosis("several ports", f"{len(ports)} {what}")
    return (ports[0].port if len(ports) == 1 else None), outcome


def diagnose_port(
    url: str, baud: int = BAUD, command: list[str] | None = None, times: ProbeTimes | None = None
) -> Diagnosis:
    """Return the diagnosis of a port; takes up to 15 seconds if no board replies."""
    times = times or ProbeTimes()
    found = probe_port(url, baud, command, times, line_feed=True).diagnosis
    if found.name in MAYBE_ALTERED and not is_simulated(url):
        with suppress(GliosliceError), closing(open_port(url, baud)) as port:
            if cause := find_cause(port, url):
                finding = f"{url}: a board replies, but {cause[0]}"
                return Diagnosis("bytes altered", finding, cause[1])
    if found.name in ("silence", "wrong baud rate") and "://" not in url:
        rate = find_baud_rate(url, baud, times)
        if rate is not None:
            finding = f"{url}: a board replies at {rate} baud, not at {baud}"
            return diagnosis("wrong baud rate", finding, rate=f"pass --baud {rate}")
    return found


def find_baud_rate(url: str, baud: int, times: ProbeTimes) -> int | None:
    """Return a rate other than `baud` at which a board replies, None if there is none."""
    for rate in CANDIDATE_RATES:
        if rate == baud:
            continue
        with (
            suppress(GliosliceError),
            Connection(open_port(url, rate), active=True) as connection,
        ):
            connection.open(times.other_rate)
            return rate
    return None


if __name__ == "__main__":
    main()
