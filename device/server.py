"""The board's side of a session, from the hello until the host or the board ends it.

    board   BoardHello
    host    HostHello       Error(REFUSED) if mode or codec is not offered; it may choose again
    serve   Start, Slices   a mask or an Error for each, then End; Start or HostHello may follow
    play                    Start with the volume, every mask, End; another HostHello plays again

During a run the board also sends its temperature, if it has a thermometer.

A host that comes back to its lost run first receives the leading results again. A message out of
turn gets the reply Error(REFUSED) and changes nothing. A board that has to stop finishes the
current slice, then sends Error(STOPPED) and End.

A service of `Type=notify` reports to systemd that it is ready, that it is alive and that it is
stopping, each as a datagram to the socket named by NOTIFY_SOCKET: sd_notify(3).
"""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from device.board import Board, PlayedCase
from device.run import ResultSender, ResumableRun, SegmentationRun
from device.telemetry import read_temperature
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
    Temperature,
    VersionError,
    receive,
    send,
)

logger = logging.getLogger(__name__)

POLL_INTERVAL = 0.2
"""Seconds after which a wait for the host ends, so that a stop request is noticed."""

FORCE_AFTER = 2.0
"""Seconds from the request until all waits are ended; simulated links kill the process after 3."""

READY, ALIVE, STOPPING = "READY=1", "WATCHDOG=1", "STOPPING=1"
"""ALIVE is reported at least once a second, unless a slice takes longer or a host accepts no more
masks. systemd restarts a service that does not report it within `WatchdogSec`."""

TEMPERATURE_INTERVAL = 5.0
"""Seconds between two messages on the board's temperature."""

FLUSH_TIMEOUT = 1.0
"""Seconds that a stopping board gives its last messages to reach the host."""


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
        """Let SIGTERM and SIGINT request the stop; call it in the main thread.

        One that is ignored, as in the background of a shell's script, stays ignored.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:
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


class HostSession:
    """One session with one host."""

    def __init__(
        self, connection: Connection, board: Board, stop: StopRequest, resumable: ResumableRun
    ) -> None:
        self._connection, self._board, self._stop = connection, board, stop
        self._resumable, self._may_resume = resumable, True
        self._served: HostHello | None = None
        self._run: SegmentationRun | None = None
        self._sender = ResultSender(connection)
        self._temperature_due = 0.0

    def run(self) -> None:
        """Handle messages until the board has to stop.

        Raises LinkError if the host is gone, and LineLost if the port is.
        """
        key, results = self._resumable.announcement()
        send(self._connection, replace(self._board.hello, kept=key, answered=results))
        while not self._stop.requested:
            notify(ALIVE)
            try:
                message = receive(self._connection, POLL_INTERVAL)
            except VersionError:
                self._refuse(f"this board uses version {VERSION} of the messages")
            except MessageError:
                self._refuse("not understood; both ends need the same version of glioslice")
            else:
                if message is not None:
                    self._handle(message)
        if self._run is not None:
            send(self._connection, Error(ErrorCode.STOPPED, -1, "the board is shutting down"))
            self._end_run(self._run)
        self._connection.flush(FLUSH_TIMEOUT)

    def _handle(self, message: Message) -> None:
        run = self._run
        match message:
            case Slice() if run is not None and message.index in run.pending:
                self._send_temperature()
                self._sender.send(run.segment_message(message))
                if not run.pending:
                    self._end_run(run)
            case HostHello() if run is None:
                self._handle_choice(message)
            case Start(volume=None) if self._served is not None and run is None:
                self._handle_start(self._served, message)
            case Slice(index=index) if index < MAX_SIDE:
                self._refuse("no slice of this index is expected", index)
            case _:
                self._refuse("a message out of turn")

    def _handle_choice(self, choice: HostHello) -> None:
        """Accept or refuse the host's choice; a played run starts at once."""
        hello, played = self._board.hello, self._board.played
        if choice.mode not in hello.modes:
            self._refuse("this board has no case to play; it only serves")
        elif not hello.mask_codecs >> choice.mask_codec & 1:
            self._refuse(f"mask codec {choice.mask_codec} is not offered")
        elif choice.mode is Mode.SERVE and not hello.image_codecs >> choice.image_codec & 1:
            self._refuse(f"image codec {choice.image_codec} is not offered")
        else:
            self._served = choice if choice.mode is Mode.SERVE else None
            if choice.mode is Mode.PLAY and played is not None:
                self._play(choice, played)

    def _handle_start(self, choice: HostHello, start: Start) -> None:
        """Begin the run that the host announces, if the network has a channel for it."""
        channels = len(self._board.hello.modalities)
        if start.absent >> channels or start.absent == (1 << channels) - 1:
            self._refuse(f"absent channels {start.absent:04b}, but there are {channels}")
        else:
            self._begin_run(choice, start)

    def _play(self, choice: HostHello, played: PlayedCase) -> None:
        send(self._connection, played.start)
        run = self._begin_run(choice, played.start)
        for index, prepared in enumerate(played.slices):
            if index not in run.pending:
                continue
            if self._stop.requested:
                return  # `run` informs the host
            notify(ALIVE)
            self._send_temperature()
            self._sender.send(run.segment_slice(index, prepared, time.perf_counter_ns()))
        self._end_run(run)

    def _begin_run(self, choice: HostHello, start: Start) -> SegmentationRun:
        """Begin a run; only the first one of a session may resume that of a lost host."""
        previous = self._resumable.find(choice.mode, start.key) if self._may_resume else None
        self._may_resume = False
        run = SegmentationRun(self._board, start, choice.mask_codec, previous)
        self._run = run
        self._resumable.remember(run, choice.mode, start.key)
        logger.info("%s: run of %d slices", choice.mode.name.lower(), start.slices)
        wanted = len(run.pending)
        for result in run.recalled():
            self._sender.send(result)
        if recalled := wanted - len(run.pending):
            logger.info("%d results recalled from the interrupted run", recalled)
        if choice.mode is Mode.SERVE and not run.pending:
            self._end_run(run)
        return run

    def _send_temperature(self) -> None:
        """Send the temperature where there is one, but not with every slice."""
        if time.monotonic() < self._temperature_due:
            return
        self._temperature_due = time.monotonic() + TEMPERATURE_INTERVAL
        degrees = read_temperature()
        if degrees is not None and -100 <= degrees <= 200:
            send(self._connection, Temperature(round(10 * degrees)))

    def _end_run(self, run: SegmentationRun) -> None:
        send(self._connection, run.end())
        run.ended = not run.pending
        self._run = None
        logger.info("run ended: %s", run.summary())

    def _refuse(self, text: str, index: int = -1) -> None:
        send(self._connection, Error(ErrorCode.REFUSED, index, text))
        logger.info("refused: %s", text)


def run_sessions(connection: Connection, board: Board, stop: StopRequest) -> None:
    """Serve one host after another until `stop`.

    A host that closes, falls silent or restarts ends its session only. Raises LineLost.
    """
    resumable = ResumableRun()
    while not stop.requested:
        notify(ALIVE)
        try:
            connection.open(POLL_INTERVAL)
        except LinkError:  # no host yet, or it is gone again
            continue
        logger.info("session opened")
        try:
            HostSession(connection, board, stop, resumable).run()
            logger.info("session ended: the board is shutting down")
        except LinkError as error:
            if isinstance(error, PeerClosed) and resumable.run is not None and resumable.run.ended:
                resumable.forget()  # the host has everything it wanted
            logger.info("session ended: %s", error)
