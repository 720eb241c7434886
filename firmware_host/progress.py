"""How a run is reported: to a terminal, to a log, as JSON events, or not at all.

    with open_reporter(arguments) as reporter:
        with reporter.show_run(status) as update:   # while slices are streamed
            update()                                # after each slice
        reporter.result("mask: m.nii.gz")

Results go to stdout, progress to stderr; what happens on the link is logged. With `--json`, stdout
carries one JSON object per line and nothing else:

    page      url
    log       message: one of the link, or a warning
    begin     case, mode, port, model {name, sha256}, warnings (of the input), slices
    progress  a report so far, link {baud, up, down, use}, failed, seconds_left; twice a second
    case      how a case ended: case, state (complete, failed, interrupted), error, files, report
    table     cases: the state of each case of a folder
    boards    boards: what each of several boards does, twice a second; their other events name
              the `board`, and `returned` is a case that goes to another board
    end       the last event: state, error
"""

import argparse
import json
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, urlsplit

from firmware_host.inputs import StreamedCase
from firmware_host.mask_volume import MaskVolume
from firmware_host.outputs import make_run_report
from firmware_host.volumetry import Volumetry
from glioslice import cli, startup
from glioslice.cli import one_line
from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS
from glioslice.montage import COLOURS
from glioslice.wire.link import Counts
from glioslice.wire.messages import BoardHello

SPAN = 2.0
"""Seconds over which bytes are averaged."""

BITS = 10
"""Bits that a byte takes on a serial line, with its start and stop bit."""


