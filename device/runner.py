"""One session after the other, for as long as the line is there and nobody says stop."""

from collections.abc import Callable

from device.board import Board
from device.conversation import Conversation
from device.kept import Kept
from device.notify import ALIVE, notify
from device.stopping import GLANCE, Stop
from glioslice.wire.connection import Connection, PeerClosed
from glioslice.wire.link import LinkError


def run_sessions(
    connection: Connection, board: Board, stop: Stop, say: Callable[[str], None]
) -> None:
    """Wait for hosts and talk to each until `stop`; `say` takes lines for the board's own log.

    A host that closes, falls silent or starts anew leads back to waiting. Raises LineLost.
    """
    kept = Kept()
    while not stop.requested:
        notify(ALIVE)
        try:
            connection.open(GLANCE)
        except LinkError:  # nobody calls yet, or whoever called is gone again
            continue
        say("session opened")
        try:
            Conversation(connection, board, stop, say, kept).hold()
            say("session ended: told to stop")
        except LinkError as error:
            if isinstance(error, PeerClosed) and kept.run is not None and kept.run.ended:
                kept.forget()  # the host has all it wanted
            say(f"session ended: {error}")
