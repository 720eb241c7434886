"""Where bytes come from: any pyserial URL, and our own `sim://`.

    open_port("/dev/ttyUSB0", 921600)      open_port("COM3")      open_port("socket://pi:4000")
    open_port("sim://?errors=1e-5", 115200, command=["python", "-m", "device", "--port", "{port}"])

Nothing here imports pty or termios, so Windows opens `COM3` by the same path.
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
    line_errors,
    line_exceptions,
)

__all__ = ["BAUD", "LineLost", "Port", "PortError", "SerialPort", "open_port"]

WRITE_TIMEOUT = 5.0
"""Seconds; without one, a port that nobody reads blocks for ever once its buffer is full."""

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
    "missing": "there is no such port; plug the board in and look for its name",
    "denied": "no permission to use this port; on Linux add yourself to the group dialout and "
    "log in again",
    "busy": "another program holds this port; close it (a terminal, ModemManager, another run)",
    "invalid": "this is no serial port that can be opened",
    "lost": "it cannot be opened",
    "stuck": "it does not answer",
    "ended": "its far end is gone",
}


def open_port(url: str, baud: int | None = None, *, command: Sequence[str] | None = None) -> Port:
    """Open a port by device name or pyserial URL, or a simulated line by `sim://?...`.

    `baud` fixes the rate; without it a line begins at 115200 and its two ends may agree on
    another. `command` is the program to start at the far end of a simulated line, "{port}"
    standing for the path of the port it is to open; other ports ignore it. Raises PortError with
    its `reason`.
    """
    if url.lower().startswith("sim:"):
        from glioslice.wire.simulator.port import open_simulated

        return open_simulated(url, baud, command)
    return SerialPort(url, baud)


class SerialPort:
    """A port that pyserial opens, held exclusively where the system can."""

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
        """Use another rate from now on, once what was written has left.

        A device that refuses it keeps the one it has: the trial on the line will show it.
        """
        with line_errors(self.name):
            self._serial.flush()
            with suppress(ValueError):
                self._serial.baudrate = baud

    def reopen(self) -> None:
        """Open the same device again by its name; raises PortError while it is not there."""
        self.close()
        if self.name.startswith("/dev/pts/"):
            # Whoever held its other end has gone, and its name may be another terminal's soon.
            raise PortError(f"{self.name}: the far end of this pseudo-terminal is gone", "ended")
        self._open()

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting up to `timeout` seconds for the first byte."""
        with line_errors(self.name):
            if self._descriptor is not None:
                if not select.select([self._descriptor], [], [], timeout)[0]:
                    return b""
                return bytes(self._serial.read(READ_SIZE))
            if self._serial.timeout != timeout:  # setting it anew reconfigures the port
                self._serial.timeout = timeout
            first = bytes(self._serial.read(1))
            waiting = self._serial.in_waiting if first else 0
            return first + bytes(self._serial.read(waiting)) if waiting else first

    def write(self, data: bytes) -> None:
        """Hand all of `data` to the line; raises LineLost if it takes none for five seconds."""
        with line_errors(self.name):
            try:
                self._serial.write(data)
            except serial.SerialTimeoutException as error:
                raise LineLost(
                    f"{self.name}: the line has taken no bytes for {WRITE_TIMEOUT:.0f} s; is the "
                    "far end open and the cable whole?",
                    "stuck",
                ) from error

    def close(self) -> None:
        """Give the port back; twice does no harm."""
        with suppress(*line_exceptions()):
            self._serial.close()


def opening_error(url: str, error: BaseException) -> PortError:
    """Return why a port could not be opened.

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
