"""What systemd hears of a service of `Type=notify`: that it is ready, that it lives, that it ends.

As sd_notify(3) has it: a datagram to the socket that NOTIFY_SOCKET names.
"""

import os
import socket
from contextlib import suppress

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
