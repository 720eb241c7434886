"""How the board's process is told to end: SIGTERM or Ctrl-C, heard between two slices.

What systemd hears of a service of `Type=notify`: that it is ready, that it lives, that it ends.

As sd_notify(3) has it: a datagram to the socket that NOTIFY_SOCKET names.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

GLANCE = 0.2
"""Seconds that one wait for the host lasts at most, before this is looked at again."""

PATIENCE = 2.0
"""Seconds from the signal to the last resort; a simulated line kills its process after 3."""


class Stop:
    """Whether the process was told to end.

    A handler that raised would interrupt the connection while it holds its lock, so a flag is set.
    A host that takes no more masks would keep it from being seen: `last_resort`, called `PATIENCE`
    seconds later from another thread, has to end every wait.
    """

    def __init__(self, last_resort: Callable[[], None]) -> None:
        self.requested = False
        self._last_resort = last_resort

    def on_signals(self) -> None:
        """From now on SIGTERM and SIGINT are requests; call it in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.request())

    def request(self) -> None:
        """Ask the process to end; twice does no harm."""
        if not self.requested:
            self.requested = True
            timer = threading.Timer(PATIENCE, self._last_resort)
            timer.daemon = True
            timer.start()


READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"
"""ALIVE is said at least once a second, but for a slice that takes longer, and a host that takes
no more masks; a service whose `WatchdogSec` passes without it is started anew."""


def notify(state: str) -> None:
    """Tell systemd; does nothing where systemd did not start this process or does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # a name without a file
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.sendto(state.encode(), address)
