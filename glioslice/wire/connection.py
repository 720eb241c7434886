"""A link that runs over a port: `open`, `send`, `receive`, `flush`, `close`.

    with Connection(open_port("/dev/ttyUSB0"), active=True) as connection:
        connection.open()
        connection.send(b"message")
        reply = connection.receive(timeout=5.0)

Two threads own the port, one reads and one writes, so that the caller computes while bytes cross.
Both sleep until there is something to do. `send` waits while 64 kB are in flight; a caller who does
not `receive` makes the peer pause. Messages are bytes here; `messages` defines their content.

A cable that is pulled out and put back within a minute ends nothing: the port is reopened by its
name, and the session resumes where it was.
"""

import logging
import math
import threading
import time
from dataclasses import replace
from types import TracebackType

from glioslice.wire.baud_negotiation import Phase
from glioslice.wire.link import Counts, Link, LinkError, Settings, State
from glioslice.wire.transport import BAUD, AdjustablePort, Port, PortError

logger = logging.getLogger(__name__)

REOPEN = 0.25
"""Seconds between two attempts to reopen a port that vanished."""

READ_WAIT = 0.2

SETTLED = 1.0
"""Seconds that a baud rate has to last before it is logged: trials are shorter."""

SILENCE = 60.0
"""Seconds without a packet after which a peer, or a port that vanished, is given up."""

WARN_AFTER = 5.0
"""Seconds without a packet after which a warning is logged; a peer sends one every second."""

SEND_LIMIT = 65536
CLOSE_WAIT = 0.5
MAX_WAIT = 0.5
"""Seconds of the longest single wait: on Windows, Ctrl-C is seen between two waits only."""


class PeerSilent(LinkError):
    """Nothing is received from the peer; the session resumes if it replies again."""


class PeerRestarted(LinkError):
    """The peer has begun a new session; `open` joins it, what was not received is lost."""


class PeerClosed(LinkError):
    """The peer has closed the session."""


