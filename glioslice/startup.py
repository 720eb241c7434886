"""Ctrl-C while a program imports its modules: one line and exit code 130, no traceback.

    if __name__ == "__main__":  # before the imports, which take long
        from glioslice import startup

        startup.exit_on_interrupt()

A KeyboardInterrupt is no way out there: it would show the imports as a traceback, and extension
modules turn it into an ImportError. Nothing has begun yet, so the handler ends the process at once.
Before the first line of ours runs, within milliseconds, Python prints a traceback of its own start.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C."""

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What `kill` and a closed terminal send; Windows has no SIGHUP."""


def main() -> None:
    """Run the `glioslice` command; its own imports are among those that Ctrl-C ends."""
    exit_on_interrupt()
    from glioslice import cli

    cli.main()


def exit_on_interrupt() -> None:
    """Let Ctrl-C end the process at once, until `end_startup`; where it is ignored, it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end_startup() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, after `exit_on_interrupt`."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def importing() -> Iterator[None]:
    """Let Ctrl-C, and other signals that have a handler, end the process at once in this block.

    For the imports of a command that reads its options first.
    """
    numbers = (signal.SIGINT, *ENDING)
    before = {n: signal.signal(n, _leave) for n in numbers if callable(signal.getsignal(n))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(_number: int, _frame: FrameType | None) -> None:
    try:
        os.write(2, b"interrupted\n")
    finally:  # stderr may be closed
        os._exit(INTERRUPTED)
