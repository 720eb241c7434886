"""Programs for the far end of a simulated line."""

import sys
from collections.abc import Callable

import pytest

ECHO = """
import sys
from glioslice.wire.ports import PortError, open_port
port = open_port(sys.argv[1], int(sys.argv[2]) if sys.argv[2:] else None)
try:
    port.write(b"ready")
    while True:
        port.write(port.read(1.0))
except PortError:
    pass
"""

REPLY = """
import sys
from glioslice.wire.connection import Connection, PeerClosed, PeerRestarted
from glioslice.wire.ports import PortError, open_port
baud = int(sys.argv[2]) if sys.argv[2:] else None
connection = Connection(open_port(sys.argv[1], baud), active=False)
try:
    while True:
        connection.open()
        try:
            while True:
                connection.send(connection.receive()[:100])
        except (PeerClosed, PeerRestarted):
            pass
except PortError:
    connection.close()
"""

STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "wb", buffering=0).write(b"ready")
while True:
    time.sleep(1)
"""

FAILING = """
import sys
open(sys.argv[1], "wb", buffering=0).write(b"last words")
sys.exit(3)
"""


@pytest.fixture
def far_end() -> Callable[[str], list[str]]:
    """Return the command of a program by its name: echo, reply, stubborn, failing, asleep."""
    programs = {
        "echo": ECHO,
        "reply": REPLY,
        "stubborn": STUBBORN,
        "failing": FAILING,
        "asleep": "import time; time.sleep(20)",
    }
    return lambda name: [sys.executable, "-c", programs[name], "{port}"]
