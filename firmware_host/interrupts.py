"""Ctrl-C, `kill` and a closed terminal: the first one ends a run, later ones change nothing.

    with handled():               # the whole command: the first signal raises KeyboardInterrupt
        with deferred():          # here it only makes a note, so that no mask is lost half way
            raise_requested()     # raises KeyboardInterrupt if a signal has come
            with allowed():       # here, where the program waits for long, it raises at once
                ...

A second Ctrl-C within milliseconds is usual: a key that is held down, and `timeout -s INT`, which
signals a process and its group. Signals concern the whole process, so this module keeps one state.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType

from glioslice import startup

PATIENCE = b"already interrupted: what has arrived is being saved\n"


@dataclass
class _State:
    """Whether a signal has come, and whether the first one raises KeyboardInterrupt at once."""

    requested: bool = False
    at: float = math.inf
    raising: bool = True


_state = _State()


@contextmanager
def handled() -> Iterator[None]:
    """Handle the signals in this block; one that is ignored, as under nohup, stays ignored.

    After an interrupt they stay without effect, because the program is ending.
    """
    _state.requested, _state.at, _state.raising = False, math.inf, True
    startup.end()
    defaults = {signal.SIGINT: signal.default_int_handler}
    defaults |= dict.fromkeys(startup.ENDING, signal.SIG_DFL)
    ours = [n for n, default in defaults.items() if signal.getsignal(n) in (default, _handle)]
    for number in ours:
        signal.signal(number, _handle)
    try:
        yield
    finally:
        if not _state.requested:
            for number in ours:
                signal.signal(number, defaults[number])


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal in this block only be noted; see `check`.

    Only the main thread gets signals: in other threads this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _state.raising = _state.raising, False
    try:
        yield
    finally:
        _state.raising = before


@contextmanager
def allowed() -> Iterator[None]:
    """Let a signal, or one that was noted before, raise KeyboardInterrupt in this block."""
    if threading.current_thread() is not threading.main_thread():
        raise_requested()
        yield
        return
    before = _state.raising
    try:
        _state.raising = True
        raise_requested()
        yield
    finally:
        _state.raising = before


def requested() -> bool:
    """Return whether a signal has come."""
    return _state.requested


def requested_at() -> float:
    """Return the time.monotonic() of the signal, infinity if none has come."""
    return _state.at


def raise_requested() -> None:
    """Raise KeyboardInterrupt if a signal has come."""
    if _state.requested:
        raise KeyboardInterrupt


def _handle(_number: int, _frame: FrameType | None) -> None:
    if _state.requested:
        with suppress(OSError):  # the terminal may be gone
            os.write(2, PATIENCE)
        return
    _state.requested, _state.at = True, time.monotonic()
    if _state.raising:
        raise KeyboardInterrupt
