"""Send messages of your own over the reliable link: python examples/own_messages.py.

Both ends run here, joined in memory. Between two machines, use `glioslice.open_port` at each end.
"""

import threading
from contextlib import suppress

import glioslice


def board(port: glioslice.Port) -> None:
    """Reply to each message until the host closes the link."""
    with suppress(glioslice.LinkError), glioslice.Connection(port, active=False) as link:
        link.open()
        while message := link.receive(timeout=5):
            link.send(b"received " + message)


host_port, board_port = glioslice.memory_ports()
threading.Thread(target=board, args=(board_port,), daemon=True).start()
with glioslice.Connection(host_port, active=True) as link:
    link.open(timeout=5)
    for message in (b"temperature?", b"uptime?", bytes(1000)):
        link.send(message)  # any bytes, retransmitted until acknowledged
        reply = link.receive(timeout=5)
        assert reply == b"received " + message
        print(f"{len(message)} bytes sent, {len(reply)} received")
