"""A run that is under way, and its numbers of the moment: what a page and a terminal show.

A run as people at the command see it: drawn on a terminal, written as lines elsewhere.

Drawn, a thread of rich asks for the numbers four times a second: a slice that arrives costs
nothing, and nothing flickers.

Who hears of a run: people at a terminal, people who read a log, a program, or nobody.

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
from typing import TYPE_CHECKING, Any

from firmware_host.inputs import Source
from firmware_host.mask_volume import Run
from firmware_host.outputs import report_of
from firmware_host.viewer.link_utilisation import LineUse, baud_of
from firmware_host.viewer.page import say_address
from firmware_host.volumetry import Tally
from glioslice import cli
from glioslice.cli import one_line
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.montage import COLOURS
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello


class Underway:
    """A run, what it is about, and its line; `baud` is the rate that was fixed, if one was.

    Any thread may call its methods.
    """

    def __init__(
        self, run: Run, source: Source, hello: BoardHello, line: Connection, baud: int | None
    ) -> None:
        self.run, self.source, self.hello, self.line = run, source, hello, line
        self._baud, self._tally = baud, Tally()
        self._use = LineUse(lambda: line.counts)
        self._lock = threading.Lock()

    @property
    def what(self) -> str:
        """What is being done, for people."""
        return f"segmenting {self.source.name or 'what the board plays'}"

    def about(self) -> dict[str, Any]:
        """Return what stays the same while it runs."""
        return {
            "case": self.source.name,
            "mode": self.run.mode.name.lower(),
            "port": self.line.name,
            "model": {"name": self.hello.model, "sha256": self.hello.sha256},
            "warnings": self.source.oddities,
        }

    @property
    def settled(self) -> int:
        """How many slices have their mask, or failed."""
        return self.run.masks + len(self.run.failed)

    def numbers(self) -> dict[str, Any]:
        """Return the report as it would be now, `extra`, and seconds_left: None without a mask."""
        with self._lock:
            report = report_of(self.run, self.source, self.hello, self.line.counts, self._tally)
        rate, left = report["slices_per_second"], self.run.slices - self.settled
        return {
            **report,
            **self.extra(),
            "seconds_left": round(left / rate, 1) if rate else None,
        }

    def extra(self) -> dict[str, Any]:
        """Return line {baud, up, down, use} and failed, the slices without a mask."""
        with self._lock:
            use = self._use.look(baud_of(self.line.name, self._baud, self.line.rate))
        return {"line": use, "failed": sorted(self.run.failed)}


if TYPE_CHECKING:
    from rich.console import Group

A_SECOND = 4
"""How often the numbers are drawn."""


@contextmanager
def drawn(underway: Underway) -> Iterator[Callable[[], None]]:
    """Draw the run on the terminal of stderr with rich; what is yielded need not be called."""
    from rich.console import Console
    from rich.live import Live

    with Live(
        get_renderable=lambda: picture(underway.what, underway.settled, underway.numbers()),
        console=Console(stderr=True),
        refresh_per_second=A_SECOND,
        redirect_stdout=False,  # it may be a file
    ):
        yield lambda: None


def picture(what: str, settled: int, numbers: dict[str, Any]) -> "Group":
    """Return three lines for rich: how far it is; device and line; volumes."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    slices = numbers["slices"]
    first = Table.grid(padding=(0, 2), expand=True)
    for ratio in (None, 1, None):
        first.add_column(ratio=ratio, no_wrap=True)
    rate = f"{settled}/{slices}  {numbers['slices_per_second']:.1f} slices/s  {left(numbers)}"
    first.add_row(Text(what), ProgressBar(slices, settled), rate)
    volumes = Text("volumes  ")
    for region, ml in numbers["volumes_ml"].items():
        volumes.append("\N{BLACK SQUARE} ", style="rgb({},{},{})".format(*COLOURS[region]))
        volumes.append(f"{region} {ml:.1f} mL   ")
    return Group(first, Text("   ".join((device(numbers), *line(numbers)))), volumes)


def left(numbers: dict[str, Any]) -> str:
    """Return how long the run still takes."""
    seconds = numbers["seconds_left"]
    return "-:-- left" if seconds is None else f"{seconds // 60:.0f}:{seconds % 60:02.0f} left"


def device(numbers: dict[str, Any]) -> str:
    """Return how long the device takes for a slice."""
    p50, p90 = numbers["device_ms"]["p50"], numbers["device_ms"]["p90"]
    return "device -" if p50 is None else f"device {p50:.1f} ms a slice, 90 % under {p90:.1f}"


def line(numbers: dict[str, Any]) -> list[str]:
    """Return how full the line is, how often something was sent again, and what failed."""
    use, again, failed = numbers["line"], numbers["retransmits"], len(numbers["failed"])
    words = f"line {(use['up'] + use['down']) / 1000:.1f} kB/s"
    if use["baud"]:
        words = f"line {use['baud']:,} baud, {use['use']:.0%} in use"
    return [words, f"sent again {again}", *([f"failed {failed}"] if failed else [])]


@contextmanager
def written(underway: Underway) -> Iterator[Callable[[], None]]:
    """Yield what to call for each slice: it prints a few lines over the whole run."""
    slices, before = underway.run.slices, 0

    def arrived() -> None:
        nonlocal before
        done = underway.settled  # one message may bring several slices
        if cli.is_due(before, done, slices):
            numbers = underway.numbers()
            volumes = ", ".join(f"{r} {numbers['volumes_ml'][r]:.1f} mL" for r in REGIONS)
            rate = f"{numbers['slices_per_second']:.1f} slices/s"
            text = f"{underway.what}: {done} of {slices}, {rate}, {left(numbers)}, {volumes}"
            print(text, file=sys.stderr, flush=True)
        before = done

    yield arrived


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
    showing = drawn if cli.drawable() else written
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
