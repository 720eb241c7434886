"""What a run tells its page, where there is one.

with watching(arguments.view, teller) as watcher:   # None: no page, only `tell` acts
    watcher.begin(underway)
    watcher.arrived(run, index)                     # each time a slice is settled
    watcher.settled(report)                         # the numbers that stay
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from firmware_host.mask_volume import Run
from firmware_host.progress import Teller, Underway
from firmware_host.viewer.page import Page, opened
from firmware_host.viewer.scene import Scene


class Watcher:
    """Passes on to `page` what happens to a run; one without a page tells the teller alone."""

    def __init__(self, page: Page | None, teller: Teller) -> None:
        self._page, self._told = page, teller.told
        self._begin: Callable[[], None] = lambda: None
        self._extra: Callable[[], dict[str, Any]] = dict
        self._report: Mapping[str, Any] = {}
        self._masks = 0

    def tell(self, line: str) -> None:
        """Say what happens to the line, where progress is told."""
        self._told(line)
        if self._page:
            self._page.tell(line)

    def begin(self, underway: Underway) -> None:
        """Show what the run is about, and its numbers from now on."""
        page = self._page
        if page is None:
            return
        case = {"name": underway.source.name, **underway.about()}
        scene = Scene(underway.run.crop, underway.source.images)
        self._extra, self._masks = underway.extra, 0
        self._begin = lambda: page.begin(scene, case, underway.numbers)
        self._begin()

    def forget(self) -> None:
        """Let go of the images of a run that is over: the next case needs the memory.

        The page keeps what it has; a tab that is opened now shows masks alone.
        """
        self._begin, self._extra = lambda: None, dict
        if self._page:
            stays = self._report
            self._page.settle(lambda: stays)
            self._page.forget()

    def arrived(self, run: Run, index: int) -> None:
        """Show a slice that has its mask; a board that plays from the beginning clears the page."""
        if self._page is None or index not in run.times:
            return
        if len(run.times) < self._masks:  # equal: one message brought several slices
            self._begin()
        self._masks = len(run.times)
        self._page.add(index, run.times[index], run.mask(index))

    def settled(self, report: Mapping[str, Any]) -> None:
        """Leave the report's numbers standing."""
        self._report = report
        if self._page:
            extra = self._extra
            self._page.settle(lambda: {**report, **extra()})


@contextmanager
def watching(port: int | None, teller: Teller) -> Iterator[Watcher]:
    """Yield a watcher with a page at `port` (0: any), or without one."""
    with opened(port, address=teller.address) as page:
        yield Watcher(page, teller)
