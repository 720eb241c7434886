"""Two threads between a port and a link: one reads, one writes; a line that was lost is taken up.

Both sleep until there is something to do. Whoever uses the link holds `lock`, waits for `changed`,
and notifies `work` once the link has something to send.
"""

import math
import threading
import time
from collections.abc import Callable

from glioslice.wire.link import Link
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
