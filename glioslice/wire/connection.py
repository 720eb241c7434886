"""Two threads between a port and a link: one reads, one writes; a line that was lost is taken up.

Both sleep until there is something to do. Whoever uses the link holds `lock`, waits for `changed`,
and notifies `work` once the link has something to send.

A link that runs over a port: `open`, `send`, `receive`, `flush`, `close`.

Two threads own the port, one reads and one writes, so that the caller computes while bytes cross.
Both sleep until there is something to do. `send` waits when 64 kB are on their way; a caller who
does not `receive` makes the peer pause. Messages are bytes here; `messages` gives them meaning.

A cable that is pulled out and put back within a minute ends nothing: the port is opened again by
its name, and the session goes on where it was.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from glioslice.wire.link import Counts, Link, LinkError, Settings, State
from glioslice.wire.transport import BAUD, AdjustablePort, Port, PortError

REOPEN = 0.25
"""Seconds between two tries to open a port that vanished."""

READ_WAIT = 0.2


class Pump:
    """Moves bytes between `port` and `link`, which may be replaced by the next one under the lock.

    `failure` is why the port is lost for good, `trouble` why it is lost now. A port that can be
    opened again has `silence` seconds for that; `say` takes lines for people.
    """

    def __init__(self, port: Port, link: Link, silence: float, say: Callable[[str], None]) -> None:
        self.port, self.link = port, link
        self.lock = threading.Lock()
        self.work = threading.Condition(self.lock)
        self.changed = threading.Condition(self.lock)
        self.failure: PortError | None = None
        self.trouble: PortError | None = None
        self.ending = False
        self.name, self.silence, self._say = port.name, silence, say
        self._adjustable = port if isinstance(port, AdjustablePort) else None
        self._rate = link.rate  # that of the port: both begin alike
        self._lost_at: float | None = None
        self.threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._read, "wire-read"), (self._write, "wire-write"))
        ]

    @property
    def broken(self) -> bool:
        """Whether nothing can leave at this moment."""
        return self.failure is not None or self.trouble is not None

    def start(self) -> None:
        """Begin to read and to write."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """End both threads and close the port; whoever used it has said that."""
        with self.lock:
            self.ending = True
            self.work.notify()
        for thread in self.threads:
            thread.join()
        self.port.close()

    def _read(self) -> None:
        """Feed what arrives to the link until the connection ends."""
        while not self.ending and self.failure is None:
            try:
                if self.trouble is not None:
                    self._take_up()
                    continue
                data = self.port.read(READ_WAIT)
            except PortError as error:
                self._drop(error)
                continue
            if not data:
                continue
            with self.lock:
                if self.link.receive_bytes(data, time.monotonic()):
                    self._lost_at = None
                    self.work.notify()
                    self.changed.notify_all()

    def _write(self) -> None:
        """Give the port what the link wants to send, when it is due, until the connection ends."""
        while True:
            with self.lock:
                if self.ending or self.failure is not None:
                    return
                if self.trouble is not None:
                    self.work.wait(REOPEN)
                    continue
                now = time.monotonic()
                data = self.link.outgoing(now)
                rate = self.link.rate
                if not data and rate == self._rate:
                    self.changed.notify_all()  # `close` waits for the farewell to leave
                    due = self.link.next_time()
                    self.work.wait(None if due == math.inf else max(0.0, due - now))
                    continue
            try:
                if self._adjustable and rate is not None and rate != self._rate:
                    self._adjustable.set_rate(rate)
                self._rate = rate
                if data:
                    self.port.write(data)
            except PortError as error:
                self._drop(error)

    def _drop(self, error: PortError) -> None:
        """Note that the line was lost: the reader opens it again, if it can be."""
        with self.lock:
            if self._adjustable is None or error.reason == "ended" or self.ending:
                self._fail(error)
                return
            now = time.monotonic()
            if self._lost_at is None:
                self._lost_at = now
                self._say(f"{error}; waiting up to {self.silence:.0f} s for it to come back")
            if now - self._lost_at >= self.silence:
                self._fail(error)
            self.trouble = self.trouble or error

    def _take_up(self) -> None:
        """Open the port again, or try again soon; raises PortError if it will never come back."""
        assert self._adjustable is not None
        with self.lock:
            assert self._lost_at is not None and self.trouble is not None
            if time.monotonic() - self._lost_at >= self.silence:
                self._fail(self.trouble)
                return
        try:
            self._adjustable.reopen()
        except PortError as error:
            if error.reason == "ended":
                with self.lock:
                    self._fail(self.trouble)
                return
            with self.lock:
                self.changed.wait(REOPEN)
            return
        with self.lock:
            self._say(f"{self.name}: the line is back")
            self._rate = self.link.rate if self.link.rate is None else BAUD
            self.trouble = None
            self.work.notify()

    def _fail(self, error: PortError) -> None:
        self.failure = self.failure or error
        self.work.notify_all()
        self.changed.notify_all()


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
