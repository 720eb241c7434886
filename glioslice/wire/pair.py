"""Two ports joined in memory: what one end writes the other reads, at once and whole."""

import threading

from glioslice.wire.transport import LineLost

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
