"""Progress of a run: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from glioslice.progress import PLAIN_LINES


@contextmanager
def bar(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Yield what to call each time one of `total` slices is done; tells it on stderr."""
    if sys.stderr.isatty():
        try:
            import rich  # noqa: F401
        except ImportError:
            pass
        else:
            with drawn(total, what) as advance:
                yield advance
            return
    yield plain(total, what)


@contextmanager
def drawn(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Draw a bar with rich."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    rate = TextColumn("{task.fields[rate]} slices/s")
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), rate, TimeLeft())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total, rate="-")
        began = time.monotonic()
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            seconds = time.monotonic() - began
            progress.update(task, advance=1, rate=f"{done / seconds:.1f}" if seconds else "-")

        yield advance


def plain(total: int, what: str) -> Callable[[], None]:
    """Return what prints a few lines over the whole run."""
    every = max(1, total // PLAIN_LINES)
    began = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done % every and done != total:
            return
        rate = done / max(time.monotonic() - began, 1e-6)
        left = (total - done) / rate
        line = f"{what}: {done} of {total}, {rate:.1f} slices/s, {left:.0f} s left"
        print(line, file=sys.stderr, flush=True)

    return advance
