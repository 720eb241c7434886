"""One session after the other, for as long as the line is there and nobody says stop."""

from collections.abc import Callable

from device.board import Board
from device.conversation import Conversation
from device.stopping import GLANCE, Stop
from glioslice.wire.connection import Connection
from glioslice.wire.link import LinkError


def run_sessions(
    connection: Connection, board: Board, stop: Stop, say: Callable[[str], None]
) -> None:
    """Wait for hosts and talk to each until `stop`; `say` takes lines for the board's own log.

    A host that closes, falls silent or starts anew leads back to waiting. Raises LineLost.
    """
    while not stop.requested:
        try:
            connection.open(GLANCE)
        except LinkError:  # nobody calls yet, or whoever called is gone again
            continue
        say("session opened")
        try:
            Conversation(connection, board, stop, say).hold()
            say("session ended: told to stop")
        except LinkError as error:
            say(f"session ended: {error}")
