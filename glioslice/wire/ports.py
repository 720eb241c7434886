"""Open a port: any pyserial URL, or our own `sim://`.

    open_port("/dev/ttyUSB0", 921600)      open_port("COM3")      open_port("socket://pi:4000")
    open_port("sim://?errors=1e-5", 115200, command=["python", "-m", "device", "--port", "{port}"])

Nothing here imports pty or termios, so that `COM3` works on Windows too.
"""

import errno
import io
import select
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import serial

from glioslice.wire.transport import (
    BAUD,
    RATES,
    LineLost,
    Port,
    PortError,
    Reason,
    line_exceptions,
    line_lost,
)

__all__ = ["BAUD", "LineLost", "Port", "PortError", "SerialPort", "open_port"]

WRITE_TIMEOUT = 5.0
"""Seconds; without it, a port that nobody reads blocks for ever once its buffer is full."""

READ_SIZE = 65536

REASONS: dict[int, Reason] = {
    errno.ENOENT: "missing",
    errno.ENODEV: "missing",
    errno.ENXIO: "missing",
    errno.EACCES: "denied",
    errno.EPERM: "denied",
    errno.EBUSY: "busy",
    errno.EAGAIN: "busy",
    errno.ENOTTY: "invalid",
}
ADVICE: dict[Reason, str] = {
    "missing": "there is no such port; plug the board in and run `glioslice ports` for its name",
    "denied": "no permission to use this port; on Linux add yourself to the group dialout and "
    "log in again",
    "busy": "another program uses this port; close it (a terminal, ModemManager, another run)",
    "invalid": "this is not a serial port that can be opened",
    "lost": "it cannot be opened",
    "stuck": "it does not respond",
    "ended": "its far end is gone",
}


def open_port(url: str, baud: int | None = None, *, command: Sequence[str] | None = None) -> Port:
    """Open a port by device name or pyserial URL, or a simulated line by `sim://?...`.

    `baud` fixes the rate; without it a session begins at 115200 and the two ends may agree on
    another. `command` is the program to start at the far end of a simulated line, with "{port}"
    for the path of the port that it is to open; other ports ignore it. Raises PortError with its
    `reason`.
    """
    if url.lower().startswith("sim:"):
        from glioslice.wire.simulator.port import open_simulated

        return open_simulated(url, baud, command)
    return SerialPort(url, baud)


class SerialPort:
    """A port of pyserial, opened exclusively where the system supports that."""

    def __init__(self, url: str, baud: int | None = None) -> None:
        self.name = url
        self.rates = RATES if baud is None and "://" not in url else ()
        self._baud = baud or BAUD
        self._open()

    def _open(self) -> None:
        try:
            self._serial: Any = serial.serial_for_url(
                self.name,
                baudrate=self._baud,
                timeout=0,
                write_timeout=WRITE_TIMEOUT,
                exclusive=True,
            )
        except line_exceptions() as error:
            raise opening_error(self.name, error) from error
        try:
            self._descriptor: int | None = self._serial.fileno()
        except (io.UnsupportedOperation, AttributeError):
            # Windows and the handlers without a file (loop, rfc2217): pyserial itself waits.
            self._descriptor = None

    def set_rate(self, baud: int) -> None:
        """Change the baud rate once everything written has been sent.

        A device that refuses it keeps the one it has, and the trial on the line fails.
        """
        try:
            self._serial.flush()
            with suppress(ValueError):
                self._serial.baudrate = baud
        except line_exceptions() as error:
            raise line_lost(self.name, error) from error

    def reopen(self) -> None:
        """Open the same device again by its name; raises PortError while it is missing."""
        self.close()
        if self.name.startswith("/dev/pts/"):
            # Whoever held its other end has gone, and its name may be another terminal's soon.
            raise PortError(f"{self.name}: the far end of this pseudo-terminal is gone", "ended")
        self._open()

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting up to `timeout` seconds for the first byte."""
        try:
            if self._descriptor is not None:
                if not select.select([self._descriptor], [], [], timeout)[0]:
                    return b""
                return bytes(self._serial.read(READ_SIZE))
            if self._serial.timeout != timeout:  # setting it again reconfigures the port
                self._serial.timeout = timeout
            first = bytes(self._serial.read(1))
            waiting = self._serial.in_waiting if first else 0
            return first + bytes(self._serial.read(waiting)) if waiting else first
        except line_exceptions() as error:
            raise line_lost(self.name, error) from error

    def write(self, data: bytes) -> None:
        """Write all of `data`; raises LineLost if the line accepts none for five seconds."""
        try:
            self._serial.write(data)
        except serial.SerialTimeoutException as error:
            raise LineLost(
                f"{self.name}: the line has accepted no bytes for {WRITE_TIMEOUT:.0f} s; is the "
                "far end open and the cable connected?",
                "stuck",
            ) from error
        except line_exceptions() as error:
            raise line_lost(self.name, error) from error

    def close(self) -> None:
        """Release the port; calling it twice is harmless."""
        with suppress(*line_exceptions()):
            self._serial.close()


def opening_error(url: str, error: BaseException) -> PortError:
    """Return the error for a port that could not be opened.

    pyserial keeps the errno on POSIX; on Windows only the name of the exception is in its text.
    """
    reason = REASONS.get(getattr(error, "errno", None) or 0)
    text = str(error)
    if reason is None:
        if "FileNotFoundError" in text:
            reason = "missing"
        elif "PermissionError" in text:  # Windows: the port is in use
            reason = "busy"
        else:
            reason = "invalid"
    detail = f" ({text})" if reason == "invalid" else ""
    return PortError(f"{url}: {ADVICE[reason]}{detail}", reason)
