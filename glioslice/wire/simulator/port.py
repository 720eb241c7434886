"""What `sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&unplug=3s` says about a line.

`sim://`: a pseudo-terminal with a process at its far end and a paced, damaging line between.

    sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&unplug=3s&after=2s&seed=3

`baud` is the fastest rate that the line carries. Both ends begin at 115200 or at the rate they are
fixed to; bytes cross at the rate of the end that sends them, and arrive as noise if the other end
is set to another one or the line does not carry it. A line slower than 115200 still takes bytes at
that rate, and passes them on at its own.

The process opens its end like any serial port. One thread moves the bytes. POSIX only: pty, tty and
termios are imported when a simulated line is opened, never before.
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

from glioslice.wire.simulator.line import SLICE, Cable, Lane, Quality, rate_of, set_rate_of
from glioslice.wire.transport import BAUD, RATES, LineLost, PortError, line_errors


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
    "unplug": seconds,
    "after": seconds,
    "seed": int,
}


def parse_url(url: str, baud: int) -> Quality:
    """Return what `url` says about the line; it carries `baud` where it names no rate.

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
                "sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&unplug=3s&seed=3",
                "invalid",
            ) from None
    return Quality(**values)


PLACEHOLDER = "{port}"

WRITE_BUFFER = 4096
"""Bytes that a write leaves behind before it waits, as in a Linux UART."""

READ_BUFFER = 65536
"""Bytes that wait unread at either end, as a Linux terminal holds them; more are an overrun."""

WATCH = 0.1
"""Seconds between two looks at whether the process still lives."""

DRAIN, GRACE, TERM = 1.0, 2.0, 3.0
"""Seconds at close: for the last bytes to leave, to end after SIGTERM, after the line hung up."""


def open_simulated(url: str, baud: int | None, command: Sequence[str] | None) -> "SimPort":
    """Return the near end of a simulated line with `command` started at its far end.

    `baud` fixes the rate of the near end.
    """
    quality = parse_url(url, baud or BAUD)
    if not command:
        raise PortError(f"{url}: a simulated line needs a command to start at its end", "invalid")
    if os.name != "posix":
        raise PortError(
            f"{url}: simulated lines need pseudo-terminals, which this system lacks", "invalid"
        )
    return SimPort(url, quality, command, baud)


class SimPort:
    """The near end of a simulated line."""

    def __init__(
        self, name: str, quality: Quality, command: Sequence[str], baud: int | None = None
    ) -> None:
        import pty
        import tty

        self.name = name
        # A line of 115200 baud or less has an adapter without further rates: nothing to look for.
        self.rates = RATES if baud is None and quality.baud > BAUD else ()
        self._quality = quality
        self._up, self._down = Lane(quality, "up"), Lane(quality, "down")
        self._begins = self._near_rate = baud or BAUD
        self._cable = Cable(quality)
        self._outgoing, self._incoming, self._unread = bytearray(), bytearray(), bytearray()
        self._changed = threading.Condition()
        self._closing = self._closed = False
        self._exit: int | None = None
        with line_errors(name):
            self._near, far = pty.openpty()
            # Raw before anyone writes: until then a terminal echoes. The far descriptor stays
            # open here, or reading the near one fails while the process has not opened its own.
            tty.setraw(far)
            set_rate_of(far, self._begins)
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
            self._changed.wait_for(
                lambda: self._incoming or self._ended() or not self._cable.held, timeout
            )
            if not self._incoming and self._ended():
                raise self._lost()
            self._check_cable()
            data = bytes(self._incoming)
            self._incoming.clear()
            return data

    def write(self, data: bytes) -> None:
        """Hand all of `data` to the line, waiting while its buffer is full."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._outgoing) < WRITE_BUFFER or self._ended() or not self._cable.held
            )
            if self._ended():
                raise self._lost()
            self._check_cable()
            self._outgoing += data
            self._wake()

    def set_rate(self, baud: int) -> None:
        """Use another rate from now on, once what was written has left."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._outgoing or self._ended() or not self._cable.held, DRAIN
            )
            self._near_rate = baud

    def reopen(self) -> None:
        """Take hold of the line again; raises PortError while its cable is out."""
        with self._changed:
            if self._ended():
                raise self._lost()
            if not self._cable.plug(time.monotonic()):
                raise PortError(f"{self.name}: there is no such port; its cable is out", "missing")
            self._near_rate = self._begins

    def _check_cable(self) -> None:
        if not self._cable.held:
            raise LineLost(f"{self.name}: the line was lost; its cable was pulled out")

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
            return LineLost(f"{self.name}: the line was closed", "ended")
        how = f"exit code {self._exit}" if self._exit >= 0 else f"signal {-self._exit}"
        return LineLost(
            f"{self.name}: the process at the far end has ended ({how}); its messages stand above",
            "ended",
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
            if self._unread:
                due = min(due, now + SLICE)
            sources = [self._wake_read]
            if self._down.room(now):
                sources.append(self._near)
            ready = select.select(sources, [], [], max(0.0, due - now))[0]
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)

    def _step(self, now: float) -> bool:
        """Move what is due in both directions; return whether nothing is left on its way down."""
        far_rate = rate_of(self._descriptors[1])
        with self._changed:
            if not self._cable.whole(now):
                self._pull_out()
                return self._down.empty()
            garbled = self._garbled(far_rate)
            self._up.set_rate(min(self._near_rate, self._quality.baud))
            while room := self._up.room(now):  # more than once where this thread was kept waiting
                waiting = bytes(self._outgoing[:room])
                del self._outgoing[:room]
                self._up.put(waiting, now, garbled)
                if not waiting:
                    break
            up = self._up.take(now)
        self._unread += up[: READ_BUFFER - len(self._unread)]
        if self._unread:  # a pseudo-terminal takes a quarter of what a UART's would
            with suppress(BlockingIOError):
                del self._unread[: os.write(self._near, self._unread)]
        self._down.set_rate(min(far_rate, self._quality.baud))
        while room := self._down.room(now):
            waiting = self._written(room)
            self._down.put(waiting, now, garbled)
            if not waiting:
                break
            self._cable.begin(now)
        down = self._down.take(now)
        with self._changed:
            self._incoming += down[: READ_BUFFER - len(self._incoming)]
            self._changed.notify_all()
        return self._down.empty()

    def _garbled(self, far_rate: int) -> bool:
        """Tell whether bytes that set out now arrive as noise."""
        return self._near_rate != far_rate or far_rate > max(self._quality.baud, BAUD)

    def _pull_out(self) -> None:
        """Lose what is on its way, and what the process goes on to write."""
        for waiting in (self._outgoing, self._incoming, self._unread):
            waiting.clear()
        for lane in (self._up, self._down):
            lane.clear()
        while self._written(READ_BUFFER):
            pass
        self._changed.notify_all()

    def _written(self, room: int) -> bytes:
        """Return up to `room` bytes that the process has written."""
        try:
            return os.read(self._near, room)
        except OSError:  # nothing there
            return b""
