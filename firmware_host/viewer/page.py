"""The live page of a command: it opens before the board replies and stays open until Ctrl-C.

    with open_page(port) as page:               # None: no page, all calls do nothing
        observer = PageObserver(page)
        observer.start_run(status)              # once the run is known
        observer.add_slice(masks, index)        # after each slice
        observer.set_report(report)             # the final numbers

Warnings about the link, which are logged, are shown as the page's status text.
"""

import logging
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

from firmware_host import interrupts
from firmware_host.mask_volume import MaskVolume
from firmware_host.progress import CallbackHandler, Reporter, RunStatus, logging_to
from firmware_host.viewer.server import Feed, Scene, Server, to_page_voxels
from glioslice import __version__
from glioslice.cli import one_line
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.montage import COLOURS, REGION_TITLES

TICK = 0.5
"""Seconds between two updates of the numbers."""

CLOSE_TIMEOUT = 6.0
"""Seconds that closing may take."""

STATUS_LOGGERS = ("glioslice.wire", "firmware_host.session")
"""Their warnings become the page's status text."""

Numbers = Callable[[], Mapping[str, Any]]


class Page:
    """Publishes a run to the page. Nothing here can block or fail the run.

    A thread of its own does the work: Ctrl-C may interrupt the caller between any two steps, and
    must not find it holding a lock.
    """

    def __init__(self, port: int = 0) -> None:
        self._feed = Feed()
        self._scene: Scene | None = None
        self._numbers: Numbers = dict
        self._boards: Numbers = dict
        self._state: dict[str, Any] = {"state": "waiting", "message": ""}
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._server = Server(self._feed, lambda: self._scene, port)
        self.url = self._server.url
        self._thread = threading.Thread(target=self._run_tasks, name="page-updates", daemon=True)
        self._thread.start()

    def start_case(self, scene: Scene, case: Mapping[str, Any], numbers: Numbers) -> None:
        """Show a case: `case` holds name, model, mode; `numbers` is called twice a second.

        Slices shown so far are discarded, also if a board plays the same case again.
        """
        self._tasks.put(partial(self._start_case, scene, case, numbers))

    def add(self, index: int, milliseconds: float | None, labels: NDArray[np.uint8]) -> None:
        """Show the labels (window X, window Y) of slice `index`, and its time on the device."""
        self._tasks.put(partial(self._add, index, milliseconds, labels))

    def show_message(self, text: str) -> None:
        """Show a status text until the next slice arrives."""
        self._tasks.put(partial(self._state.update, message=text))

    def set_numbers(self, numbers: Numbers) -> None:
        """Replace the function that returns the numbers."""
        self._tasks.put(partial(setattr, self, "_numbers", numbers))

    def set_boards(self, boards: Numbers) -> None:
        """Show the table of boards that `boards` returns as {"boards": [...]}."""
        self._tasks.put(partial(setattr, self, "_boards", boards))

    def drop_images(self) -> None:
        """Free the images, within a second; open tabs keep what they have."""
        done = threading.Event()
        self._tasks.put(partial(setattr, self, "_scene", None))
        self._tasks.put(done.set)
        done.wait(1.0)

    def finish(self, state: str, reason: str = "") -> None:
        """Show how the run ended: `complete`, or `ended` with the reason."""
        self._tasks.put(partial(self._state.update, state=state, message=reason))
        self._tasks.put(self._publish)

    def close(self) -> None:
        """Close the page once every tab has all messages or a few seconds have passed."""
        self._tasks.put(None)
        self._thread.join(CLOSE_TIMEOUT)

    def _run_tasks(self) -> None:
        published = time.monotonic()
        while True:
            try:
                task = self._tasks.get(timeout=TICK)
                if task is None:
                    self._server.close()
                    return
                task()
            except queue.Empty:
                pass
            if time.monotonic() - published >= TICK:
                self._publish()
                published = time.monotonic()

    def _start_case(self, scene: Scene, case: Mapping[str, Any], numbers: Numbers) -> None:
        self._scene, self._numbers = scene, numbers
        self._state["state"] = "running"
        regions = [{"name": r, "title": REGION_TITLES[r], "colour": COLOURS[r]} for r in REGIONS]
        geometry = {
            "grid": scene.grid,
            "first": scene.crop.z[0],
            "deep": scene.crop.shape[2],
            "modalities": scene.modalities,
            "truth": scene.truth is not None,
            "version": __version__,
        }
        self._feed.start_case({**case, **geometry, "regions": regions})
        self._publish()

    def _add(self, index: int, milliseconds: float | None, labels: NDArray[np.uint8]) -> None:
        self._state["message"] = ""  # whatever was wrong with the link, it works again
        self._feed.add(index, milliseconds, to_page_voxels(labels))

    def _publish(self) -> None:
        self._feed.publish_numbers({**self._numbers(), **self._boards(), **self._state})


