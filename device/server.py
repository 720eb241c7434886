"""What the board says to one host, from its hello until one of them ends the session.

    board   BoardHello
    host    HostHello       Error(REFUSED) where mode or codec is not offered; it may choose again
    serve   Start, Slices   a mask or an Error for each, then End; Start or HostHello may follow
    play                    Start with the volume, every mask, End; another HostHello plays again

A host that comes back to the run of a lost one gets its leading answers again before all others.

A message out of turn is answered by Error(REFUSED) and changes nothing. A board that is told to
stop answers the slice in hand, then sends Error(STOPPED) and the End of what it has done.

One session after the other, for as long as the line is there and nobody says stop.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from device.board import Board, Played
from device.lifecycle import ALIVE, GLANCE, Stop, notify
from device.run import Kept, Outbox, Run
from glioslice.wire.connection import Connection, PeerClosed
from glioslice.wire.layout import MAX_SIDE
from glioslice.wire.link import LinkError
from glioslice.wire.messages import (
    VERSION,
    Error,
    ErrorCode,
    HostHello,
    Message,
    MessageError,
    Mode,
    Slice,
    Start,
    VersionError,
    receive,
    send,
)

PARTING = 1.0
"""Seconds that the last words of a board which is told to stop may take to reach the host."""


class Conversation:
    """One session with one host; `say` takes lines for the board's own log."""

    def __init__(
        self,
        connection: Connection,
        board: Board,
        stop: Stop,
        say: Callable[[str], None],
        kept: Kept,
    ) -> None:
        self._connection, self._board, self._stop, self._say = connection, board, stop, say
        self._kept, self._fresh = kept, True
        self._served: HostHello | None = None
        self._run: Run | None = None
        self._outbox = Outbox(connection)

    def hold(self) -> None:
        """Talk until told to stop; raises LinkError for a host that is gone, and LineLost."""
        key, answered = self._kept.said()
        send(self._connection, replace(self._board.hello, kept=key, answered=answered))
        while not self._stop.requested:
            notify(ALIVE)
            try:
                message = receive(self._connection, GLANCE)
            except VersionError:
                self._refuse(f"this board speaks version {VERSION} of the messages")
            except MessageError:
                self._refuse("not understood; both ends need the same version of glioslice")
            else:
                if message is not None:
                    self._hear(message)
        if self._run is not None:
            send(self._connection, Error(ErrorCode.STOPPED, -1, "the board was told to stop"))
            self._end(self._run)
        self._connection.flush(PARTING)

    def _hear(self, message: Message) -> None:
        match message:
            case HostHello() if self._run is None:
                self._choose(message)
            case Start(volume=None) if self._served is not None and self._run is None:
                self._begin(self._served, message)
            case Slice() if self._run is not None and message.index in self._run.waiting:
                self._serve(self._run, message)
            case Slice(index=index) if index < MAX_SIDE:
                self._refuse("no slice of this index is waited for", index)
            case _:
                self._refuse("a message out of turn")

    def _choose(self, host: HostHello) -> None:
        """Take the host's choice, or refuse it; a board that is to play begins at once."""
        hello, played = self._board.hello, self._board.played
        if host.mode not in hello.modes:
            self._refuse("no case lies on this board to be played; it serves")
        elif not hello.mask_codecs >> host.mask_codec & 1:
            self._refuse(f"mask codec {host.mask_codec} is not offered")
        elif host.mode is Mode.SERVE and not hello.image_codecs >> host.image_codec & 1:
            self._refuse(f"image codec {host.image_codec} is not offered")
        else:
            self._served = host if host.mode is Mode.SERVE else None
            if host.mode is Mode.PLAY and played is not None:
                self._play(host, played)

    def _play(self, host: HostHello, played: Played) -> None:
        send(self._connection, played.start)
        run = self._begin(host, played.start)
        for index, prepared in enumerate(played.slices):
            if index not in run.waiting:
                continue
            if self._stop.requested:
                return  # `hold` tells the host
            notify(ALIVE)
            self._outbox.send(run.mask(index, prepared, time.perf_counter_ns()))
        self._end(run)

    def _serve(self, run: Run, message: Slice) -> None:
        self._outbox.send(run.serve(self._board, message))
        if not run.waiting:
            self._end(run)

    def _begin(self, host: HostHello, start: Start) -> Run:
        """Begin a run; the first one of a session may be one that a lost host had begun."""
        before = self._kept.found(host.mode, start.key) if self._fresh else None
        self._fresh = False
        run = Run(self._board.engine, start.slices, host.mask_codec, start.first, before)
        self._run = run
        self._kept.keep(run, host.mode, start.key)
        self._say(f"{host.mode.name.lower()}: run of {start.slices} slices")
        known = len(run.waiting)
        for answer in run.recalled():
            self._outbox.send(answer)
        if len(run.waiting) < known:
            self._say(f"{known - len(run.waiting)} answers were here already")
        if host.mode is Mode.SERVE and not run.waiting:
            self._end(run)
        return run

    def _end(self, run: Run) -> None:
        send(self._connection, run.end())
        run.ended = not run.waiting
        self._run = None
        self._say(f"run ended: {run.summary()}")

    def _refuse(self, text: str, index: int = -1) -> None:
        send(self._connection, Error(ErrorCode.REFUSED, index, text))
        self._say(f"refused: {text}")


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
