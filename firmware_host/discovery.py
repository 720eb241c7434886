"""One question to one port: is a board there, and if not, what is?

Whoever looks for a board must not disturb what is none. So a port is listened to first: one that
speaks plain text by itself is left alone, and one that is asked gets no more than a link's calls at
one rate. Only the doctor, who is told which port, knocks: a line feed makes a login console show.

The board among the ports of this machine: each likely one is asked, all at once.

    python firmware_host/stream.py --list                     # what is at which port
    python firmware_host/stream.py --port auto --input CASE   # the port where a board answers

A port that another program holds or that speaks by itself is left alone, Bluetooth's are not even
opened. Opening a port is felt by some boards all the same: a few start anew.
"""

import argparse
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from serial.tools import list_ports

from firmware_host.diagnosis import ADVICE, Verdict, verdict
from firmware_host.handshake import greet, known_models
from firmware_host.options import AUTO
from firmware_host.progress import ending, teller_of
from glioslice.errors import GliosliceError
from glioslice.wire.codecs import IMAGES, MASKS
from glioslice.wire.connection import Connection, PeerClosed, PeerRestarted, PeerSilent
from glioslice.wire.link import Counts, LinkError
from glioslice.wire.messages import VERSION, BoardHello, VersionError
from glioslice.wire.ports import BAUD, LineLost, Port, PortError, open_port
from glioslice.wire.transport import Reason

CONSOLE = re.compile(rb"login:|password:|U-Boot|\w+@[\w-]+[:\s][^\n]*[$#] ?$", re.IGNORECASE)
TEXT = re.compile(rb"[\t\r\n -~]{8,}")
"""What a receiver of satellites, a modem or a booting board says; a link's frames hold zeros."""

SHOWN = 30
"""Letters of it that are shown."""

ENOUGH = 4096
"""Bytes after which a talkative line has been heard enough."""

OPENING: dict[Reason, str] = {
    "missing": "no such port",
    "denied": "no permission",
    "busy": "busy",
    "invalid": "unusable",
    "lost": "lost",
    "stuck": "lost",
}


@dataclass(frozen=True)
class Times:
    """Seconds to listen, and for a board to answer a call at the given and at another rate."""

    listen: float = 1.0
    call: float = 5.0
    short_call: float = 0.7


@dataclass(frozen=True)
class Answer:
    """What was found at a port; `hello` where a board answered."""

    verdict: Verdict
    hello: BoardHello | None = None


def asked(
    url: str,
    baud: int = BAUD,
    command: list[str] | None = None,
    times: Times | None = None,
    *,
    knock: bool = False,
) -> Answer:
    """Return what is found at the port within the times."""
    times = times or Times()
    try:
        with closing(open_port(url, baud, command=command)) as port:
            heard = listen(port, times.listen, knock)
            if TEXT.fullmatch(heard) and not knock:
                return Answer(speaking(url, heard))
            return call(port, url, baud, times, heard)
    except LineLost as error:
        return Answer(verdict("lost", str(error)))
    except PortError as error:
        return Answer(verdict(OPENING[error.reason], str(error), port=url))


def listen(port: Port, seconds: float, knock: bool) -> bytes:
    """Return what comes within `seconds`, after a line feed if `knock`: a runner passes over it."""
    if knock:
        port.write(b"\r\n")
    heard, deadline = b"", time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and len(heard) < ENOUGH:
        heard += port.read(left)
    return heard


def call(port: Port, url: str, baud: int, times: Times, heard: bytes) -> Answer:
    """Call, and return what came; `heard` is what had come before."""
    with Connection(port, active=True) as line:
        try:
            hello = greet(line, times.call)
        except PeerSilent:
            return Answer(unanswered(url, heard + line.skipped, line.counts))
        except (PeerClosed, PeerRestarted) as error:
            return Answer(verdict("mute runner", str(error)))
        except (LinkError, VersionError) as error:
            return Answer(verdict("old protocol", str(error)))
        except PortError:
            raise
        except GliosliceError as error:
            return Answer(verdict("mute runner", str(error)))
    seen = "\n  ".join((f"{url}: a board answers", *described(hello)))
    rate = "" if baud == BAUD else f" --baud {baud}"
    return Answer(verdict("healthy", seen, port=url, baud=rate), hello)


