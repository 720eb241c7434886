"""A browser, and the command with a scripted board and a page."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.firmware_host.commands import STREAM_TO_SCRIPTED_BOARD, restore_signals
from tests.firmware_host.scripted import SHA256

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
FLAGS += ["--ignore-gpu-blocklist"]
PYTHON = [sys.executable, "-X", "faulthandler", "-c"]
SCREENS = ("DISPLAY", "WAYLAND_DISPLAY")
TIMEOUT = 90.0
"""Seconds: software WebGL on a busy machine is slow."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's Chromium, drawing with software WebGL."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: apt-get install chromium")
        pytest.skip("no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass(frozen=True)
class Tab:
    """A tab; `errors` are the errors that its console has shown."""

    page: Any
    errors: list[str]

    def ask(self, expression: str) -> Any:
        """Return what an expression is in the page."""
        return self.page.evaluate(expression)

    def until(self, expression: str) -> None:
        """Wait until an expression is true; the page's policy lets no string be evaluated in it."""
        deadline = time.monotonic() + TIMEOUT
        while not self.ask(expression):
            assert time.monotonic() < deadline, f"not in time: {expression}; {self.errors}"
            time.sleep(0.1)

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(self.page.locator(selector).inner_text())

    @property
    def voxels(self) -> bytes:
        """The overlay's voxels, as NiiVue holds them."""
        return bytes(self.ask("Array.from(glioslice.viewer.nv.volumes[1].img)"))


Open = Callable[[str], Tab]


@pytest.fixture
def tab(browser: Any) -> Iterator[Open]:
    """Return a function that opens an address in a new tab of a new window."""
    windows = []

    def visit(url: str, width: int = 1280, height: int = 800) -> Tab:
        window = browser.new_context(viewport={"width": width, "height": height})
        windows.append(window)
        page, errors = window.new_page(), []
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        made = Tab(page, errors)
        made.until("'glioslice' in window")
        return made

    yield visit
    for window in windows:
        window.close()


@dataclass(frozen=True)
class Command:
    """A command that serves a page at `url`."""

    process: subprocess.Popen[str]
    url: str
    out: Path

    def resume(self) -> None:
        """Let the board, which waits after four masks, go on."""
        (self.out / "go").touch()

    def wait_until_over(self) -> None:
        """Wait until the run is over and only the page remains."""
        deadline = time.monotonic() + TIMEOUT
        while "stays open until Ctrl-C" not in (log := (self.out / "log").read_text()):
            assert time.monotonic() < deadline and self.process.poll() is None, log
            time.sleep(0.05)

    def stop(self) -> int:
        """Send Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # faulthandler shows where it hangs
            self.process.wait()
            raise AssertionError((self.out / "log").read_text()) from None


Start = Callable[..., Command]


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Start]:
    """Return a function that runs `stream.py` with a page, by default with a scripted board."""
    started: list[subprocess.Popen[str]] = []

    def run(behaviour: str | None, *options: object) -> Command:
        out = tmp_path / "out"
        given = [str(option) for option in options]
        behaviour = f"gate:{out / 'go'}" if behaviour == "gate" else behaviour
        if behaviour:
            given += ["--port", "sim://?baud=4000000", "--allow-model", SHA256, "--view"]
            given += ["--output", str(out / "m.nii.gz"), "--report", str(out / "r.json")]
        out.mkdir(exist_ok=True)
        with (out / "log").open("w") as log:
            process = subprocess.Popen(
                [*PYTHON, STREAM_TO_SCRIPTED_BOARD, behaviour or "none", str(out), *given],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True,
                preexec_fn=restore_signals,
                env={k: v for k, v in os.environ.items() if k not in SCREENS},
            )  # fmt: skip
        started.append(process)
        assert process.stdout
        for line in process.stdout:
            if match := re.match(r"page: (\S+) ", line):
                return Command(process, match[1], out)
        raise AssertionError((out / "log").read_text())

    yield run
    for process in started:
        process.kill()
        process.communicate()
