"""`sim://`: a pseudo-terminal with a process at its far end and a simulated line between.

    sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&unplug=3s&after=2s&seed=3

`baud` is the fastest rate that the line carries. Both ends begin at 115200 or at their fixed rate.
Bytes cross at the rate of the end that sends them, and arrive as noise if the other end is set to
another rate or the line does not carry it. A line slower than 115200 accepts bytes at that rate and
passes them on at its own.

The process opens its end like any serial port. One thread moves the bytes. POSIX only: pty, tty and
termios are imported when a simulated line is opened, never before.
"""

import math
import os
import select
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from glioslice.wire.simulator.line import Lane, LineQuality
from glioslice.wire.transport import BAUD, RATES, LineLost, PortError, line_exceptions, line_lost

PLACEHOLDER = "{port}"

OTHER_RATES = (9600, 19200, 38400, 57600, 500000, 576000, 1152000, 2500000, 3500000)
"""Further rates that a process may set its end to; one that is not listed counts as 115200."""

WRITE_BUFFER = 4096
"""Bytes that a write leaves behind before it waits, as in a Linux UART."""

READ_BUFFER = 65536
"""Bytes that wait unread at either end, as in a Linux terminal; more are an overrun."""

PIECE = 0.016
"""Seconds of line that are moved at once, as a USB adapter's timer does: a thread that wakes more
often takes time from the programs at both ends."""

POLL = 0.1
"""Seconds between two checks whether the process is still alive."""

DRAIN, GRACE, TERM = 1.0, 2.0, 3.0
"""Seconds at close: to send the last bytes, to end after SIGTERM, to end after the hang-up."""


def share(text: str) -> float:
    """Return a probability below 1."""
    return bounded(float(text), 0.0, 1.0 - 1e-9)


def seconds(text: str) -> float:
    """Return a time of at most a minute: 16ms, 0.016s or 0.016."""
    if text.endswith("ms"):
        return bounded(float(text.removesuffix("ms")) / 1000, 0.0, 60.0)
    return bounded(float(text.removesuffix("s")), 0.0, 60.0)


def bounded(value: float, low: float, high: float) -> float:
    """Return `value`; ValueError outside `low` to `high`, and for NaN."""
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


def parse_url(url: str, baud: int) -> LineQuality:
    """Return the line that `url` describes; it carries `baud` where the URL names no rate.

    Raises PortError for an option or a value that does not exist.
    """
    values: dict[str, Any] = {"baud": baud}
    for key, text in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if key not in OPTIONS:
            raise PortError(
                f"{url}: no option '{key}'; a simulated line has {', '.join(OPTIONS)}", "invalid"
            )
        try:
            values[key] = OPTIONS[key](text)
        except ValueError:
            raise PortError(
                f"{url}: '{text}' is not a value for {key}; write for instance "
                "sim://?baud=921600&errors=1e-5&loss=0.005&latency=16ms&unplug=3s&seed=3",
                "invalid",
            ) from None
    return LineQuality(**values)


