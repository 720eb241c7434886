"""List the serial ports and the board found at each.

    glioslice ports                           # what is at each port
    glioslice stream CASE --port auto         # use the port where a board replies

All likely ports are probed at the same time. Whoever looks for a board must not disturb other
devices: a port is first listened to, one that sends plain text by itself is left alone, and the
others receive only a handshake at one rate. Ports that another program holds are left alone, and
Bluetooth ports are not opened. Some boards restart whenever their port is opened.

Only the doctor, which is given a port, sends a line feed first, so that a login console shows.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import logging
import re
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from serial.tools.list_ports import comports

from firmware_host.diagnosis import ADVICE, Diagnosis, LinkAltersBytes, diagnosis
from firmware_host.handshake import known_models, receive_hello
from firmware_host.options import AUTO
from firmware_host.progress import open_reporter
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.wire.codecs import IMAGES, MASKS
from glioslice.wire.connection import Connection, PeerClosed, PeerRestarted, PeerSilent
from glioslice.wire.framing import FrameReader
from glioslice.wire.link import Counts, LinkError
from glioslice.wire.messages import VERSION, BoardHello, VersionError
from glioslice.wire.ports import BAUD, LineLost, Port, PortError, open_port
from glioslice.wire.transport import Reason

logger = logging.getLogger(__name__)

CONSOLE = re.compile(rb"login:|password:|U-Boot|\w+@[\w-]+[:\s][^\n]*[$#] ?$", re.IGNORECASE)
FAULT = re.compile(rb"glioslice: fault at (0x[0-9a-f]{8})[^\r\n]*")
"""What the firmware of a microcontroller prints before it resets."""

TEXT = re.compile(rb"[\t\r\n -~]{8,}")
"""What a GPS receiver, a modem or a booting board sends; the frames of a link contain zeros."""

SHORT_FRAME = 16, 32
"""Bytes of an OPEN, which a board sends four times a second: 20 with its coding."""

SEVEN_BITS = 64
"""Bytes of frames that chance leaves without a top bit once in some thousands of millions."""

SHOWN = 30
"""Characters of it that are shown."""

LISTEN_LIMIT = 4096
"""Bytes after which a device that keeps sending has been listened to long enough."""

OPENING_ERRORS: dict[Reason, str] = {
    "missing": "no such port",
    "denied": "no permission",
    "busy": "busy",
    "invalid": "unusable port",
    "lost": "connection lost",
    "stuck": "connection lost",
}

PROBE_LIMIT = 8.0
"""Seconds after which a port that has neither opened nor failed is given up."""

UNLIKELY = re.compile(r"rfcomm|bluetooth|BLTH|debug-console", re.IGNORECASE)


@dataclass(frozen=True)
class ProbeTimes:
    """Seconds to listen, and to wait for a reply at the given rate and at each other rate."""

    listen: float = 1.0
    reply: float = 5.0
    other_rate: float = 0.7


DISCOVERY_TIMES = ProbeTimes(listen=0.3, reply=4.0)
"""A board that lost its host takes up to two seconds to return to the initial rate."""


@dataclass(frozen=True)
class ProbeResult:
    """What was found at a port; `hello` is None if no board replied."""

    diagnosis: Diagnosis
    hello: BoardHello | None = None


@dataclass(frozen=True)
class PortStatus:
    """A serial port: the hello of its board, or the reason why none was found."""

    port: str
    description: str
    hello: BoardHello | None = None
    reason: str = ""

    @property
    def summary(self) -> str:
        """What was found, on one line."""
        if self.hello is None:
            return f"no board: {self.reason}"
        known = "" if self.hello.sha256 in known_models() else ", not known here"
        model = f"{self.hello.model}, SHA-256 {self.hello.sha256[:16]}...{known}"
        return f"board: model {model}, protocol {VERSION}"

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        hello = self.hello
        return {
            "port": self.port,
            "description": self.description,
            "model": None if hello is None else {"name": hello.model, "sha256": hello.sha256},
            "protocol": None if hello is None else VERSION,
            "error": self.reason or None,
        }


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and list the ports."""
    parser = cli.parser("List the serial ports and the board at each.", "glioslice ports")
    parser.add_argument(
        "--baud", type=cli.positive, help=f"baud rate of the boards; default: {BAUD}"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    cli.run(list_ports, parser.parse_args(argv))


def list_ports(arguments: argparse.Namespace) -> None:
    """Print what is at each port."""
    with open_reporter(arguments) as reporter:
        found = probe_all(arguments.baud)
        width = max((len(f"{one.port}{one.description}") for one in found), default=0) + 4
        for one in found:
            reporter.result(f"{f'{one.port}  {one.description}':{width}}{one.summary}")
            reporter.event("port", **one.as_json())
        if not found:
            reporter.result(f"no serial port found; {ADVICE['no port']}")


def resolve_port(port: str, baud: int | None) -> str:
    """Return `port`, or for AUTO the one where a board replies.

    Raises GliosliceError if none does, or more than one.
    """
    if port.lower() != AUTO:
        return port
    found = probe_all(baud)
    for one in found:
        logger.info("%s: %s", one.port, one.summary)
    boards = [one for one in found if one.hello]
    if len(boards) == 1:
        return boards[0].port
    if boards:
        names = " and ".join(f"{one.port} ({one.hello.model})" for one in boards if one.hello)
        raise GliosliceError(f"boards found at {names}; name one: --port {boards[0].port}")
    if not found:
        raise GliosliceError(f"this machine has no serial port; {ADVICE['no port']}")
    reasons = "; ".join(f"{one.port}: {one.reason}" for one in found)
    raise GliosliceError(
        f"no board found at any port ({reasons}); diagnose one: `glioslice doctor --port PORT`"
    )


def probe_all(baud: int | None = None) -> list[PortStatus]:
    """Return the status of each serial port of this machine, sorted by name.

    Takes five seconds if a device does not reply, and never more than PROBE_LIMIT.
    """
    ports = serial_ports()
    results: dict[str, ProbeResult] = {}

    def probe(port: str) -> None:
        results[port] = probe_port(port, baud or BAUD, times=DISCOVERY_TIMES)

    threads = [
        threading.Thread(target=probe, args=(port,), name=f"probe {port}", daemon=True)
        for port, description in ports
        if not UNLIKELY.search(f"{port} {description}")
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PROBE_LIMIT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [_port_status(port, description, results.get(port)) for port, description in ports]


def serial_ports() -> list[tuple[str, str]]:
    """Return name and description of each serial port of this machine."""
    return [(port.device, port.description) for port in sorted(comports())]


def _port_status(port: str, description: str, result: ProbeResult | None) -> PortStatus:
    if UNLIKELY.search(f"{port} {description}"):
        return PortStatus(port, description, reason="Bluetooth, not probed")
    if result is None:
        return PortStatus(port, description, reason=f"no reply within {PROBE_LIMIT:.0f} s")
    if result.hello is not None:
        return PortStatus(port, description, result.hello)
    reason = " ".join(result.diagnosis.finding.removeprefix(f"{port}: ").split())
    return PortStatus(port, description, reason=reason)


def probe_port(
    url: str,
    baud: int = BAUD,
    command: list[str] | None = None,
    times: ProbeTimes | None = None,
    *,
    line_feed: bool = False,
) -> ProbeResult:
    """Return what is found at a port.

    `line_feed` wakes a login console, and lets noise be streamed to a board that is found.
    """
    times = times or ProbeTimes()
    try:
        with closing(open_port(url, baud, command=command)) as port:
            received = read_for(port, times.listen, line_feed)
            if TEXT.fullmatch(received) and not line_feed:
                return ProbeResult(diagnose_text(url, received))
            return request_hello(port, url, baud, times, received, check=line_feed)
    except LineLost as error:
        return ProbeResult(diagnosis("connection lost", str(error)))
    except PortError as error:
        return ProbeResult(diagnosis(OPENING_ERRORS[error.reason], str(error), port=url))


def read_for(port: Port, seconds: float, line_feed: bool) -> bytes:
    """Return what arrives within `seconds`; a board ignores the line feed."""
    if line_feed:
        port.write(b"\r\n")
    received, deadline = b"", time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and len(received) < LISTEN_LIMIT:
        received += port.read(left)
    return received


def request_hello(
    port: Port, url: str, baud: int, times: ProbeTimes, received: bytes, *, check: bool = False
) -> ProbeResult:
    """Start a handshake and return its result; `received` is what had arrived before.

    `check` streams noise to the board that replies.
    """
    with Connection(port, active=True) as connection:
        lines = []
        try:
            hello = receive_hello(connection, times.reply)
            if check:
                lines = link_lines(connection, hello)
        except LinkAltersBytes as error:
            return ProbeResult(diagnosis("bytes altered", str(error)))
        except LinkCheckFailed as error:
            board = is_firmware(hello)
            return ProbeResult(diagnosis("check failed", str(error), firmware=board))
        except PeerSilent:
            unknown = received + connection.skipped
            return ProbeResult(diagnose_silence(url, unknown, connection.counts))
        except (PeerClosed, PeerRestarted) as error:
            return ProbeResult(diagnosis("no hello", str(error)))
        except (LinkError, VersionError) as error:
            return ProbeResult(diagnosis("protocol mismatch", str(error)))
        except PortError:
            raise
        except GliosliceError as error:
            return ProbeResult(diagnosis("no hello", str(error)))
    finding = "\n  ".join((f"{url}: a board replies", *describe_board(hello), *lines))
    rate = "" if baud == BAUD else f" --baud {baud}"
    return ProbeResult(diagnosis("healthy", finding, port=url, baud=rate), hello)


class LinkCheckFailed(GliosliceError):
    """A board replies, but a short run over its link does not succeed."""


def link_lines(connection: Connection, hello: BoardHello) -> list[str]:
    """Stream noise to a board and return what crossed, a line for the findings.

    Raises LinkAltersBytes and LinkCheckFailed.
    """
    from firmware_host.link_check import check_link, may_check  # imports scipy

    if not may_check(hello):
        return ["link      not tested: the board plays its own case, or holds an interrupted run"]
    try:
        return [f"link      {check_link(connection, hello)}"]
    except LinkAltersBytes:
        raise
    except GliosliceError as error:
        raise LinkCheckFailed(f"{connection.name}: a board replies, but: {error}") from error


def diagnose_text(url: str, text: bytes) -> Diagnosis:
    """Return the diagnosis of a port that sends plain text by itself."""
    if CONSOLE.search(text) or FAULT.search(text):
        return diagnose_silence(url, text, Counts())
    shown = " ".join(text.decode("ascii").split())[:SHOWN]
    return diagnosis("wrong baud rate", f"{url}: another device sends '{shown}'; left alone")


def diagnose_silence(url: str, text: bytes, counts: Counts) -> Diagnosis:
    """Return the diagnosis of a port where no board replied but `text` may have arrived."""
    if fault := FAULT.search(text):
        printed = fault[0].decode("ascii", "replace")
        return diagnosis("firmware fault", f"{url}: {printed}", place=fault[1].decode())
    if CONSOLE.search(text):
        return diagnosis("login console", f"{url}: a login console, not a board's server")
    if counts.echoes:
        return diagnosis("loop-back", f"{url}: our own bytes come back")
    if holds_frame(text.replace(b"\xff\xff", b"\xff")):
        finding = f"{url}: frames arrive whose bytes of 0xFF are doubled, as telnet and PARMRK do"
        return diagnosis("bytes altered", finding)
    if len(text) >= SEVEN_BITS and max(text) < 0x80 and b"\0" in text:
        finding = f"{url}: frames arrive without the top bit of their bytes: a link of 7 data bits"
        return diagnosis("bytes altered", finding)
    if text or counts.bytes_received:
        return diagnosis(
            "wrong baud rate",
            f"{url}: bytes arrive but form no valid frame",
            rate=f"pass the server's --baud here too (the default of both is {BAUD}), unless "
            "another program sends there",
        )
    return diagnosis("silence", f"{url}: opens, but no reply at any rate that was tried")


def holds_frame(sample: bytes) -> bool:
    """Return whether a short frame is somewhere in bytes that have lost their delimiters."""
    ends = range(SHORT_FRAME[0], SHORT_FRAME[1] + 1)
    starts = range(min(len(sample), 2 * SHORT_FRAME[1]))
    return any(FrameReader().feed(sample[at : at + size] + b"\0") for at in starts for size in ends)


def is_firmware(hello: BoardHello) -> bool:
    """Return whether a board is a microcontroller: only such a one limits payloads."""
    return hello.largest_payload > 0


def describe_board(hello: BoardHello) -> list[str]:
    """Return the contents of a board's hello, a line each."""
    known = "known here" if hello.sha256 in known_models() else "not known here: see --allow-model"
    images = [c.name for n, c in IMAGES.items() if hello.image_codecs >> n & 1]
    masks = [c.name for n, c in MASKS.items() if hello.mask_codecs >> n & 1]
    firmware = "board     firmware of a microcontroller: one baud rate, it remembers no run"
    return [
        *([firmware] if is_firmware(hello) else []),
        f"model     {hello.model}, SHA-256 {hello.sha256} ({known})",
        f"kernels   {hello.kernels}",
        f"modes     {' and '.join(sorted(mode.name.lower() for mode in hello.modes))}",
        f"window    {hello.window[0]} x {hello.window[1]} of {', '.join(hello.modalities)}",
        f"codecs    images {', '.join(images)}; masks {', '.join(masks)}",
    ]


if __name__ == "__main__":
    main()
