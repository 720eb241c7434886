"""The page of one command: it opens before the board answers and stays until Ctrl-C.

with opened(arguments.view) as page:        # None without --view
    page.begin(scene, case, numbers)        # once the run is known
    page.add(index, milliseconds, labels)   # each time a mask arrives
    page.tell("the line is silent")         # what happens to the line
"""

import os
import queue
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_host.viewer.feed import Feed
from firmware_host.viewer.scene import Scene, turned
from firmware_host.viewer.server import Server
from glioslice.cli import one_line
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.montage import COLOURS, TITLES

TICK = 0.5
"""Seconds between two looks at the numbers."""

FAREWELL = 6.0
"""Seconds that closing may take."""

Numbers = Callable[[], Mapping[str, Any]]


class Page:
    """What a command tells its page. Nothing here can hold or fail a run.

    A thread of its own does the work: Ctrl-C, which may strike the caller between any two steps,
    must not find it with a lock in its hands.
    """

    def __init__(self, port: int = 0) -> None:
        self._feed = Feed()
        self._scene: Scene | None = None
        self._numbers: Numbers = dict
        self._state: dict[str, Any] = {"state": "waiting", "told": ""}
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._server = Server(self._feed, lambda: self._scene, port)
        self.url = self._server.url
        self._thread = threading.Thread(target=self._work, name="page-news", daemon=True)
        self._thread.start()

    def begin(self, scene: Scene, case: Mapping[str, Any], numbers: Numbers) -> None:
        """Say what is shown: `case` holds name, model, mode; `numbers` is asked twice a second.

        Once more, if a board plays from the beginning: what was shown is then forgotten.
        """
        self._inbox.put(partial(self._begin, scene, case, numbers))

    def add(self, index: int, milliseconds: float | None, labels: NDArray[np.uint8]) -> None:
        """Show the labels (window X, window Y) of slice `index`, and how long the device took."""
        self._inbox.put(partial(self._add, index, milliseconds, labels))

    def tell(self, line: str) -> None:
        """Show what happens to the line."""
        self._inbox.put(partial(self._state.update, told=line))

    def settle(self, numbers: Numbers) -> None:
        """Ask for these numbers from now on."""
        self._inbox.put(partial(setattr, self, "_numbers", numbers))

    def forget(self) -> None:
        """Let go of the images, within a second; what the tabs have stays."""
        gone = threading.Event()
        self._inbox.put(partial(setattr, self, "_scene", None))
        self._inbox.put(gone.set)
        gone.wait(1.0)

    def end(self, state: str, reason: str = "") -> None:
        """Say how it ended: `complete`, or `ended` with the reason; the numbers stay."""
        self._inbox.put(partial(self._state.update, state=state, told=reason))
        self._inbox.put(self._say)

    def close(self) -> None:
        """End the page, once every tab has all or a few seconds have passed."""
        self._inbox.put(None)
        self._thread.join(FAREWELL)

    def _work(self) -> None:
        said = time.monotonic()
        while True:
            try:
                task = self._inbox.get(timeout=TICK)
                if task is None:
                    self._server.close()
                    return
                task()
            except queue.Empty:
                pass
            if time.monotonic() - said >= TICK:
                self._say()
                said = time.monotonic()

    def _begin(self, scene: Scene, case: Mapping[str, Any], numbers: Numbers) -> None:
        self._scene, self._numbers = scene, numbers
        self._state["state"] = "running"
        regions = [{"name": r, "title": TITLES[r], "colour": COLOURS[r]} for r in REGIONS]
        place = {
            "grid": scene.grid,
            "first": scene.crop.z[0],
            "deep": scene.crop.shape[2],
            "modalities": scene.modalities,
        }
        self._feed.begin({**case, **place, "regions": regions})
        self._say()

    def _add(self, index: int, milliseconds: float | None, labels: NDArray[np.uint8]) -> None:
        self._state["told"] = ""  # whatever was said of the line, it works again
        self._feed.add(index, milliseconds, turned(labels))

    def _say(self) -> None:
        self._feed.say({**self._numbers(), **self._state})


def say_address(url: str) -> None:
    """Say where the page is."""
    print(f"page: {url} (keep this address to yourself)", flush=True)


@contextmanager
def opened(
    port: int | None, state: str = "complete", address: Callable[[str], None] = say_address
) -> Iterator[Page | None]:
    """Yield a page at `port` (0: any), None without one; say `state`, and wait for Ctrl-C.

    A run that fails says so on the page, and its error is raised once the page is closed.
    """
    if port is None:
        yield None
        return
    page = Page(port)
    try:
        with _browser(page.url):
            address(page.url)
            try:
                yield page
            except GliosliceError as error:
                reason = one_line(error)
                _stay(
                    page, "ended", reason, f"it ended early: {reason}; the page stays until Ctrl-C"
                )
                raise
            _stay(page, state, "", "the page stays until Ctrl-C")
    finally:
        page.close()


def _stay(page: Page, state: str, reason: str, line: str) -> None:
    with suppress(KeyboardInterrupt):
        page.end(state, reason)
        print(line, file=sys.stderr, flush=True)
        threading.Event().wait()


@contextmanager
def _browser(url: str) -> Iterator[None]:
    """Open the page in a browser where there is a screen.

    The browser is given a file that only its user can read: the words of a command line, and the
    token with them, can be read by every user of the machine.
    """
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in screens):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:  # rights 0700
        door = Path(folder) / "page.html"
        door.write_text(f'<meta http-equiv="refresh" content="0; url={escape(url)}">')
        webbrowser.open(door.as_uri())
        yield
