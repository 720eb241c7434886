"""What is wrong with the line: one verdict, and what to do about it.

First a line feed and a moment of listening, which makes a login console show itself; then a call
at the given rate; then, if nobody answers, a short call at every other rate that boards use.
"""

import argparse
import re
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass

from serial.tools import list_ports

from firmware_host.board import greet, is_simulated, known_models, patience_for
from firmware_host.verdicts import Verdict, verdict
from glioslice.errors import GliosliceError
from glioslice.wire.codecs import IMAGES, MASKS
from glioslice.wire.connection import Connection, PeerClosed, PeerRestarted, PeerSilent
from glioslice.wire.link import Counts, LinkError
from glioslice.wire.messages import BoardHello, VersionError
from glioslice.wire.ports import BAUD, LineLost, Port, PortError, open_port
from glioslice.wire.transport import Reason

CONSOLE = re.compile(rb"login:|password:|U-Boot|\w+@[\w-]+[:\s][^\n]*[$#] ?$", re.IGNORECASE)
LISTEN = 1.0
ENOUGH = 4096
"""Bytes after which a talkative line has been heard enough."""

CALL = 5.0
SHORT_CALL = 0.7
"""Seconds; a host calls four times a second."""

RATES = (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600, 1000000, 2000000, 3000000)

OPENING: dict[Reason, str] = {
    "missing": "no such port",
    "denied": "no permission",
    "busy": "busy",
    "invalid": "unusable",
    "lost": "lost",
    "stuck": "lost",
}


FarEnd = Callable[[argparse.Namespace], list[str]]


@dataclass(frozen=True)
class Times:
    """Seconds to listen, and for a board to answer a call at the given and at another rate."""

    listen: float = LISTEN
    call: float = CALL
    short_call: float = SHORT_CALL


def work(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Print the verdict; exit code 0 for a healthy board only, else 2."""
    port = arguments.port
    found = listed_ports()
    if port is None:
        print(*(found or ["no serial ports"]), sep="\n")
        names = [line.split()[0] for line in found]
        outcome = verdict("no port", "this machine has no serial port")
        if len(names) > 1:
            outcome = verdict("several ports", f"{len(names)} serial ports; which is the board?")
        port = names[0] if len(names) == 1 else None
    if port is not None:
        simulated = is_simulated(port)
        command = far_end(arguments) if simulated else None
        times = Times(call=patience_for(port)) if simulated else Times()
        outcome = examine(port, arguments.baud or BAUD, command, times)
        if outcome.name == "no such port":
            print("ports that are there:", *(found or ["none"]), sep="\n  ")
    print(f"{outcome.name}: {outcome.seen}")
    print(f"{'next' if outcome.healthy else 'what to do'}: {outcome.advice}")
    sys.exit(0 if outcome.healthy else 2)


def listed_ports() -> list[str]:
    """Return a line for each serial port of this machine, its name first."""
    return [f"{p.device}  {p.description}" for p in sorted(list_ports.comports())]


def examine(
    url: str, baud: int = BAUD, command: list[str] | None = None, times: Times | None = None
) -> Verdict:
    """Return what is found at the port; takes up to 15 seconds where nobody answers."""
    times = times or Times()
    try:
        with closing(open_port(url, baud, command=command)) as port:
            outcome = call(port, url, baud, times)
    except LineLost as error:
        return verdict("lost", str(error))
    except PortError as error:
        return verdict(OPENING[error.reason], str(error), port=url)
    if outcome.name in ("silence", "wrong baud rate") and "://" not in url:
        rate = answering_rate(url, baud, times)
        if rate is not None:
            seen = f"{url}: a board answers at {rate} baud, not at {baud}"
            return verdict("wrong baud rate", seen, rate=f"pass --baud {rate}")
    return outcome


def call(port: Port, url: str, baud: int, times: Times) -> Verdict:
    """Listen, call, and return what came."""
    first = listen(port, times.listen)
    with Connection(port, active=True) as line:
        try:
            hello = greet(line, times.call)
        except PeerSilent:
            return unanswered(url, first + line.skipped, line.counts)
        except (PeerClosed, PeerRestarted) as error:
            return verdict("mute runner", str(error))
        except (LinkError, VersionError) as error:
            return verdict("old protocol", str(error))
        except PortError:
            raise
        except GliosliceError as error:
            return verdict("mute runner", str(error))
    return verdict(
        "healthy",
        "\n  ".join((f"{url}: a board answers", *described(hello))),
        port=url,
        baud="" if baud == BAUD else f" --baud {baud}",
    )


def listen(port: Port, seconds: float) -> bytes:
    """Return what comes within `seconds` of a line feed, which a runner passes over."""
    port.write(b"\r\n")
    heard, deadline = b"", time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and len(heard) < ENOUGH:
        heard += port.read(left)
    return heard


def unanswered(url: str, text: bytes, counts: Counts) -> Verdict:
    """Return the verdict on a line where no board answered but `text` may have come."""
    if CONSOLE.search(text):
        return verdict("login console", f"{url}: a login console answers, not a board's runner")
    if counts.echoes:
        return verdict("loop-back", f"{url}: our own bytes come back")
    if text or counts.bytes_received:
        return verdict(
            "wrong baud rate",
            f"{url}: bytes arrive but none of them make sense",
            rate=f"pass the runner's --baud here too ({BAUD} is the default of both), or another "
            "program talks there",
        )
    return verdict("silence", f"{url}: opens, but nothing is heard at any rate that was tried")


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


def described(hello: BoardHello) -> list[str]:
    """Return a board's hello for people."""
    known = "known here" if hello.sha256 in known_models() else "not known here: see --allow-model"
    images = [c.name for n, c in IMAGES.items() if hello.image_codecs >> n & 1]
    masks = [c.name for n, c in MASKS.items() if hello.mask_codecs >> n & 1]
    return [
        f"model     {hello.model}, SHA-256 {hello.sha256} ({known})",
        f"can       {' and '.join(sorted(mode.name.lower() for mode in hello.modes))}",
        f"window    {hello.window[0]} x {hello.window[1]} of {', '.join(hello.modalities)}",
        f"codecs    images {', '.join(images)}; masks {', '.join(masks)}",
    ]
