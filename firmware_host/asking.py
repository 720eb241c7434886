"""One question to one port: is a board there, and if not, what is?

Whoever looks for a board must not disturb what is none. So a port is listened to first: one that
speaks plain text by itself is left alone, and one that is asked gets no more than a link's calls at
one rate. Only the doctor, who is told which port, knocks: a line feed makes a login console show.
"""

import re
import time
from contextlib import closing
from dataclasses import dataclass

from firmware_host.board import greet, known_models
from firmware_host.verdicts import Verdict, verdict
from glioslice.errors import GliosliceError
from glioslice.wire.codecs import IMAGES, MASKS
from glioslice.wire.connection import Connection, PeerClosed, PeerRestarted, PeerSilent
from glioslice.wire.link import Counts, LinkError
from glioslice.wire.messages import BoardHello, VersionError
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