class PageObserver:
    """Follows runs on `page`; without a page its methods do nothing."""

    def __init__(self, page: Page | None) -> None:
        self._page = page
        self._start: Callable[[], None] = lambda: None
        self._link_numbers: Callable[[], dict[str, Any]] = dict
        self._report: Mapping[str, Any] = {}
        self._shown = 0

    def start_run(self, status: RunStatus) -> None:
        """Show the case of a run, and its numbers from now on."""
        page = self._page
        if page is None:
            return
        case = {"name": status.case.name, **status.details()}
        known = status.case
        scene = Scene(status.masks.crop, known.images, known.missing, known.truth)
        self._link_numbers, self._shown = status.link_numbers, 0
        self._start = lambda: page.start_case(scene, case, status.numbers)
        self._start()

    def add_slice(self, masks: MaskVolume, index: int) -> None:
        """Show a slice that has its mask; if the board started again, clear the page first."""
        if self._page is None or index not in masks.milliseconds:
            return
        if len(masks.milliseconds) < self._shown:  # equal: one message brought several slices
            self._start()
        self._shown = len(masks.milliseconds)
        self._page.add(index, masks.milliseconds[index], masks.mask(index))

    def set_report(self, report: Mapping[str, Any]) -> None:
        """Show the numbers of the report from now on."""
        self._report = report
        if self._page:
            link_numbers = self._link_numbers
            self._page.set_numbers(lambda: {**report, **link_numbers()})

    def release_run(self) -> None:
        """Free the images of a finished run, because the next case needs the memory.

        The page keeps its masks; a tab that is opened now shows no images.
        """
        self._start, self._link_numbers = lambda: None, dict
        if self._page:
            report = self._report
            self._page.set_numbers(lambda: report)
            self._page.drop_images()


@contextmanager
def open_page(
    port: int | None, reporter: Reporter, end_state: str = "complete"
) -> Iterator[Page | None]:
    """Yield a page at `port` (0: any), None without one; afterwards keep it open until Ctrl-C.

    A run that fails is shown on the page; its error is raised once the page is closed.
    """
    if port is None:
        yield None
        return
    page = Page(port)
    status_text = CallbackHandler(page.show_message, logging.WARNING)
    try:
        with _open_browser(page.url), logging_to(status_text, STATUS_LOGGERS):
            reporter.page_opened(page.url)
            try:
                yield page
            except GliosliceError as error:
                reason = one_line(error)
                line = f"ended early: {reason}; the page stays open until Ctrl-C"
                _wait_for_ctrl_c(page, "ended", reason, line)
                raise
            _wait_for_ctrl_c(page, end_state, "", "the page stays open until Ctrl-C")
    finally:
        page.close()


def _wait_for_ctrl_c(page: Page, state: str, reason: str, line: str) -> None:
    with suppress(KeyboardInterrupt):
        page.finish(state, reason)
        print(line, file=sys.stderr, flush=True)
        with interrupts.allowed():  # one may have come while files were written
            threading.Event().wait()


@contextmanager
def _open_browser(url: str) -> Iterator[None]:
    """Open the page in a browser if there is a screen.

    The browser is given a file that only its user can read, because every user of the machine can
    read the arguments of a command, and with them the token.
    """
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform == "linux" and not any(os.environ.get(name) for name in screens):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:  # mode 0700
        redirect = Path(folder) / "page.html"
        redirect.write_text(f'<meta http-equiv="refresh" content="0; url={escape(url)}">')
        webbrowser.open(redirect.as_uri())
        yield
