"""What a training run shows while it runs, when it saves, and how Ctrl-C ends it.

On a terminal a bar shows batches, loss and time left; elsewhere a line on stderr does, within five
seconds of the first batch and then twice a minute.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from glioslice.cli import drawable

FIRST_LINE, LINE_EVERY, BAR_EVERY = 3.0, 30.0, 0.5
"""Seconds until the first plain line, between plain lines, and between updates of the bar."""

SAVE_EVERY = 45.0
"""Seconds between saves within an epoch: the documentation promises one at least every minute."""

GRACE = 10.0
"""Seconds that a batch has to end after Ctrl-C; a later Ctrl-C ends the run within the batch."""


@dataclass
class Ticker:
    """Answers whether `every` seconds have passed since it last said so; `wait` is the first."""

    every: float
    wait: float
    clock: Callable[[], float] = time.monotonic
    _next: float = field(init=False)

    def __post_init__(self) -> None:
        """Start to count."""
        self._next = self.clock() + self.wait

    def is_due(self) -> bool:
        """Return whether it is time; if so, the next time is `every` seconds from now."""
        if self.clock() < self._next:
            return False
        self._next = self.clock() + self.every
        return True


class BatchProgress:
    """Shows where a run of `epochs` epochs of `steps` batches is; a context manager.

    Of several processes one has it `shown`.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        done: int,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._epochs, self._steps, self._first = epochs, steps, done
        self._clock, self._started = clock, clock()
        self._bar: Any = None
        self._shown, drawn = shown, shown and drawable()
        self._ticker = Ticker(
            BAR_EVERY if drawn else LINE_EVERY, BAR_EVERY if drawn else FIRST_LINE, clock
        )
        if drawn:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                BarColumn(),
                TextColumn("{task.description}"),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=sys.stdout.isatty(),  # or rows would not reach a file
            )
            self._bar.add_task("the first batch", total=epochs * steps, completed=done)

    def __enter__(self) -> "BatchProgress":
        """Draw the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, mean_loss: Callable[[], float]) -> None:
        """Show `done` batches of the run if it is time; only then is the loss computed."""
        if not self._shown or not self._ticker.is_due():
            return
        text = self.describe(done, mean_loss())
        if self._bar is None:
            print(text, file=sys.stderr, flush=True)
        else:
            self._bar.update(0, completed=done, description=text)

    def describe(self, done: int, loss: float) -> str:
        """Return epoch, batch, loss and the time left at this process's own speed."""
        epoch, batch = divmod(done - 1, self._steps)
        spent = self._clock() - self._started
        left = spent / (done - self._first) * (self._epochs * self._steps - done)
        return (
            f"epoch {epoch + 1} of {self._epochs}, batch {batch + 1} of {self._steps}, "
            f"loss {loss:.3f}, {format_duration(left)} left"
        )


def format_duration(seconds: float) -> str:
    """Return seconds as a person says them: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextmanager
def deferred_interrupt(enabled: bool = True) -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets, so that the batch at work ends and its state is saved.

    More of them change nothing for GRACE seconds; after that they raise KeyboardInterrupt at once.
    Nothing is deferred outside the main thread, which gets no signals, or if not `enabled`.
    """
    interrupted = threading.Event()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    first = 0.0

    def note(_number: int, _frame: object) -> None:
        nonlocal first
        if interrupted.is_set() and time.monotonic() - first > GRACE:
            raise KeyboardInterrupt
        if not interrupted.is_set():
            first = time.monotonic()
        interrupted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
