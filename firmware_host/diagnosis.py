"""What is wrong with a link: the findings of the doctor, and a watch for a link that alters bytes.

Software flow control, a telnet server, a port with 7 bits or one that marks parity errors eats or
doubles certain bytes. A long frame contains every value, so it fails each time that it is sent; the
frames that keep the link alive are short and mostly pass. That distinguishes such a link from one
that is only bad. Which bytes it alters is found with OPEN packets that are never confirmed: a board
replies to each with the sender's number, which consists of the value in question.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from glioslice.errors import GliosliceError
from glioslice.inventory import last_deployment
from glioslice.wire import packets
from glioslice.wire.connection import Connection
from glioslice.wire.framing import FrameReader, encode_frame
from glioslice.wire.packets import Open, PacketError
from glioslice.wire.transport import Port

ADVICE = {
    "healthy": "stream to it: glioslice stream CASE --port {port}{baud}",
    "no port": "plug the board in; use a cable that carries data (many only charge), and look at "
    "`dmesg` or the device manager for the adapter's driver",
    "several ports": "name the board's port: --port PORT",
    "no such port": "plug the board in and choose one of the ports above; names can change",
    "no permission": "add yourself to the group that owns serial ports and log in again: "
    "sudo usermod -aG dialout $USER (on some systems the group is uucp)",
    "busy": "close the other program: a terminal, another run, ModemManager "
    "(`fuser -v {port}` names it)",
    "unusable port": "check the name; examples: /dev/ttyUSB0, /dev/ttyACM0, COM3, "
    "socket://HOST:PORT, sim://",
    "connection lost": "check cable and power; a board that keeps restarting lacks current",
    "silence": "{service}; then check that TX and RX are crossed, that the grounds are connected, "
    "and that the link has 8 data bits, no parity and no flow control",
    "login console": "the board's operating system uses this port: disable its serial console (on "
    "a Raspberry Pi `sudo raspi-config`, Interface Options, Serial Port: login shell no, hardware "
    "yes), reboot it and start the server there",
    "wrong baud rate": "both ends need the same rate: {rate}",
    "loop-back": "every byte that is sent comes straight back: remove the loop-back plug, separate "
    "TX and RX, or switch off the echo of the adapter or terminal server",
    "bytes altered": "make the link transparent: raw mode at a terminal server (no telnet), 8 data "
    "bits, no parity, no marked parity errors (PARMRK), no software flow control (XON/XOFF)",
    "check failed": "see what the board was doing: {service}",
    "protocol mismatch": "install the same glioslice on both ends, then restart the server; flash "
    "a microcontroller with the firmware of this version",
    "no hello": "the link is up but the server sends nothing: {service}",
    "firmware fault": "the board resets itself after this; if it happens again, find the line with "
    "`arm-none-eabi-addr2line -e firmware.elf {place}` and report it",
}

START = (
    "start the server on the board, or restart it: python -m device --port PORT (after `glioslice "
    "deploy`: systemctl status glioslice)"
)

FIRMWARE = (
    "reset the microcontroller, or flash its firmware again (docs/firmware.md); it has no log, and "
    "its baud rate is fixed when the firmware is built: pass it as --baud"
)

STUCK = 8.0
"""Seconds without progress after which the counts are looked at; a trial of a baud rate takes 1."""

UNPLUGGED = 3.0
"""Seconds without any frame after which counting starts again: a peer sends one every second."""

ENOUGH = 4
"""Retransmissions of data, or damaged frames from the far end, in that time."""

TRANSPARENT = (
    "the link alters some bytes, as software flow control (XON/XOFF), a telnet server, 7 data "
    "bits or marked parity errors do; make it transparent (raw, 8 bits, no parity, no flow "
    "control); see `glioslice doctor --port PORT`"
)


@dataclass(frozen=True)
class Diagnosis:
    """One finding: its name (a key of ADVICE), what was found, what to do."""

    name: str
    finding: str
    advice: str

    @property
    def healthy(self) -> bool:
        """Whether a run can start."""
        return self.name == "healthy"


def diagnosis(
    name: str,
    finding: str,
    *,
    port: str = "PORT",
    baud: str = "",
    rate: str = "",
    place: str = "",
    firmware: bool = False,
) -> Diagnosis:
    """Return the diagnosis `name` with its advice filled in.

    With `firmware` the board is known to be a microcontroller, which has no service to look at.
    """
    service = FIRMWARE if firmware else service_advice()
    advice = ADVICE[name].format(port=port, baud=baud, rate=rate, place=place, service=service)
    return Diagnosis(name, finding, advice)


def service_advice() -> str:
    """Return how to look at the board's server: at the service, where one was deployed.

    Otherwise the board may be a microcontroller as well.
    """
    deployed = last_deployment()
    if deployed is None:
        return f"{START}; or {FIRMWARE}"
    return (
        f"see why the service on {deployed.board} does not reply (deployed on {deployed.date}, "
        f"port {deployed.port}): ssh {deployed.board} systemctl status glioslice"
    )


class LinkAltersBytes(GliosliceError):
    """Frames with all values never arrive, although short ones do."""


class LinkWatch:
    """Watches one connection; call `check` whenever nothing has arrived for a moment."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._mark()

    def _mark(self) -> None:
        self._since = self._heard = time.monotonic()
        self._progress = self._connection.progress
        self._counts = self._connection.counts
        self._received = self._counts.frames_received

    def check(self) -> None:
        """Raise LinkAltersBytes if data has failed often, and only data, since the last progress.

        A bad line lets a frame through now and then, and an unplugged one lets nothing through:
        what failed while it was unplugged does not count, also when it is back.
        """
        time_now, now, then = time.monotonic(), self._connection.counts, self._counts
        if now.frames_received > self._received:
            self._received, self._heard = now.frames_received, time_now
        if self._connection.progress != self._progress or time_now - self._heard > UNPLUGGED:
            self._mark()
            return
        seconds = time_now - self._since
        if seconds < STUCK:
            return
        alive = now.frames_received - then.frames_received > 1
        failed = max(now.retransmits - then.retransmits, now.bad_frames - then.bad_frames)
        if alive and failed >= ENOUGH:
            raise LinkAltersBytes(
                f"{self._connection.name}: short frames arrive, but in {seconds:.0f} s no frame "
                f"with data did, in {failed} attempts: {TRANSPARENT}"
            )
        self._mark()


