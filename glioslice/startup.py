"""What ends a program while it imports its modules is one line: Ctrl-C, and a missing package.

    if __name__ == "__main__":  # before the imports, which take long
        from glioslice import startup

        startup.begin()

A KeyboardInterrupt would show the imports as a traceback, and extension modules turn it into an
ImportError. No work has begun yet, so Ctrl-C ends the process at once, with exit code 130. Before
the first line of ours runs, within milliseconds, Python prints a traceback of its own start.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

FAILED, INTERRUPTED = 2, 130
"""Exit codes after an error and after Ctrl-C."""

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What `kill` and a closed terminal send; Windows has no SIGHUP."""

EXTRAS = {
    "convert": "convert", "device": "device", "firmware_host": "host", "scanner": "scanner",
    "training": "train",
}  # fmt: skip
"""The extra of pyproject.toml that a package of ours needs."""

_programs: list[int] = []
"""The process that called `begin`: not one that imports us, and not its children."""


def main() -> None:
    """Run the `glioslice` command, whose own imports take a while."""
    begin()
    from glioslice import cli

    cli.main()


def begin() -> None:
    """Let Ctrl-C, unless it is ignored, and a missing package end the process until `end`."""
    sys.excepthook = _report_missing
    _programs.append(os.getpid())
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def end() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, and errors be handled by the command."""
    sys.excepthook = sys.__excepthook__
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore_interrupts() -> None:
    """Let Ctrl-C change nothing while a program that called `begin` ends.

    A command's own handler stays.
    """
    if os.getpid() in _programs and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with suppress(ValueError):  # not the main thread, which alone gets signals
            signal.signal(signal.SIGINT, signal.SIG_IGN)


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


@contextmanager
def delayed_interrupt() -> Iterator[None]:
    """Let Ctrl-C that would raise KeyboardInterrupt in this block raise it at its end.

    C code that imports modules makes other errors of it.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if came:
            raise KeyboardInterrupt


def missing_package(error: BaseException) -> str | None:
    """Return what to install if `error` is that a package of others is not there, else None."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    root, extra, trace = os.path.dirname(os.path.dirname(__file__)), "", error.__traceback__
    while trace:  # the last of our files is the one that imports it
        file = os.path.relpath(trace.tb_frame.f_code.co_filename, root)
        extra = EXTRAS.get(file.split(os.sep)[0], extra)
        trace = trace.tb_next
    if not name or os.path.exists(os.path.join(root, name)):
        return None
    package = f"glioslice[{extra}]" if extra else "glioslice"
    return f"{name} is not installed; run: pip install '{package}'"


def _report_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    message = missing_package(error)
    if message is None:
        sys.__excepthook__(kind, error, trace)
        return
    print(f"error: {message}", file=sys.stderr, flush=True)
    os._exit(FAILED)  # the hook cannot choose the exit code; no work has begun


def _leave(_number: int, _frame: FrameType | None) -> None:
    try:
        os.write(2, b"interrupted\n")
    finally:  # stderr may be closed
        os._exit(INTERRUPTED)
