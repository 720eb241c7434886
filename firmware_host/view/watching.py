"""What a run tells its page, where there is one.

with watching(arguments.view) as watcher:       # None: no page, only `tell` acts
    watcher.begin(run, source, hello, line, arguments)
    watcher.arrived(run, index)                 # each time a slice is settled
    watcher.settled(report)                     # the numbers that stay
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from firmware_host.arrived import Run
from firmware_host.inputs import Source
from firmware_host.outputs import report_of
from firmware_host.tally import Tally
from firmware_host.view.line import LineUse, baud_of
from firmware_host.view.page import Page, opened
from firmware_host.view.scene import Scene
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello


class Watcher:
    """Passes on to `page` what happens to a run; one without a page prints what is told."""

    def __init__(self, page: Page | None) -> None:
        self._page = page
        self._begin: Callable[[], None] = lambda: None
        self._extra: Callable[[], dict[str, Any]] = dict
        self._masks = 0

    def tell(self, line: str) -> None:
        """Say what happens to the line, where progress is told."""
        print(line, file=sys.stderr, flush=True)
        if self._page:
            self._page.tell(line)

    def begin(
        self,
        run: Run,
        source: Source,
        hello: BoardHello,
        line: Connection,
        arguments: argparse.Namespace,
    ) -> None:
        """Show what the run is about, and its numbers from now on."""
        page = self._page
        if page is None:
            return
        tally, use = Tally(), LineUse(lambda: line.counts)

        def extra() -> dict[str, Any]:
            baud = baud_of(arguments.port, arguments.baud, line.rate)
            return {"line": use.look(baud), "failed": sorted(run.failed)}

        def numbers() -> Mapping[str, Any]:
            return report_of(run, source, hello, line.counts, tally) | extra()

        case = {
            "name": source.name,
            "mode": run.mode.name.lower(),
            "port": arguments.port,
            "model": {"name": hello.model, "sha256": hello.sha256},
        }
        scene = Scene(run.crop, source.images)
        self._extra = extra
        self._begin = lambda: page.begin(scene, case, numbers)
        self._begin()

    def arrived(self, run: Run, index: int) -> None:
        """Show a slice that has its mask; a board that plays from the beginning clears the page."""
        if self._page is None or index not in run.times:
            return
        if len(run.times) <= self._masks:
            self._begin()
        self._masks = len(run.times)
        self._page.add(index, run.times[index], run.mask(index))

    def settled(self, report: Mapping[str, Any]) -> None:
        """Leave the report's numbers standing."""
        if self._page:
            extra = self._extra
            self._page.settle(lambda: {**report, **extra()})


@contextmanager
def watching(port: int | None) -> Iterator[Watcher]:
    """Yield a watcher with a page at `port` (0: any), or without one."""
    with opened(port) as page:
        yield Watcher(page)