HARMLESS = (0x41, 0x52, 0x63)
"""Values that every link carries: letters."""

CONTROLS = (0x15, 0x17, 0x1A, 0x1C, 0x7F)
"""Some of what a terminal that is not in raw mode takes for itself. 0x03 and 0x04, which every
frame holds, are not among them: without these nothing arrives at all."""

PAYLOAD = 0x0241
"""Bytes that our OPEN offers, a number without `packets.ALTERED`."""

REPLY = 0.5
"""Seconds that a board may take to reply, of which a twentieth is the frames at 9,600 baud."""

RESTART = 6.0
"""Seconds in which a board that still holds a session gives it up."""

CAUSES = (
    (
        (0x11, 0x13), "software flow control (XON/XOFF) takes them",
        "switch it off at both ends and at every server in between (stty -F {port} -ixon -ixoff)",
    ),
    (
        (0xFF,), "a telnet or RFC 2217 server takes it as a command (IAC)",
        "let the server pass raw bytes (ser2net: raw, not telnet) and use --port socket://HOST:PORT",
    ),
    (
        (0x0D, 0x0A), "line ends are translated (CR, LF)",
        "switch the translation off: raw mode at both ends and at every server in between "
        "(stty -F {port} raw)",
    ),
    (
        CONTROLS, "a terminal that is not in raw mode takes control characters",
        "set it to raw mode (stty -F {port} raw), and let no shell or terminal program share it",
    ),
)  # fmt: skip
"""Values that do not cross, the cause, and what to do; the first that fits."""

DOUBLED = (
    "every 0xFF arrives twice: the host's port marks parity errors (PARMRK), or a telnet server "
    "sends to it",
    "switch the marks off (stty -F {port} -parmrk -inpck), or let the server pass raw bytes",
)


def find_cause(port: Port, name: str) -> tuple[str, str] | None:
    """Return what alters bytes on the link to a board, and what to do; None if nothing is found.

    `port` is at the rate at which the board waits, and nothing else uses it. Takes some seconds.
    """
    if not _wait_for_board(port):
        return None
    altered = {}
    for value in packets.ALTERED:
        if (what := _alteration(port, value)) is not None:
            altered[value] = what
    return name_cause(altered, name)


def name_cause(altered: Mapping[int, str], name: str) -> tuple[str, str] | None:
    """Return the cause and what to do for values that are "lost" or "doubled"; None for none."""
    if altered.get(0xFF) == "doubled":
        return DOUBLED[0], DOUBLED[1].format(port=name)
    for values, cause, advice in CAUSES:
        if lost := [value for value in values if value in altered]:
            listed = ", ".join(f"0x{value:02X}" for value in lost)
            verb = "does" if len(lost) == 1 else "do"
            return f"{listed} {verb} not cross: {cause}", advice.format(port=name)
    return None


def _wait_for_board(port: Port) -> bool:
    deadline = time.monotonic() + RESTART
    while time.monotonic() < deadline:
        if any(_reply(port, value, value) for value in HARMLESS):
            return True
    return False


def _alteration(port: Port, value: int) -> str | None:
    """Return whether a value is "lost" or "doubled", None if it crosses; noise is tried again.

    A board that is busy does not reply to harmless values either: it is waited for.
    """
    found = []
    for filler in HARMLESS:
        if reply := _reply(port, value, filler):
            found.append(reply)
        elif not _wait_for_board(port):
            return None
    if not found:
        return "lost"
    return "doubled" if value == 0xFF and "intact" not in found else None


def _reply(port: Port, value: int, filler: int) -> str | None:
    """Return how a board's reply to an OPEN with a value arrives: "intact", "doubled" or not.

    "doubled" means each 0xFF, and a board's OPEN always holds some.
    """
    session = int.from_bytes(bytes((value, value, value, filler)), "little")
    port.write(_open_frame(session, value))
    received, deadline = b"", time.monotonic() + REPLY
    while (left := deadline - time.monotonic()) > 0:
        received += port.read(left)
        if _names(received, session):
            return "intact"
        if _names(received.replace(b"\xff\xff", b"\xff"), session):
            return "doubled"
    return None


def _open_frame(session: int, value: int) -> bytes:
    """Return an OPEN that holds no altered value but `value`, nor does its checksum."""
    frames = (
        encode_frame(packets.to_bytes(Open(session, 0, PAYLOAD, window), True))
        for window in range(0x4141, 0x7E7E)
    )
    return next(frame for frame in frames if not {*packets.ALTERED} - {value} & {*frame})


def _names(received: bytes, session: int) -> bool:
    """Return whether an OPEN of the board that names our session is among the bytes."""
    for body in FrameReader().feed(received):
        try:
            packet, active = packets.from_bytes(body)
        except PacketError:
            continue
        if isinstance(packet, Open) and not active and packet.peer == session:
            return True
    return False