def speaking(url: str, text: bytes) -> Verdict:
    """Return the verdict on a line that speaks plain text unasked: it is not called."""
    if CONSOLE.search(text):
        return unanswered(url, text, Counts())
    said = " ".join(text.decode("ascii").split())[:SHOWN]
    return verdict("wrong baud rate", f"{url}: something else speaks there, '{said}'; not called")


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


TIMES = Times(listen=0.3, call=4.0)
"""A board whose host was lost may take two seconds to come back to the rate at which all begin."""

LIMIT = 8.0
"""Seconds after which a port that has not even opened or closed is left behind."""

UNLIKELY = re.compile(r"rfcomm|bluetooth|BLTH|debug-console", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """What is at a port: a board that has said hello, or else why it is none."""

    port: str
    description: str
    hello: BoardHello | None = None
    wrong: str = ""

    @property
    def seen(self) -> str:
        """What was found, for people."""
        if self.hello is None:
            return f"no board: {self.wrong}"
        known = "" if self.hello.sha256 in known_models() else ", not known here"
        model = f"{self.hello.model}, SHA-256 {self.hello.sha256[:16]}...{known}"
        return f"board: model {model}, protocol {VERSION}"

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        hello = self.hello
        model = None if hello is None else {"name": hello.model, "sha256": hello.sha256}
        protocol = None if hello is None else VERSION
        return {
            "port": self.port,
            "description": self.description,
            "model": model,
            "protocol": protocol,
            "wrong": self.wrong or None,
        }


def work(arguments: argparse.Namespace) -> None:
    """Print what is at which port."""
    teller = teller_of(arguments)
    with ending(teller):
        found = find(arguments.baud)
        wide = max((len(f"{one.port}{one.description}") for one in found), default=0) + 4
        for one in found:
            teller.said(f"{f'{one.port}  {one.description}':{wide}}{one.seen}")
            teller.event("port", **one.as_json())
        if not found:
            teller.said(f"no serial port is here; {ADVICE['no port']}")


def port_of(port: str, baud: int | None, tell: Callable[[str], None]) -> str:
    """Return `port`, or for AUTO the one where a board answers; `tell` hears what was found.

    Raises GliosliceError if none does, or more than one.
    """
    if port.lower() != AUTO:
        return port
    found = find(baud)
    for one in found:
        tell(f"{one.port}: {one.seen}")
    boards = [one for one in found if one.hello]
    if len(boards) == 1:
        return boards[0].port
    if boards:
        names = " and ".join(f"{one.port} ({one.hello.model})" for one in boards if one.hello)
        raise GliosliceError(f"boards answer at {names}; name one: --port {boards[0].port}")
    if not found:
        raise GliosliceError(f"this machine has no serial port; {ADVICE['no port']}")
    asked = "; ".join(f"{one.port}: {one.wrong}" for one in found)
    raise GliosliceError(f"no board answers at any port ({asked}); --doctor --port PORT says more")


def find(baud: int | None = None) -> list[Found]:
    """Return what is at each serial port of this machine, in the order of their names.

    Takes five seconds where something does not answer, never more than LIMIT.
    """
    ports = listed()
    answers: dict[str, Answer] = {}

    def ask(port: str) -> None:
        answers[port] = asked(port, baud or BAUD, times=TIMES)

    threads = [
        threading.Thread(target=ask, args=(port,), name=f"ask {port}", daemon=True)
        for port, description in ports
        if not UNLIKELY.search(f"{port} {description}")
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + LIMIT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [_found(port, description, answers.get(port)) for port, description in ports]


def listed() -> list[tuple[str, str]]:
    """Return name and description of each serial port of this machine."""
    return [(port.device, port.description) for port in sorted(list_ports.comports())]


def _found(port: str, description: str, answer: Answer | None) -> Found:
    if UNLIKELY.search(f"{port} {description}"):
        return Found(port, description, wrong="Bluetooth, not asked")
    if answer is None:
        return Found(port, description, wrong=f"no answer within {LIMIT:.0f} s, not even an error")
    if answer.hello is not None:
        return Found(port, description, answer.hello)
    wrong = " ".join(answer.verdict.seen.removeprefix(f"{port}: ").split())
    return Found(port, description, wrong=wrong)
