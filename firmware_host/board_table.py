"""The table of the boards of a pool: on a terminal, as JSON and after the run."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firmware_host.progress import REDRAWS, Reporter, TextReporter
from glioslice import cli

if TYPE_CHECKING:
    from rich.table import Table

HEADS = ("board", "state", "case", "slices", "slices/s", "link", "temp.", "done", "given back")


@dataclass(frozen=True)
class BoardRow:
    """A board: what it does, and what it has done.

    `done` of `slices` slices of `task` have their mask; `link` is {baud, up, down, use};
    `temperature_c` is the board's last one, if it sends any; `finished` counts its tasks and
    `returned` those that it gave back.
    """

    board: str
    port: str
    state: str
    task: str | None
    done: int | None
    slices: int | None
    slices_per_second: float | None
    link: dict[str, Any] | None
    temperature_c: float | None
    finished: int
    returned: int
    error: str | None

    def cells(self) -> tuple[str, ...]:
        """Return the row's cells under HEADS."""
        slices = "-" if self.slices is None else f"{self.done}/{self.slices}"
        rate = "-" if self.slices_per_second is None else f"{self.slices_per_second:.1f}"
        link = "-"
        if self.link:
            link = f"{(self.link['up'] + self.link['down']) / 1000:.1f} kB/s"
            if self.link["baud"]:
                link = f"{self.link['baud']:,} baud, {self.link['use']:.0%}"
        degrees = "-" if self.temperature_c is None else f"{self.temperature_c:.0f} °C"
        return (
            self.board, self.state, self.task or "-", slices, rate, link, degrees,
            str(self.finished), str(self.returned),
        )  # fmt: skip


def format_boards(rows: Sequence[BoardRow]) -> list[str]:
    """Return the table as lines of text."""
    table = [HEADS, *(row.cells() for row in rows)]
    widths = [max(len(line[place]) for line in table) for place in range(len(HEADS))]
    lines = ("  ".join(f"{c:{w}}" for c, w in zip(line, widths, strict=True)) for line in table)
    return [line.rstrip() for line in lines]


@contextmanager
def show_boards(rows: Callable[[], list[BoardRow]], reporter: Reporter) -> Iterator[None]:
    """Draw the table on a terminal while the block lasts; elsewhere results are lines."""
    if not (isinstance(reporter, TextReporter) and cli.drawable()):
        yield
        return
    from rich.console import Console
    from rich.live import Live

    with Live(
        get_renderable=lambda: _render(rows()),
        console=Console(stderr=True),
        refresh_per_second=REDRAWS,
        redirect_stdout=False,  # it may be a file
    ):
        yield


def _render(rows: list[BoardRow]) -> "Table":
    from rich.table import Table

    table = Table(*HEADS, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row.cells())
    return table
