"""`sim://`: a pseudo-terminal with a process at its far end and a paced, damaging line between.

    sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&seed=3

The process opens its end like any serial port. One thread moves the bytes. POSIX only: pty and tty
are imported when a simulated line is opened, never before.
"""

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from glioslice.wire.lane import Lane, Quality
from glioslice.wire.transport import LineLost, PortError, line_errors

PLACEHOLDER = "{port}"

WRITE_BUFFER = 4096
"""Bytes that a write leaves behind before it waits, as in a Linux UART."""

READ_BUFFER = 65536
"""Bytes that wait unread at the host's end; what comes on top is lost, as in a real overrun."""

WATCH = 0.1
"""Seconds between two looks at whether the process still lives."""

DRAIN, GRACE, TERM = 1.0, 2.0, 3.0
"""Seconds at close: for the last bytes to leave, to end after SIGTERM, after the line hung up."""


def share(text: str) -> float:
    """Return a probability below 1."""
    return bounded(float(text), 0.0, 1.0 - 1e-9)


def seconds(text: str) -> float:
    """Return a time of at most a minute: 16ms, 0.016s or 0.016."""
    if text.endswith("ms"):
        return bounded(float(text.removesuffix("ms")) / 1000, 0.0, 60.0)
    return bounded(float(text.removesuffix("s")), 0.0, 60.0)


def bounded(value: float, low: float, high: float) -> float:
    """Return `value`; ValueError outside `low` to `high`, and for what is no number."""
    if not low <= value <= high:
        raise ValueError
    return value


OPTIONS: dict[str, Callable[[str], float]] = {
    "baud": lambda text: int(bounded(int(text), 50, 100_000_000)),
    "errors": share,
    "loss": share,
    "latency": seconds,
    "seed": int,
}


def parse_url(url: str, baud: int) -> Quality:
    """Return what `url` says about the line; `baud` holds where it names none.

    Raises PortError for an option or a value that does not exist.
    """
    values: dict[str, Any] = {"baud": baud}
    for key, text in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if key not in OPTIONS:
            raise PortError(
                f"{url}: no option '{key}'; a simulated line knows {', '.join(OPTIONS)}", "invalid"
            )
        try:
            values[key] = OPTIONS[key](text)
        except ValueError:
            raise PortError(
                f"{url}: '{text}' is no value for {key}; write for instance "
                "sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&seed=3",
                "invalid",
            ) from None
    return Quality(**values)


def open_simulated(url: str, baud: int, command: Sequence[str] | None) -> "SimPort":
    """Return the near end of a simulated line with `command` started at its far end."""
    quality = parse_url(url, baud)
    if not command:
        raise PortError(f"{url}: a simulated line needs a command to start at its end", "invalid")
    if os.name != "posix":
        raise PortError(
            f"{url}: simulated lines need pseudo-terminals, which this system lacks", "invalid"
        )
    return SimPort(url, quality, command)


class SimPort:
    """The near end of a simulated line."""

    def __init__(self, name: str, quality: Quality, command: Sequence[str]) -> None:
        import pty
        import tty

        self.name = name
        self._up, self._down = Lane(quality, "up"), Lane(quality, "down")
        self._outgoing, self._incoming = bytearray(), bytearray()
        self._changed = threading.Condition()
        self._closing = self._closed = False
        self._exit: int | None = None
        with line_errors(name):
            self._near, far = pty.openpty()
            # Raw before anyone writes: until then a terminal echoes. The far descriptor stays
            # open here, or reading the near one fails while the process has not opened its own.
            tty.setraw(far)
            os.set_blocking(self._near, False)
            self._wake_read, self._wake_write = os.pipe()
            os.set_blocking(self._wake_write, False)
            self._descriptors: tuple[int, ...] = (
                self._near,
                far,
                self._wake_read,
                self._wake_write,
            )
        arguments = [part.replace(PLACEHOLDER, os.ttyname(far)) for part in command]
        try:
            # Its own session: Ctrl-C at the host's terminal is the host's to handle.
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            for descriptor in self._descriptors:
                os.close(descriptor)
            raise PortError(
                f"{name}: {arguments[0]} cannot be started ({error.strerror})", "missing"
            ) from error
        self._thread = threading.Thread(target=self._move, name="wire-sim", daemon=True)
        self._thread.start()

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, waiting up to `timeout` seconds for the first byte."""
        with self._changed:
            self._changed.wait_for(lambda: self._incoming or self._ended(), timeout)
            if not self._incoming and self._ended():
                raise self._lost()
            data = bytes(self._incoming)
            self._incoming.clear()
            return data

    def write(self, data: bytes) -> None:
        """Hand all of `data` to the line, waiting while its buffer is full."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._outgoing) < WRITE_BUFFER or self._ended())
            if self._ended():
                raise self._lost()
            self._outgoing += data
            self._wake()

    def close(self) -> None:
        """Let the last bytes leave, then end the process and wait for it; twice does no harm."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(
                lambda: self._exit is not None or (not self._outgoing and self._up.empty()), DRAIN
            )
            self._closing = True
            self._changed.notify_all()
        self._wake()
        self._thread.join()
        self._end_process()

    def _end_process(self) -> None:
        # Asked to end while its line still stands, a board leaves without a complaint.
        for stop, patience in ((self._process.terminate, GRACE), (self._hang_up, TERM)):
            stop()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                break
        else:
            self._process.kill()
            self._process.wait()
        self._hang_up()

    def _hang_up(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = ()

    def _ended(self) -> bool:
        return self._exit is not None or self._closing

    def _lost(self) -> LineLost:
        if self._exit is None:
            return LineLost(f"{self.name}: the line was closed")
        how = f"exit code {self._exit}" if self._exit >= 0 else f"signal {-self._exit}"
        return LineLost(
            f"{self.name}: the process at the far end has ended ({how}); its messages stand above"
        )

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, b"x")

    def _move(self) -> None:
        """Move bytes both ways until the port closes or the process has ended."""
        watched = 0.0
        while not self._closing:
            now = time.monotonic()
            quiet = self._step(now)
            if now >= watched:
                watched = now + WATCH
                code = self._process.poll()
                if code is not None and quiet:  # what it wrote last has been delivered
                    with self._changed:
                        self._exit = code
                        self._changed.notify_all()
                    return
            now = time.monotonic()
            due = min(self._up.next_time(now), self._down.next_time(now), watched)
            sources = [self._wake_read]
            if self._down.room(now):
                sources.append(self._near)
            ready = select.select(sources, [], [], max(0.0, due - now))[0]
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)

    def _step(self, now: float) -> bool:
        """Move what is due in both directions; return whether nothing is left on its way down."""
        with self._changed:
            while room := self._up.room(now):  # more than once where this thread was kept waiting
                waiting = bytes(self._outgoing[:room])
                del self._outgoing[:room]
                self._up.put(waiting, now)
                if not waiting:
                    break
            up = self._up.take(now)
        if up:
            with suppress(BlockingIOError):  # nobody reads: an overrun, as at a real UART
                os.write(self._near, up)
        while room := self._down.room(now):
            waiting = self._written(room)
            self._down.put(waiting, now)
            if not waiting:
                break
        down = self._down.take(now)
        with self._changed:
            self._incoming += down[: READ_BUFFER - len(self._incoming)]
            self._changed.notify_all()
        return self._down.empty()

    def _written(self, room: int) -> bytes:
        """Return up to `room` bytes that the process has written."""
        try:
            return os.read(self._near, room)
        except OSError:  # nothing there
            return b""
