"""What a port is: the contract of a byte transport, its errors, and two ports joined in memory."""

import sys
import threading
from typing import Literal, Protocol, runtime_checkable

from glioslice.errors import GliosliceError

RATES = (115200, 230400, 460800, 921600, 1000000, 1500000, 2000000, 3000000, 4000000)
"""Baud rates that the two ends may agree on."""

BAUD = RATES[0]
"""The rate at which every session begins unless `--baud` fixes another."""

CAPACITY = 65536
"""Unread bytes after which the writer of a MemoryPort has to wait, as at a real port."""

Reason = Literal["missing", "denied", "busy", "invalid", "lost", "stuck", "ended"]
"""`ended` is permanent: the far end's process is gone, or the port was closed."""


class Port(Protocol):
    """The contract of a byte transport.

    One thread may read while another writes. `close` is called after both have ended.
    """

    @property
    def name(self) -> str:
        """The name by which a user knows this port, for messages."""

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting up to `timeout` seconds for the first byte.

        Returns b"" when nothing came. Raises LineLost when nothing can come any more.
        """

    def write(self, data: bytes) -> None:
        """Write all of `data`, waiting while the buffer is full; raises LineLost."""

    def close(self) -> None:
        """Release the port; calling it twice is harmless."""


@runtime_checkable
class AdjustablePort(Port, Protocol):
    """A port that can change its baud rate and can be reopened after its line was lost."""

    @property
    def rates(self) -> tuple[int, ...]:
        """The baud rates that it can change to; empty if its rate is fixed."""

    def set_rate(self, baud: int) -> None:
        """Change the baud rate once everything written has been sent; raises LineLost.

        Reading goes on meanwhile.
        """

    def reopen(self) -> None:
        """Open the same port again by its name, at the rate that it began with.

        Raises PortError while it is missing; the reason `ended` means that it will not return.
        """


class PortError(GliosliceError):
    """A port that cannot be opened or used; `reason` names the cause for programs."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class LineLost(PortError):
    """The line failed in use: unplugged, the far end gone, or it accepts no more bytes."""

    def __init__(self, message: str, reason: Reason = "lost") -> None:
        super().__init__(message, reason)


def line_exceptions() -> tuple[type[BaseException], ...]:
    """Return the exceptions that an operation on a port may raise on this platform.

    pyserial's own exception is an OSError. After an unplug some of its calls raise `termios.error`,
    which is not an OSError and exists only where pyserial has imported termios.
    """
    termios = sys.modules.get("termios")
    return (OSError, ValueError, TypeError) + ((termios.error,) if termios else ())


def line_lost(name: str, error: BaseException) -> LineLost:
    """Return the error for what an operation on a port has raised."""
    return LineLost(
        f"{name}: the line was lost ({error}); check the cable and that the board has power"
    )


class Pipe:
    """The bytes in transit in one direction."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed = False
        self.changed = threading.Condition()


class MemoryPort:
    """One of two joined ends, made by `pair`. What one end writes the other reads."""

    def __init__(self, name: str, inbound: Pipe, outbound: Pipe) -> None:
        self.name = name
        self._inbound, self._outbound = inbound, outbound

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting up to `timeout` seconds for the first byte."""
        pipe = self._inbound
        with pipe.changed:
            pipe.changed.wait_for(lambda: pipe.data or pipe.closed, timeout)
            if not pipe.data and pipe.closed:
                raise LineLost(f"{self.name}: the other end was closed", "ended")
            data = bytes(pipe.data)
            pipe.data.clear()
            pipe.changed.notify_all()
            return data

    def write(self, data: bytes) -> None:
        """Write all of `data`, waiting while the other end has too much unread."""
        pipe = self._outbound
        with pipe.changed:
            pipe.changed.wait_for(lambda: len(pipe.data) < CAPACITY or pipe.closed)
            if pipe.closed:
                raise LineLost(f"{self.name}: the other end was closed", "ended")
            pipe.data += data
            pipe.changed.notify_all()

    def close(self) -> None:
        """Close both directions; calling it twice is harmless."""
        for pipe in (self._inbound, self._outbound):
            with pipe.changed:
                pipe.closed = True
                pipe.changed.notify_all()


def pair() -> tuple[MemoryPort, MemoryPort]:
    """Return two ports that are each other's far end."""
    up, down = Pipe(), Pipe()
    return MemoryPort("memory:host", down, up), MemoryPort("memory:board", up, down)
