"""A run as people at the command see it: drawn on a terminal, written as lines elsewhere.

Drawn, a thread of rich asks for the numbers four times a second: a slice that arrives costs
nothing, and nothing flickers.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from firmware_host.underway import Underway
from glioslice import progress
from glioslice.labels import REGIONS
from glioslice.montage import COLOURS

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
        if progress.due(before, done, slices):
            numbers = underway.numbers()
            volumes = ", ".join(f"{r} {numbers['volumes_ml'][r]:.1f} mL" for r in REGIONS)
            rate = f"{numbers['slices_per_second']:.1f} slices/s"
            text = f"{underway.what}: {done} of {slices}, {rate}, {left(numbers)}, {volumes}"
            print(text, file=sys.stderr, flush=True)
        before = done

    yield arrived