class Pump:
    """Moves bytes between `port` and `link`, which may be replaced under the lock.

    Whoever uses the link holds `lock`, waits for `changed`, and notifies `work` once the link has
    something to send. `failure` is why the port is lost for good, `outage` why it is lost at
    present. A port that can be reopened has `silence` seconds for that.
    """

    def __init__(self, port: Port, link: Link, silence: float) -> None:
        self.port, self.link = port, link
        self.lock = threading.Lock()
        self.work = threading.Condition(self.lock)
        self.changed = threading.Condition(self.lock)
        self.failure: PortError | None = None
        self.outage: PortError | None = None
        self.ending = False
        self.name, self.silence = port.name, silence
        self._adjustable = port if isinstance(port, AdjustablePort) else None
        self._rate = self._logged_rate = link.rate  # that of the port: both begin alike
        self._rate_set_at = -math.inf
        self._lost_at: float | None = None
        self.threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for target, name in ((self._read, "wire-read"), (self._write, "wire-write"))
        ]

    @property
    def broken(self) -> bool:
        """Whether nothing can be sent at present."""
        return self.failure is not None or self.outage is not None

    def start(self) -> None:
        """Start reading and writing."""
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Stop both threads and close the port."""
        with self.lock:
            self.ending = True
            self.work.notify()
        for thread in self.threads:
            thread.join()
        self.port.close()

    def _read(self) -> None:
        """Feed received bytes to the link until the connection ends."""
        while not self.ending and self.failure is None:
            try:
                if self.outage is not None:
                    self._reopen()
                    continue
                data = self.port.read(READ_WAIT)
            except PortError as error:
                self._note_outage(error)
                continue
            if not data:
                continue
            with self.lock:
                if self.link.receive_bytes(data, time.monotonic()):
                    self._lost_at = None
                    self.work.notify()
                    self.changed.notify_all()

    def _write(self) -> None:
        """Write what the link has to send, when it is due, until the connection ends."""
        while True:
            with self.lock:
                if self.ending or self.failure is not None:
                    return
                if self.outage is not None:
                    self.work.wait(REOPEN)
                    continue
                now = time.monotonic()
                data = self.link.outgoing(now)
                rate = self.link.rate
                if rate == self._rate != self._logged_rate:
                    self._log_rate(now)
                if not data and rate == self._rate:
                    self.changed.notify_all()  # `close` waits until the last CLOSE is sent
                    due = self.link.next_time()
                    self.work.wait(None if due == math.inf else max(0.0, due - now))
                    continue
            try:
                if rate != self._rate:
                    if self._adjustable and rate is not None:
                        self._adjustable.set_rate(rate)
                    self._rate, self._rate_set_at = rate, now
                if data:
                    self.port.write(data)
            except PortError as error:
                self._note_outage(error)

    def _log_rate(self, now: float) -> None:
        """Log a baud rate that both ends have kept for a while."""
        settled = self.link.flow.negotiation.phase is Phase.STEADY
        if settled and now - self._rate_set_at >= SETTLED:
            self._logged_rate = self._rate
            logger.info("%s: the serial link runs at %s baud", self.name, self._rate)

    def _note_outage(self, error: PortError) -> None:
        """Note that the line was lost; the reader reopens the port if that is possible."""
        with self.lock:
            if self._adjustable is None or error.reason == "ended" or self.ending:
                self._fail(error)
                return
            now = time.monotonic()
            if self._lost_at is None:
                self._lost_at = now
                logger.warning("%s; waiting up to %.0f s for it to return", error, self.silence)
            if now - self._lost_at >= self.silence:
                self._fail(error)
            self.outage = self.outage or error

    def _reopen(self) -> None:
        """Reopen the port, or wait for the next attempt; fail if it will never return."""
        assert self._adjustable is not None
        with self.lock:
            assert self._lost_at is not None and self.outage is not None
            if time.monotonic() - self._lost_at >= self.silence:
                self._fail(self.outage)
                return
        try:
            self._adjustable.reopen()
        except PortError as error:
            with self.lock:
                if error.reason == "ended":
                    self._fail(self.outage)
                else:
                    self.changed.wait(REOPEN)
            return
        with self.lock:
            logger.info("%s: the line is back", self.name)
            self._rate = self.link.rate if self.link.rate is None else BAUD
            self.outage = None
            self.work.notify()

    def _fail(self, error: PortError) -> None:
        self.failure = self.failure or error
        self.work.notify_all()
        self.changed.notify_all()


class Connection:
    """One end of a link over a port. The active end requests the session, the passive one waits.

    It owns the port and closes it. Any thread may call its methods. When a session has ended,
    `open` begins the next one on the same port. `silence` is how many seconds a silent peer or a
    vanished port is waited for.
    """

    def __init__(
        self,
        port: Port,
        *,
        active: bool,
        settings: Settings | None = None,
        silence: float = SILENCE,
    ) -> None:
        self.name = port.name
        self.silence = silence
        rates = port.rates if isinstance(port, AdjustablePort) else ()
        self._settings = replace(settings or Settings(), rates=rates)
        self._link = Link(self._settings, active=active)
        self._joined = False
        self._earlier = Counts()
        self._warned = False
        self._pump = Pump(port, self._link, silence)
        self._lock, self._work = self._pump.lock, self._pump.work
        self._pump.start()

    def __enter__(self) -> "Connection":
        """Return the connection, which is closed at the end of the block."""
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
            return self._earlier + self._link.counts

    @property
    def port(self) -> Port:
        """The port that it owns."""
        return self._pump.port

    @property
    def skipped(self) -> bytes:
        """The last bytes from the line that belonged to no frame, at most 256."""
        with self._lock:
            return self._link.reader.sample

    @property
    def rate(self) -> int | None:
        """The present baud rate; None where it is fixed or there is none."""
        with self._lock:
            return self._link.rate

    @property
    def progress(self) -> tuple[int, int, int]:
        """Changes whenever data arrives at either end, and with each session."""
        with self._lock:
            link = self._link
            return link.session, link.sender.base, link.receiver.expected

    def open(self, timeout: float | None = None) -> None:
        """Begin a session, waiting up to `timeout` seconds for the peer (None: for ever).

        A session from an earlier call is abandoned. Raises PeerSilent if there was no reply in
        time; calling again continues to wait. Raises LinkError for a peer of another version and
        LineLost for a line that failed.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._lock:
            if self._joined or self._link.state not in (State.OPENING, State.OPEN):
                self._joined = False
                self._earlier = self._earlier + self._link.counts
                self._link = Link(self._settings, active=self._link.active)
                self._pump.link = self._link
                self._work.notify()
            while self._link.state is State.OPENING:
                self._check_port()
                if time.monotonic() >= deadline:
                    raise PeerSilent(str(self._pump.outage or self._no_reply()))
                self._wait(deadline)
            if self._link.state is not State.OPEN:
                raise self._not_open()
            self._joined = True
        logger.info("%s: session %08x opened", self.name, self._link.session)

    def send(self, message: bytes) -> None:
        """Queue a message; waits while 64 kB are in flight.

        Raises LinkError (PeerSilent, PeerRestarted, PeerClosed) or LineLost.
        """
        with self._lock:
            self._check()
            while len(self._link.sender.unacknowledged) >= SEND_LIMIT:
                self._check(waiting=True)
                self._wait(math.inf)
                self._check()
            self._link.sender.send(message)
            self._work.notify()

    def send_deferred(self, message: bytes) -> None:
        """Queue a message that can wait: it is sent once everything before it is acknowledged.

        On an idle link that is at once. It is also sent before the next message, and before
        `receive` or `flush` wait. Until then `withdraw` returns it. Raises like `send`.
        """
        with self._lock:
            self._check()
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
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._lock:
            while True:
                message = self._link.receiver.next_message()
                if message is not None:
                    self._work.notify()  # the peer may have waited for room
                    return message
                self._check(waiting=True)
                if time.monotonic() >= deadline:
                    return None
                self._wait(deadline)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until the peer has everything that was sent; False if `timeout` seconds passed.

        Raises like `send`.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._lock:
            while self._link.sender.unacknowledged or self._link.sender.deferred is not None:
                self._check(waiting=True)
                if time.monotonic() >= deadline:
                    return False
                self._wait(deadline)
            return True

    def close(self) -> None:
        """End the session and close the port; what is queued is dropped. Twice is harmless."""
        with self._lock:
            if self._pump.ending:
                return
            self._link.close()
            self._work.notify()
            deadline = time.monotonic() + CLOSE_WAIT
            while self._link.next_time() == -math.inf and not self._pump.broken:
                if time.monotonic() >= deadline:
                    break
                self._wait(deadline)
        self._pump.stop()

    def _wait(self, deadline: float) -> None:
        """Wait for something to change; a deferred message need not wait any longer."""
        if self._link.sender.deferred is not None:
            self._link.sender.release_deferred()
            self._work.notify()
        self._pump.changed.wait(max(0.0, min(MAX_WAIT, deadline - time.monotonic())))

    def _check_port(self) -> None:
        if self._pump.failure is not None:
            raise self._pump.failure
        if self._pump.ending:
            raise PeerClosed(f"{self.name}: this connection is closed")

    def _check(self, waiting: bool = False) -> None:
        """Raise LinkError or LineLost unless the session is open.

        A peer that has closed the session may have closed the port by now, too: it is PeerClosed
        however soon that is seen. `waiting` checks also that the peer is not silent.
        """
        if self._link.state is not State.OPEN or self._pump.failure or self._pump.ending:
            if self._link.state is not State.CLOSED or self._pump.ending:
                self._check_port()
            raise self._not_open()
        if not waiting:
            return
        silent = time.monotonic() - self._link.last_received
        if silent < min(WARN_AFTER, self.silence):
            self._warned = False
            return
        if silent >= self.silence:
            raise PeerSilent(
                f"{self.name}: nothing received for {silent:.0f} s; is the far end powered and "
                "connected?"
            )
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s: nothing received for %.0f s; the session resumes if the far end replies "
                "within %.0f s",
                self.name,
                WARN_AFTER,
                self.silence,
            )

    def _not_open(self) -> LinkError:
        match self._link.state:
            case State.RESTARTED:
                return PeerRestarted(f"{self.name}: the far end has restarted")
            case State.CLOSED:
                return PeerClosed(f"{self.name}: the far end has closed the session")
            case State.REFUSED:
                return LinkError(f"{self.name}: {self._link.refusal}")
            case _:
                return LinkError(f"{self.name}: no session is open; call open first")

    def _no_reply(self) -> str:
        """Return why no session could be opened, as far as the received bytes show it."""
        counts = self._link.counts
        if counts.echoes:
            return (
                f"{self.name}: our own bytes come back: a loop-back plug, or a console that echoes"
            )
        if counts.skipped or self._link.reader.buffered:
            return (
                f"{self.name}: bytes arrive, but no valid frames: another baud rate, or the "
                "program at the far end is not glioslice"
            )
        if self._link.active:
            return (
                f"no reply from the board at {self.name}; is it powered and is `python -m device` "
                "running?"
            )
        return f"no host has opened a session at {self.name}"
