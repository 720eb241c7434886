"""A run that is under way, and its numbers of the moment: what a page and a terminal show."""

import threading
from typing import Any

from firmware_host.arrived import Run
from firmware_host.inputs import Source
from firmware_host.outputs import report_of
from firmware_host.tally import Tally
from firmware_host.view.line import LineUse, baud_of
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