class LinkUtilisation:
    """Averages the bytes that `counts` returns; `clock` is time.monotonic."""

    def __init__(
        self, counts: Callable[[], Counts], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counts, self._clock = counts, clock
        self._samples: deque[tuple[float, int, int]] = deque()

    def measure(self, baud: int | None) -> dict[str, Any]:
        """Return bytes per second each way, and the busier way as a share of `baud` if known."""
        counts, now = self._counts(), self._clock()
        self._samples.append((now, counts.bytes_sent, counts.bytes_received))
        while len(self._samples) > 2 and now - self._samples[1][0] >= SPAN:
            self._samples.popleft()
        since, sent, received = self._samples[0]
        seconds = max(now - since, 1e-3)
        up = (counts.bytes_sent - sent) / seconds
        down = (counts.bytes_received - received) / seconds
        use = min(1.0, max(up, down) * BITS / baud) if baud else None
        return {"baud": baud, "up": round(up), "down": round(down), "use": use}


def link_baud(url: str, fixed: int | None, negotiated: int | None) -> int | None:
    """Return the link's baud rate: negotiated, fixed, or limited by `sim://`; None if unknown."""
    if url.lower().startswith("sim:"):
        named = parse_qs(urlsplit(url).query).get("baud")
        limits = [int(named[0]) if named else None, negotiated or fixed]
        return min((rate for rate in limits if rate), default=None)
    return negotiated or fixed


if TYPE_CHECKING:
    from rich.console import Group

REDRAWS = 4
"""Redraws a second on a terminal."""

EVENT_INTERVAL = 0.5
"""Seconds between two progress events."""

LOGGERS = ("glioslice", "firmware_host")

Update = Callable[[], None]


class LinkNumbers(Protocol):
    """What a report needs of a connection, or of several together."""

    @property
    def name(self) -> str:
        """The port's name, or what stands for several."""

    @property
    def rate(self) -> int | None:
        """The present baud rate; None where it is fixed or there is none."""

    @property
    def counts(self) -> Counts:
        """What has crossed the link."""


class RunStatus:
    """A run that is going on, with its current numbers; `baud` is the rate if it was fixed.

    Any thread may call its methods.
    """

    def __init__(
        self,
        masks: MaskVolume,
        case: StreamedCase,
        hello: BoardHello,
        connection: LinkNumbers,
        baud: int | None,
    ) -> None:
        self.masks, self.case, self.hello, self.connection = masks, case, hello, connection
        self._baud, self._volumetry = baud, Volumetry()
        self._utilisation = LinkUtilisation(lambda: connection.counts)
        self._lock = threading.Lock()

    @property
    def title(self) -> str:
        """What the run does, as a progress bar shows it."""
        return f"segmenting {self.case.name or 'the case on the board'}"

    @property
    def done(self) -> int:
        """How many slices have their mask, or failed."""
        return self.masks.mask_count + len(self.masks.failed)

    def details(self) -> dict[str, Any]:
        """Return what does not change during the run."""
        return {
            "case": self.case.name,
            "mode": self.masks.mode.name.lower(),
            "port": self.connection.name,
            "model": {"name": self.hello.model, "sha256": self.hello.sha256},
            "warnings": self.case.warnings,
        }

    def numbers(self) -> dict[str, Any]:
        """Return the report so far, `link_numbers`, and seconds_left: None if not known yet."""
        with self._lock:
            report = make_run_report(
                self.masks, self.case, self.hello, self.connection.counts, self._volumetry
            )
        rate, left = report["slices_per_second"], self.masks.slice_count - self.done
        seconds_left = round(left / rate, 1) if rate else None
        return {**report, **self.link_numbers(), "seconds_left": seconds_left}

    def link_numbers(self) -> dict[str, Any]:
        """Return link {baud, up, down, use}, and failed: the slices on which the board failed."""
        with self._lock:
            baud = link_baud(self.connection.name, self._baud, self.connection.rate)
            use = self._utilisation.measure(baud)
        return {"link": use, "failed": sorted(self.masks.failed)}


class Reporter:
    """Reports a run. This one is for `--quiet`: it prints the address of the page alone."""

    def result(self, *lines: str) -> None:
        """Report results."""

    def progress(self, line: str) -> None:
        """Report a step of the way."""

    def waiting(self, what: str) -> None:
        """Report to somebody at a terminal what happens before the first slice."""

    def event(self, kind: str, **content: Any) -> None:
        """Report an event to a program."""

    def page_opened(self, url: str) -> None:
        """Report the address of the live page."""
        print(f"page: {url} (keep this address private)", flush=True)

    @contextmanager
    def show_run(self, status: RunStatus) -> Iterator[Update]:
        """Show a run while the block lasts; call what is yielded after each slice."""
        yield lambda: None


class TextReporter(Reporter):
    """Reports to people: drawn on a terminal, and in a few plain lines elsewhere."""

    def result(self, *lines: str) -> None:
        """Print results to stdout."""
        for line in lines:
            print(line, flush=True)

    def progress(self, line: str) -> None:
        """Print a line to stderr."""
        print(line, file=sys.stderr, flush=True)

    def waiting(self, what: str) -> None:
        """Print a line to a terminal."""
        if sys.stderr.isatty():
            self.progress(f"{what} ...")

    @contextmanager
    def show_run(self, status: RunStatus) -> Iterator[Update]:
        """Draw the run on a terminal; elsewhere print four lines over the whole run."""
        if cli.drawable():
            with draw_status(status):
                yield lambda: None
            return
        before = 0

        def update() -> None:
            nonlocal before
            done = status.done  # one message may bring several slices
            if cli.is_due(before, done, status.masks.slice_count):
                self.progress(status_line(status))
            before = done

        yield update


class JsonReporter(Reporter):
    """Reports to a program: one JSON object per line."""

    def __init__(self) -> None:
        self._lock, self._ended = threading.Lock(), False

    def event(self, kind: str, **content: Any) -> None:
        """Print an event; nothing follows `end`."""
        text = json.dumps({"event": kind, **content}, ensure_ascii=False)
        with self._lock:  # the link's threads log too
            if not self._ended:
                print(text, flush=True)
            self._ended = self._ended or kind == "end"

    def page_opened(self, url: str) -> None:
        """Print the address of the page as an event."""
        self.event("page", url=url)

    def progress(self, line: str) -> None:
        """Print a step as an event."""
        self.event("log", message=line)

    @contextmanager
    def show_run(self, status: RunStatus) -> Iterator[Update]:
        """Print `start`, and `progress` twice a second."""
        slices, before, due = status.masks.slice_count, 0, time.monotonic() + EVENT_INTERVAL
        self.event("start", **status.details(), slices=slices)

        def update() -> None:
            nonlocal before, due
            done = status.done
            if time.monotonic() >= due or done == slices != before:
                self.event("progress", **status.numbers())
                due = time.monotonic() + EVENT_INTERVAL
            before = done

        yield update


class CallbackHandler(logging.Handler):
    """Passes the text of each log record from `level` up to a function."""

    def __init__(self, callback: Callable[[str], None], level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._callback = callback

    def emit(self, record: logging.LogRecord) -> None:
        """Call the function with the text of a record."""
        self._callback(record.getMessage())


@contextmanager
def logging_to(handler: logging.Handler, names: Sequence[str] = LOGGERS) -> Iterator[None]:
    """Send warnings of these loggers to `handler` too, even with --quiet; with -v more."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(min(logger.getEffectiveLevel(), logging.WARNING))
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


@contextmanager
def open_reporter(arguments: argparse.Namespace) -> Iterator[Reporter]:
    """Yield the reporter that --json and --quiet select; report how the block ended."""
    with ExitStack() as stack:
        reporter: Reporter
        if arguments.json:
            reporter = events = JsonReporter()
            stack.enter_context(_events_instead_of_stderr(events))
        elif getattr(arguments, "quiet", False):
            reporter = Reporter()
        else:
            reporter = TextReporter()
        stack.enter_context(reporting_end(reporter))
        yield reporter


@contextmanager
def _events_instead_of_stderr(reporter: JsonReporter) -> Iterator[None]:
    """Turn the log records that stderr would show into `line` events."""
    shown = [one for one in logging.getLogger().handlers if isinstance(one, cli.StderrHandler)]
    levels = [one.level for one in shown]
    for one in shown:
        one.setLevel(logging.CRITICAL + 1)
    try:
        with logging_to(CallbackHandler(reporter.progress, min(levels, default=logging.WARNING))):
            yield
    finally:
        for one, level in zip(shown, levels, strict=True):
            one.setLevel(level)


@contextmanager
def reporting_end(reporter: Reporter) -> Iterator[None]:
    """Report to a program how the block ended."""
    state, error = "complete", None
    try:
        yield
    except (GliosliceError, OSError) as failure:
        state, error = "failed", one_line(failure)
        raise
    except (KeyboardInterrupt, SystemExit) as end:
        failed = isinstance(end, SystemExit) and end.code != startup.INTERRUPTED
        state = "failed" if failed else "interrupted"
        raise
    finally:
        reporter.event("end", state=state, error=error)


@contextmanager
def draw_status(status: RunStatus) -> Iterator[None]:
    """Draw the run on the terminal of stderr.

    A thread of rich reads the numbers a few times a second, so that a slice costs nothing.
    """
    from rich.console import Console
    from rich.live import Live

    with Live(
        get_renderable=lambda: render_status(status.title, status.done, status.numbers()),
        console=Console(stderr=True),
        refresh_per_second=REDRAWS,
        redirect_stdout=False,  # it may be a file
    ):
        yield


def render_status(title: str, done: int, numbers: dict[str, Any]) -> "Group":
    """Return three lines for rich: progress; device and link; volumes."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    slices = numbers["slices"]
    first = Table.grid(padding=(0, 2), expand=True)
    for ratio in (None, 1, None):
        first.add_column(ratio=ratio, no_wrap=True)
    rate = f"{done}/{slices}  {numbers['slices_per_second']:.1f} slices/s  {time_left(numbers)}"
    first.add_row(Text(title), ProgressBar(slices, done), rate)
    volumes = Text("volumes  ")
    for region, ml in numbers["volumes_ml"].items():
        volumes.append("\N{BLACK SQUARE} ", style="rgb({},{},{})".format(*COLOURS[region]))
        volumes.append(f"{region} {ml:.1f} mL   ")
    return Group(first, Text("   ".join(device_and_link(numbers))), volumes)


def status_line(status: RunStatus) -> str:
    """Return the progress of a run as one line."""
    numbers = status.numbers()
    volumes = ", ".join(f"{r} {numbers['volumes_ml'][r]:.1f} mL" for r in REGIONS)
    rate = f"{numbers['slices_per_second']:.1f} slices/s"
    done = f"{status.done} of {status.masks.slice_count}"
    return f"{status.title}: {done}, {rate}, {time_left(numbers)}, {volumes}"


def time_left(numbers: dict[str, Any]) -> str:
    """Return the remaining time of the run."""
    seconds = numbers["seconds_left"]
    return "-:-- left" if seconds is None else f"{seconds // 60:.0f}:{seconds % 60:02.0f} left"


def device_and_link(numbers: dict[str, Any]) -> list[str]:
    """Return the device's latency, the use of the link, retransmissions and failed slices."""
    p50, p90 = numbers["device_ms"]["p50"], numbers["device_ms"]["p90"]
    device = "device -" if p50 is None else f"device {p50:.1f} ms per slice, 90 % under {p90:.1f}"
    use, failed = numbers["link"], len(numbers["failed"])
    link = f"link {(use['up'] + use['down']) / 1000:.1f} kB/s"
    if use["baud"]:
        link = f"link {use['baud']:,} baud, {use['use']:.0%} in use"
    parts = [device, link, f"retransmitted {numbers['retransmits']}"]
    return parts + ([f"failed {failed}"] if failed else [])
