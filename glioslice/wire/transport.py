"""What every port is, and the errors that a port raises.

Two ports joined in memory: what one end writes the other reads, at once and whole.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, runtime_checkable

from glioslice.errors import GliosliceError

RATES = (115200, 230400, 460800, 921600, 1000000, 1500000, 2000000, 3000000, 4000000)
"""Baud rates that the two ends of a line may agree on."""

BAUD = RATES[0]
"""The rate at which every line begins unless it is fixed to another."""

Reason = Literal["missing", "denied", "busy", "invalid", "lost", "stuck", "ended"]
"""`ended` is for good: the far end's process is gone, or the line was closed."""


class Port(Protocol):
    """The whole contract of a byte transport.

    One thread may read while another writes; `close` comes after both have ended.
    """

    @property
    def name(self) -> str:
        """What a user calls this port: for messages."""

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting up to `timeout` seconds for the first byte.

        Returns b"" when nothing came. Raises LineLost when nothing can come any more.
        """

    def write(self, data: bytes) -> None:
        """Hand all of `data` to the line, waiting while its buffer is full; raises LineLost."""

    def close(self) -> None:
        """Give the port back; twice does no harm."""


@runtime_checkable
class AdjustablePort(Port, Protocol):
    """A port that can change its baud rate, and be opened again after its line was lost."""

    @property
    def rates(self) -> tuple[int, ...]:
        """The baud rates that it can take; none if it keeps the one it has."""

    def set_rate(self, baud: int) -> None:
        """Use another rate from now on, once what was written has left; raises LineLost.

        Reading goes on meanwhile.
        """

    def reopen(self) -> None:
        """Open the same line again by its name, at the rate that it began with.

        Raises PortError while it is not there; with the reason `ended` it will never be.
        """


class PortError(GliosliceError):
    """A port that cannot be opened or used; `reason` lets a program tell the causes apart."""

    def __init__(self, message: str, reason: Reason) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class LineLost(PortError):
    """The line failed while in use: unplugged, its far end gone, or it takes no more bytes."""

    def __init__(self, message: str, reason: Reason = "lost") -> None:
        super().__init__(message, reason)


def line_exceptions() -> tuple[type[BaseException], ...]:
    """Return what an operation on a line may raise on this platform.

    pyserial's own exception is an OSError. After an unplug some of its calls raise `termios.error`,
    which is none, and exists only where pyserial has imported termios.
    """
    termios = sys.modules.get("termios")
    return (OSError, ValueError, TypeError) + ((termios.error,) if termios else ())


@contextmanager
def line_errors(name: str) -> Iterator[None]:
    """Turn whatever the operating system or pyserial raises into one LineLost."""
    try:
        yield
    except PortError:
        raise
    except line_exceptions() as error:
        raise LineLost(
            f"{name}: the line was lost ({error}); check the cable and that the board has power"
        ) from error


CAPACITY = 65536
"""Bytes that wait unread before a writer has to wait, as at a real port."""


class Lot:
    """The bytes on their way in one direction."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed = False
        self.changed = threading.Condition()


class MemoryPort:
    """One of two joined ends; made by `pair`."""

    def __init__(self, name: str, inbound: Lot, outbound: Lot) -> None:
        self.name = name
        self._inbound, self._outbound = inbound, outbound

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting up to `timeout` seconds for the first byte."""
        lot = self._inbound
        with lot.changed:
            lot.changed.wait_for(lambda: lot.data or lot.closed, timeout)
            if not lot.data and lot.closed:
                raise LineLost(f"{self.name}: the other end was closed", "ended")
            data = bytes(lot.data)
            lot.data.clear()
            lot.changed.notify_all()
            return data

    def write(self, data: bytes) -> None:
        """Hand all of `data` to the other end, waiting while it holds too much unread."""
        lot = self._outbound
        with lot.changed:
            lot.changed.wait_for(lambda: len(lot.data) < CAPACITY or lot.closed)
            if lot.closed:
                raise LineLost(f"{self.name}: the other end was closed", "ended")
            lot.data += data
            lot.changed.notify_all()

    def close(self) -> None:
        """End both directions; twice does no harm."""
        for lot in (self._inbound, self._outbound):
            with lot.changed:
                lot.closed = True
                lot.changed.notify_all()


def pair() -> tuple[MemoryPort, MemoryPort]:
    """Return two ports, each the far end of the other."""
    up, down = Lot(), Lot()
    return MemoryPort("memory:host", down, up), MemoryPort("memory:board", up, down)