def open_simulated(url: str, baud: int | None, command: Sequence[str] | None) -> "SimPort":
    """Return the near end of a simulated line, with `command` started at its far end.

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
        self, name: str, quality: LineQuality, command: Sequence[str], baud: int | None = None
    ) -> None:
        import pty
        import tty

        self.name = name
        # A line of 115200 baud or less has an adapter without further rates: nothing to search for.
        self.rates = RATES if baud is None and quality.baud > BAUD else ()
        self._quality = quality
        self._up, self._down = Lane(quality, "up", PIECE), Lane(quality, "down", PIECE)
        self._first_rate = self._near_rate = baud or BAUD
        self._plugged = True
        self._out_at = self._in_at = math.inf if quality.unplug else -math.inf
        self._outgoing: deque[bytes] = deque()  # the writes that are not sent yet
        self._waiting = 0  # their bytes
        self._incoming, self._unread = bytearray(), bytearray()
        self._changed = threading.Condition()
        self._ended = self._closing = self._closed = False
        self._exit: int | None = None
        try:
            self._near, far = pty.openpty()
            # Raw before anyone writes: until then a terminal echoes. The far descriptor stays
            # open here, or reading the near one fails while the process has not opened its own.
            tty.setraw(far)
            set_terminal_rate(far, self._first_rate)
            os.set_blocking(self._near, False)
            self._wake_read, self._wake_write = os.pipe()
            os.set_blocking(self._wake_write, False)
            self._descriptors: tuple[int, ...] = (
                self._near,
                far,
                self._wake_read,
                self._wake_write,
            )
        except line_exceptions() as error:
            raise line_lost(name, error) from error
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
                lambda: self._incoming or self._ended or not self._plugged, timeout
            )
            if not self._plugged or (self._ended and not self._incoming):
                raise self._line_lost()
            data = bytes(self._incoming)
            self._incoming.clear()
            return data

    def write(self, data: bytes) -> None:
        """Write all of `data`, waiting while the buffer is full."""
        if not data:
            return
        with self._changed:
            self._changed.wait_for(
                lambda: self._waiting < WRITE_BUFFER or self._ended or not self._plugged
            )
            if self._ended or not self._plugged:
                raise self._line_lost()
            self._outgoing.append(data)
            self._waiting += len(data)
            if not self._up.room(time.monotonic()):
                return  # the thread wakes when the line is free
        with suppress(BlockingIOError):  # a full pipe wakes the thread as well
            os.write(self._wake_write, b"x")

    def set_rate(self, baud: int) -> None:
        """Change the baud rate once everything written has been sent."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._outgoing or self._ended or not self._plugged, DRAIN
            )
            self._near_rate = baud

    def reopen(self) -> None:
        """Open the line again; raises PortError while its cable is out."""
        with self._changed:
            if self._ended:
                raise self._line_lost()
            if not self._plugged and time.monotonic() < self._in_at:
                raise PortError(f"{self.name}: there is no such port; its cable is out", "missing")
            self._plugged = True
            self._near_rate = self._first_rate

    def close(self) -> None:
        """Send the last bytes, then end the process and wait for it; twice is harmless."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(
                lambda: self._ended or (not self._outgoing and not self._up.in_transit), DRAIN
            )
            self._closing = self._ended = True
            self._changed.notify_all()
        with suppress(BlockingIOError):
            os.write(self._wake_write, b"x")
        self._thread.join()
        self._end_process()

    def _end_process(self) -> None:
        # A board that is stopped before its line is cut ends without an error.
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

    def _line_lost(self) -> LineLost:
        """Return the error for a line that has ended or whose cable is out."""
        if not self._ended:
            return LineLost(f"{self.name}: the line was lost; its cable was pulled out")
        if self._exit is None:
            return LineLost(f"{self.name}: the line was closed", "ended")
        how = f"exit code {self._exit}" if self._exit >= 0 else f"signal {-self._exit}"
        return LineLost(
            f"{self.name}: the process at the far end has ended ({how}); see its messages above",
            "ended",
        )

    def _move(self) -> None:
        """Move bytes both ways until the port closes or the process has ended."""
        next_poll = 0.0
        while not self._closing:
            now = time.monotonic()
            quiet = self._step(now)
            if now >= next_poll:
                next_poll = now + POLL
                code = self._process.poll()
                if code is not None and quiet:  # the last bytes that it wrote have been delivered
                    with self._changed:
                        self._exit, self._ended = code, True
                        self._changed.notify_all()
                    return
            # By the time of the step: a line that has become free since then is due.
            due = min(self._up.next_time(now), self._down.next_time(now), next_poll)
            if self._unread:
                due = min(due, now + PIECE)
            sources = [self._wake_read]
            if self._down.room(now):
                sources.append(self._near)
            ready = select.select(sources, [], [], max(0.0, due - time.monotonic()))[0]
            if self._wake_read in ready:
                os.read(self._wake_read, 4096)

    def _step(self, now: float) -> bool:
        """Move what is due in both directions; return whether nothing is in transit downwards."""
        far_rate = terminal_rate(self._descriptors[1])
        with self._changed:
            if self._out_at <= now < self._in_at:
                self._plugged = False
            if not self._plugged:
                self._lose_everything()
                return True
            garbled = self._near_rate != far_rate or far_rate > max(self._quality.baud, BAUD)
            self._up.baud = min(self._near_rate, self._quality.baud)
            waited = self._waiting
            while room := self._up.room(now):  # more than once where this thread was kept waiting
                waiting = self._take_outgoing(room)
                self._up.put(waiting, now, garbled)
                if not waiting:
                    break
            crossing = bool(self._up.in_transit)  # what the line loses arrives as nothing
            up = self._up.take(now)
            drained = waited >= WRITE_BUFFER > self._waiting or (waited and not self._waiting)
        self._unread += up[: READ_BUFFER - len(self._unread)]
        if self._unread:  # a pseudo-terminal accepts a quarter of what a UART's buffer would
            with suppress(BlockingIOError):
                del self._unread[: os.write(self._near, self._unread)]
        self._down.baud = min(far_rate, self._quality.baud)
        while room := self._down.room(now):
            waiting = self._read_far(room)
            self._down.put(waiting, now, garbled)
            if not waiting:
                break
            if self._out_at == math.inf:
                self._out_at = now + self._quality.after
                self._in_at = self._out_at + self._quality.unplug
        down = self._down.take(now)
        with self._changed:
            self._incoming += down[: READ_BUFFER - len(self._incoming)]
            arrived = crossing and not self._up.in_transit
            if down or drained or arrived:  # what somebody may wait for
                self._changed.notify_all()
        return not self._down.in_transit

    def _take_outgoing(self, room: int) -> bytes:
        """Return the first `room` bytes of the oldest write, whose last byte waits for no other."""
        if not self._outgoing:
            return b""
        piece, rest = self._outgoing[0][:room], self._outgoing.popleft()[room:]
        if rest:
            self._outgoing.appendleft(rest)
        self._waiting -= len(piece)
        return piece

    def _lose_everything(self) -> None:
        """Lose what is in transit, and what the process goes on to write."""
        for lost in (self._outgoing, self._incoming, self._unread):
            lost.clear()
        self._waiting = 0
        for lane in (self._up, self._down):
            lane.in_transit.clear()
        while self._read_far(READ_BUFFER):
            pass
        self._changed.notify_all()

    def _read_far(self, room: int) -> bytes:
        """Return up to `room` bytes that the process has written."""
        try:
            return os.read(self._near, room)
        except OSError:  # there are none
            return b""


def set_terminal_rate(descriptor: int, rate: int) -> None:
    """Set a terminal to a baud rate, as a program would that opens it."""
    import termios

    attributes = termios.tcgetattr(descriptor)
    attributes[4] = attributes[5] = getattr(termios, f"B{rate}", termios.B115200)
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def terminal_rate(descriptor: int) -> int:
    """Return the baud rate that a terminal is set to."""
    import termios

    try:
        speed = termios.tcgetattr(descriptor)[5]
    except termios.error:
        return BAUD
    return _speeds().get(speed, BAUD)


@cache
def _speeds() -> dict[int, int]:
    """Return the baud rates by the numbers that stand for them in a terminal's attributes."""
    import termios

    rates = (rate for rate in (*OTHER_RATES, *RATES) if hasattr(termios, f"B{rate}"))
    return {getattr(termios, f"B{rate}"): rate for rate in rates}
