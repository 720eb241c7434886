"""Who hears of a run: people at a terminal, people who read a log, a program, or nobody.

teller = teller_of(arguments)
with teller.showing(underway) as arrived:       # while slices stream
    arrived()                                   # each time one is settled

People's lines go to stdout where they are the result, to stderr where they tell of the way there.
A program gets one JSON object a line on stdout, and nothing else there:

    page      url
    line      said: what happens to the line
    begin     case, mode, port, model {name, sha256}, warnings (of the input), slices
    progress  a report so far, line {baud, up, down, use}, failed, seconds_left; twice a second
    case      how a case ended: case, state (complete, failed, interrupted), error, files, report
    table     cases: what became of each case of a batch
    end       the last: state, error
"""

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from firmware_host import terminal
from firmware_host.underway import Underway
from firmware_host.view.page import say_address
from glioslice import progress
from glioslice.command import one_line
from glioslice.errors import GliosliceError

EVERY = 0.5
"""Seconds between two objects of progress."""

INTERRUPTED = 130

Arrived = Callable[[], None]
Showing = Callable[[Underway], AbstractContextManager[Arrived]]


@dataclass(frozen=True)
class Teller:
    """How to tell.

    People: `said` the result, `told` what happens, `address` of the page. A program: `event`, of a
    kind and with a content. Both: `showing` a run while it goes on.
    """

    said: Callable[..., None]
    told: Callable[[str], None]
    address: Callable[[str], None]
    event: Callable[..., None]
    showing: Showing


def teller_of(arguments: argparse.Namespace) -> Teller:
    """Return who is to hear of a run, by `--json` and `--quiet`, and by what stderr is."""
    if arguments.json:
        return _program()
    if arguments.quiet:
        return Teller(_nothing, _nothing, say_address, _nothing, _unseen)
    showing = terminal.drawn if progress.drawable() else terminal.written
    return Teller(_said, _told, say_address, _nothing, showing)


@contextmanager
def ending(teller: Teller) -> Iterator[None]:
    """Tell a program how the block ended."""
    state, error = "complete", None
    try:
        yield
    except (GliosliceError, OSError) as failure:
        state, error = "failed", one_line(failure)
        raise
    except (KeyboardInterrupt, SystemExit) as end:
        failed = isinstance(end, SystemExit) and end.code != INTERRUPTED
        state = "failed" if failed else "interrupted"
        raise
    finally:
        teller.event("end", state=state, error=error)


def _said(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)


def _told(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _nothing(*_lines: str, **_content: Any) -> None:
    pass


@contextmanager
def _unseen(_underway: Underway) -> Iterator[Arrived]:
    yield _nothing


def _program() -> Teller:
    lock, over = threading.Lock(), False

    def event(kind: str, **content: Any) -> None:
        nonlocal over
        text = json.dumps({"event": kind, **content}, ensure_ascii=False)
        with lock:  # the line's own threads tell too
            if not over:
                print(text, flush=True)
            over = over or kind == "end"

    @contextmanager
    def showing(underway: Underway) -> Iterator[Arrived]:
        slices, before, due = underway.run.slices, 0, time.monotonic() + EVERY
        event("begin", **underway.about(), slices=slices)

        def arrived() -> None:
            nonlocal before, due
            done = underway.settled
            if time.monotonic() >= due or done == slices != before:
                event("progress", **underway.numbers())
                due = time.monotonic() + EVERY
            before = done

        yield arrived

    return Teller(
        said=_nothing,
        told=lambda line: event("line", said=line),
        address=lambda url: event("page", url=url),
        event=event,
        showing=showing,
    )
