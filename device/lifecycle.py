"""How the board's process stops on SIGTERM or Ctrl-C, and what it reports to systemd.

A service of `Type=notify` reports that it is ready, that it is alive and that it is stopping, each
as a datagram to the socket named by NOTIFY_SOCKET: sd_notify(3).
"""

import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

POLL_INTERVAL = 0.2
"""Seconds after which a wait for the host ends, so that a stop request is noticed."""

FORCE_AFTER = 2.0
"""Seconds from the request until all waits are ended; simulated links kill the process after 3."""

READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"
"""ALIVE is reported at least once a second, unless a slice takes longer or a host accepts no more
masks. systemd restarts a service that does not report it within `WatchdogSec`."""


class StopRequest:
    """Whether a stop of the process has been requested.

    The signal handler only sets a flag: an exception would interrupt the connection while it holds
    its lock. A host that accepts no more masks would keep the flag from being seen, so `force` is
    called from another thread `FORCE_AFTER` seconds later; it has to end every wait.
    """

    def __init__(self, force: Callable[[], None]) -> None:
        self.requested = False
        self._force = force

    def install_handlers(self) -> None:
        """Let SIGTERM and SIGINT request the stop; call it in the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.request())

    def request(self) -> None:
        """Request the stop; a second request has no effect."""
        if not self.requested:
            self.requested = True
            timer = threading.Timer(FORCE_AFTER, self._force)
            timer.daemon = True
            timer.start()


def notify(state: str) -> None:
    """Report `state` to systemd; does nothing if systemd did not start this process."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket, without a file
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), address)
