"""A link that runs over a port: `open`, `send`, `receive`, `flush`, `close`.

Two threads own the port, one reads and one writes, so that the caller computes while bytes cross.
Both sleep until there is something to do. `send` waits when 64 kB are on their way; a caller who
does not `receive` makes the peer pause. Messages are bytes here; `messages` gives them meaning.

A cable that is pulled out and put back within a minute ends nothing: the port is opened again by
its name, and the session goes on where it was.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from glioslice.wire.link import Counts, Link, LinkError, Settings, State
from glioslice.wire.pump import Pump
from glioslice.wire.transport import AdjustablePort, Port

SILENCE = 60.0
"""Seconds without a word after which a peer, or a port that vanished, counts as gone for good."""

QUIET = 5.0
"""Seconds without a word after which the user is told; a peer says something every second."""

SEND_LIMIT = 65536
FAREWELL = 0.5
NAP = 0.5
"""Seconds that one wait lasts at most: on Windows, Ctrl-C is seen between two waits only."""


class PeerSilent(LinkError):
    """Nothing is heard of the peer; the session is kept and goes on if it is heard again."""


class PeerRestarted(LinkError):
    """The peer has begun a new session; `open` joins it, what was not received is lost."""


class PeerClosed(LinkError):
    """The peer has ended the session."""


class Connection:
    """One end of a link over a port; the active end calls, the passive one waits to be called.

    It owns the port and closes it. Any thread may call its methods. When a session has ended,
    `open` begins the next one on the same port. `say` takes lines for people: that nothing is
    heard, that the line is gone, that it is back.
    """

    def __init__(
        self,
        port: Port,
        *,
        active: bool,
        settings: Settings | None = None,
        silence: float = SILENCE,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = port.name
        self.silence = silence
        self._say = say
        rates = port.rates if isinstance(port, AdjustablePort) else ()
        self._settings = replace(settings or Settings(), rates=rates)
        self._joined = False
        self._earlier = Counts()
        self._quiet = False
        self._pump = Pump(port, Link(self._settings, active=active), silence, say)
        self._lock, self._work = self._pump.lock, self._pump.work
        self._pump.start()

    def __enter__(self) -> "Connection":
        """Return the connection, which the block's end closes."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    @property
    def counts(self) -> Counts:
        """What has crossed the line since the connection was made, over all its sessions."""
        with self._lock:
            return self._earlier.plus(self._link.counts)

    @property
    def port(self) -> Port:
        """The port that it owns."""
        return self._pump.port

    @property
    def _link(self) -> Link:
        """The link of the session of the moment."""
        return self._pump.link

    @property
    def skipped(self) -> bytes:
        """The last bytes from the line that belonged to no frame, at most 256."""
        with self._lock:
            return self._link.reader.sample

    def open(self, timeout: float | None = None) -> None:
        """Begin a session, waiting up to `timeout` seconds for the peer (None: for ever).

        A session that this has returned from before is left behind. Raises PeerSilent when nobody
        answered in time; calling again goes on waiting. Raises LinkError for a peer of another
        version and LineLost for a line that failed.
        """
        deadline = deadline_of(timeout)
        with self._lock:
            if self._joined or self._link.state not in (State.OPENING, State.OPEN):
                self._joined = False
                self._earlier = self._earlier.plus(self._link.counts)
                self._pump.link = Link(self._settings, active=self._link.active)
                self._work.notify()
            while self._link.state is State.OPENING:
                self._check_port()
                if time.monotonic() >= deadline:
                    raise PeerSilent(str(self._pump.trouble or self._no_answer()))
                self._nap(deadline)
            if self._link.state is not State.OPEN:
                self._check_session()
            self._joined = True

    def send(self, message: bytes) -> None:
        """Queue a message; waits while 64 kB are on their way.

        Raises LinkError (PeerSilent, PeerRestarted, PeerClosed) or LineLost.
        """
        with self._lock:
            while True:
                self._check_port()
                self._check_session()
                if self._link.sender.queued < SEND_LIMIT:
                    break
                self._check_silence()
                self._nap(math.inf)
            self._link.sender.send(message)
            self._work.notify()

    def send_deferred(self, message: bytes) -> None:
        """Queue a message that can wait: it is sent once everything before it is acknowledged.

        On an idle link that is at once. It is also sent before the next message, and before
        `receive` or `flush` wait. Until then `withdraw` returns it. Raises like `send`.
        """
        with self._lock:
            self._check_port()
            self._check_session()
            self._link.sender.send_deferred(message)
            self._work.notify()

    def withdraw(self) -> bytes | None:
        """Return the deferred message, which is then not sent; None if it has been sent."""
        with self._lock:
            return self._link.sender.withdraw()

    def receive(self, timeout: float | None = None) -> bytes | None:
        """Return the next message, None if none came within `timeout` seconds.

        What arrived before a session or the line ended is returned first; then this raises
        LinkError (PeerSilent, PeerRestarted, PeerClosed) or LineLost.
        """
        deadline = deadline_of(timeout)
        with self._lock:
            while True:
                message = self._link.flow.next_message(time.monotonic())
                if message is not None:
                    self._work.notify()  # the peer may have waited for room
                    return message
                self._check_port()
                self._check_session()
                self._check_silence()
                if time.monotonic() >= deadline:
                    return None
                self._release_deferred()
                self._nap(deadline)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the peer has everything that was sent; False if `timeout` seconds passed.

        Raises like `send`.
        """
        deadline = deadline_of(timeout)
        with self._lock:
            self._release_deferred()
            while self._link.sender.queued:
                self._check_port()
                self._check_session()
                self._check_silence()
                if time.monotonic() >= deadline:
                    return False
                self._nap(deadline)
            return True

    def close(self) -> None:
        """Say goodbye and close the port; what is queued is dropped. Twice does no harm."""
        with self._lock:
            if self._pump.ending:
                return
            self._link.close()
            self._work.notify()
            deadline = time.monotonic() + FAREWELL
            while self._link.next_time() == -math.inf and not self._pump.broken:
                if time.monotonic() >= deadline:
                    break
                self._nap(deadline)
        self._pump.stop()

    def _release_deferred(self) -> None:
        if self._link.sender.release_deferred():
            self._work.notify()

    def _nap(self, until: float) -> None:
        self._pump.changed.wait(max(0.0, min(NAP, until - time.monotonic())))

    def _no_answer(self) -> str:
        counts = self._link.counts
        if counts.echoes:
            return (
                f"{self.name}: our own bytes come back: a loop-back plug, or a console that echoes"
            )
        if counts.skipped or self._link.reader.buffered:
            return (
                f"{self.name}: bytes arrive but none of them make sense: another baud rate, or "
                "another program than glioslice at the far end"
            )
        return f"{self.name}: nobody answers; is the board on and its runner started?"

    def _check_port(self) -> None:
        if self._pump.failure is not None:
            raise self._pump.failure
        if self._pump.ending:
            raise PeerClosed(f"{self.name}: this connection is closed")

    def _check_session(self) -> None:
        match self._link.state:
            case State.RESTARTED:
                raise PeerRestarted(f"{self.name}: the far end has restarted")
            case State.CLOSED:
                raise PeerClosed(f"{self.name}: the far end has ended the session")
            case State.REFUSED:
                raise LinkError(f"{self.name}: {self._link.refusal}")
            case State.OPENING:
                raise LinkError(f"{self.name}: no session is open; call open first")

    @property
    def rate(self) -> int | None:
        """The baud rate of the moment; None where it is fixed or there is none."""
        with self._lock:
            return self._link.rate

    def _check_silence(self) -> None:
        silent = time.monotonic() - self._link.heard_at
        if silent >= self.silence:
            raise PeerSilent(
                f"{self.name}: nothing heard for {silent:.0f} s; is the far end on and connected?"
            )
        if silent < QUIET:
            self._quiet = False
        elif not self._quiet:
            self._quiet = True
            self._say(
                f"{self.name}: nothing heard for {QUIET:.0f} s; the session goes on if the far end "
                f"is back within {self.silence:.0f}"
            )


def deadline_of(timeout: float | None) -> float:
    """Return the moment `timeout` seconds from now; infinity for None."""
    return math.inf if timeout is None else time.monotonic() + timeout
