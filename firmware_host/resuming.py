"""A board that restarted in the middle of a run: it is greeted anew and does what is missing.

Serving, the host sends the slices that have no answer yet. Playing, the board begins again, and so
does the run: what had arrived may have been of another case.
"""

from dataclasses import replace

from firmware_host import board, session
from firmware_host.arrived import Run
from firmware_host.session import Feeder
from glioslice.errors import GliosliceError
from glioslice.wire import messages
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello, HostHello, Mode, Volume


def rejoin(
    line: Connection,
    hello: BoardHello,
    choice: HostHello,
    run: Run,
    *,
    feeder: Feeder | None,
    volume: Volume | None,
) -> tuple[BoardHello, Feeder | None]:
    """Go on with `run` on a board that has restarted; return its hello and the new feeder.

    Raises GliosliceError if the board is another one now, and what `greet` raises.
    """
    if feeder is not None:
        feeder.join()  # it must not send into the new session
    again = board.greet(line, board.PATIENCE)
    if replace(again, boot=hello.boot, kept=hello.kept, answered=hello.answered) != hello:
        raise GliosliceError(f"{line.name}: the board restarted as another one; run it again")
    messages.send(line, choice)
    if choice.mode is Mode.PLAY:
        if session.begin_playing(line) != volume:
            raise GliosliceError(
                f"{line.name}: the board restarted with another case; run it again"
            )
        run.begin_again()
        return again, None
    if feeder is None:  # a recording, which has the answers without slices
        run.begin_part()
        return again, None
    return again, session.serve(line, again, choice, run, feeder.slices)
