"""What is wrong with the line: one verdict, and what to do about it.

First a line feed and a moment of listening, which makes a login console show itself; then a call
at the given rate; then, if nobody answers, a short call at every other rate that boards use.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress

from firmware_host import discovery
from firmware_host.diagnosis import Verdict, verdict
from firmware_host.discovery import Times, asked
from firmware_host.handshake import is_simulated, patience_for
from glioslice.errors import GliosliceError
from glioslice.wire.connection import Connection
from glioslice.wire.ports import BAUD, open_port

RATES = (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600, 1000000, 2000000, 3000000)

FarEnd = Callable[[argparse.Namespace], list[str]]


def work(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Print the verdict; exit code 0 for a healthy board only, else 2."""
    port = arguments.port
    if port is None:
        port, outcome = chosen(arguments.baud)
    if port is not None:
        simulated = is_simulated(port)
        command = far_end(arguments) if simulated else None
        times = Times(call=patience_for(port)) if simulated else Times()
        outcome = examine(port, arguments.baud or BAUD, command, times)
        if outcome.name == "no such port":
            names = [f"{name}  {description}" for name, description in discovery.listed()]
            print("ports that are there:", *(names or ["none"]), sep="\n  ")
    print(f"{outcome.name}: {outcome.seen}")
    print(f"{'next' if outcome.healthy else 'what to do'}: {outcome.advice}")
    sys.exit(0 if outcome.healthy else 2)


def chosen(baud: int | None) -> tuple[str | None, Verdict]:
    """Return the port to examine where none is named, and the verdict where it is None.

    The only one there is, or the only one where a board answers.
    """
    found = discovery.find(baud)
    for one in found:
        print(f"{one.port}  {one.description}  {one.seen}")
    boards = [one for one in found if one.hello]
    ports = boards or found
    if not ports:
        return None, verdict("no port", "this machine has no serial port")
    what = "boards answer; which one is meant?" if boards else "serial ports, a board at none"
    outcome = verdict("several ports", f"{len(ports)} {what}")
    return (ports[0].port if len(ports) == 1 else None), outcome


def examine(
    url: str, baud: int = BAUD, command: list[str] | None = None, times: Times | None = None
) -> Verdict:
    """Return what is found at the port; takes up to 15 seconds where nobody answers."""
    times = times or Times()
    outcome = asked(url, baud, command, times, knock=True).verdict
    if outcome.name in ("silence", "wrong baud rate") and "://" not in url:
        rate = answering_rate(url, baud, times)
        if rate is not None:
            seen = f"{url}: a board answers at {rate} baud, not at {baud}"
            return verdict("wrong baud rate", seen, rate=f"pass --baud {rate}")
    return outcome


def answering_rate(url: str, baud: int, times: Times) -> int | None:
    """Return another rate than `baud` at which a board answers, None if there is none."""
    for rate in RATES:
        if rate == baud:
            continue
        with (
            suppress(GliosliceError),
            Connection(open_port(url, rate), active=True) as line,
        ):
            line.open(times.short_call)
            return rate
    return None
