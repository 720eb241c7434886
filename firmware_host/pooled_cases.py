"""Stream a folder of cases, or the slices of one case, on several boards at once.

    glioslice stream FOLDER --port auto --boards all                    # every board that replies
    glioslice stream FOLDER --port /dev/ttyUSB0 --port /dev/ttyUSB1     # these two
    glioslice stream FOLDER --boards boards.toml                        # those of an inventory
    glioslice stream CASE --port auto --boards all --share-case         # one case, on all of them

Masks, names of files and the table of cases are those of a run with one board: a slice's mask does
not depend on the board that computes it, and each case is written by itself. With `--share-case`,
each board first segments the same three slices; one whose masks differ is left out.
"""

import argparse
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from firmware_host import batch, discovery, handshake, inputs, interrupts, outputs, run
from firmware_host.batch import CasePlan, CaseRow
from firmware_host.board_pool import (
    BoardAddress,
    BoardPool,
    Content,
    PoolBoard,
    Task,
    TaskFailed,
    Workload,
)
from firmware_host.board_table import format_boards
from firmware_host.options import AUTO, FarEnd
from firmware_host.progress import Reporter, RunStatus, Update, open_reporter, reporting_end
from firmware_host.run import Interrupted, StreamJob
from firmware_host.shared_case import SharedCase
from firmware_host.viewer.page import Page, PageObserver, open_page
from glioslice import startup
from glioslice.cases import Case, case_name
from glioslice.cli import one_line
from glioslice.errors import GliosliceError
from glioslice.inventory import read_inventory
from glioslice.wire.connection import Connection
from glioslice.wire.link import Counts
from glioslice.wire.messages import BoardHello, Mode

ALL = "all"

READERS = 2
"""Cases that are read at a time, each on a core of its own: reading needs much memory."""

READ_AHEAD = 3
"""Cases that wait in memory for a board, at most, so that its link is not idle meanwhile."""

ONE_BOARD_OPTIONS = ("record", "record_masks", "replay", "play")


def wants_several(arguments: argparse.Namespace) -> bool:
    """Return whether the options name several boards."""
    return arguments.boards is not None or len(arguments.ports) > 1


def stream_on_boards(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Stream what the options name on several boards; raises GliosliceError and OSError."""
    given = [name for name in ONE_BOARD_OPTIONS if getattr(arguments, name)]
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise GliosliceError(f"{options}: for one board; name one port, without --boards")
    is_folder = batch.folder_cases(arguments.case) is not None
    if is_folder and arguments.share_case:
        raise GliosliceError(f"{arguments.case}: --share-case is for one case, not for a folder")
    if not is_folder and not arguments.share_case:
        raise GliosliceError(
            "one case runs on one board; add --share-case to split its slices among them, or name "
            "a folder of cases"
        )
    if arguments.share_case and arguments.allow_mixed:
        raise GliosliceError("--share-case needs one model on all boards: leave --allow-mixed out")
    with open_reporter(arguments) as reporter:
        if is_folder:
            _stream_folder(arguments, far_end, reporter)
        else:
            _stream_shared(arguments, far_end, reporter)


def find_boards(arguments: argparse.Namespace) -> list[BoardAddress]:
    """Return the boards that --port and --boards name.

    Raises GliosliceError for a port that is named twice, for a number of boards that were not
    found, and for an inventory without ports.
    """
    ports, boards = list(arguments.ports), arguments.boards
    if boards is not None and boards != ALL and not boards.isdecimal():
        return _check_ports(_inventory_addresses(Path(boards), ports))
    if any(port.lower() == AUTO for port in ports):
        if len(ports) > 1:
            raise GliosliceError("--port auto finds the ports itself: leave the other --port out")
        ports = _replying_ports(arguments.baud)
    simulated = len(ports) == 1 and handshake.is_simulated(ports[0])
    if simulated and boards == ALL:
        raise GliosliceError(f"{ports[0]}: give the number of simulated boards, such as --boards 3")
    if simulated and boards is not None:
        ports = ports * int(boards)
    if boards not in (None, ALL) and len(ports) < int(boards):
        raise GliosliceError(
            f"--boards {boards}: there are only {len(ports)}, at {', '.join(ports)}"
        )
    ports = ports if boards in (None, ALL) else ports[: int(boards)]
    names = (f"sim-{n}" if handshake.is_simulated(p) else p for n, p in enumerate(ports, 1))
    return _check_ports([BoardAddress(*pair) for pair in zip(names, ports, strict=True)])


def _inventory_addresses(path: Path, ports: Sequence[str]) -> list[BoardAddress]:
    if ports:
        raise GliosliceError(f"{path}: holds the ports; leave --port out")
    entries = read_inventory(path)
    for entry in entries:
        if entry.host_port is None:
            raise GliosliceError(
                f"{path}: board '{entry.name}' has no host_port, the port of this machine "
                "that it is connected to, such as /dev/ttyUSB0"
            )
    return [BoardAddress(entry.name, entry.host_port) for entry in entries if entry.host_port]


def _replying_ports(baud: int | None) -> list[str]:
    found = discovery.probe_all(baud)
    boards = [one.port for one in found if one.hello]
    if not boards:
        reasons = "; ".join(f"{one.port}: {one.reason}" for one in found) or "there is no port"
        raise GliosliceError(f"no board found ({reasons}); see `glioslice doctor --port PORT`")
    return boards


def _check_ports(addresses: list[BoardAddress]) -> list[BoardAddress]:
    """Return `addresses`; raises GliosliceError for a device under two names."""
    first: dict[str, str] = {}
    for port in (one.port for one in addresses if not handshake.is_simulated(one.port)):
        device = os.path.realpath(port) if port.startswith("/") else port
        if device in first:
            same = "" if port == first[device] else f", which is also {first[device]}"
            raise GliosliceError(f"{port}: named twice{same}; each board needs a port of its own")
        first[device] = port
    return addresses


class BoardReporter(Reporter):
    """Reports one board's run: its events carry the board's name, its progress is in the table.

    The event `case` is kept back in `ended`, because a case that failed may go to another board.
    """

    def __init__(self, board: PoolBoard, reporter: Reporter) -> None:
        self._board, self._reporter = board, reporter
        self.ended: dict[str, Any] = {}

    def event(self, kind: str, **content: Any) -> None:
        """Report an event to a program."""
        if kind == "case":
            self.ended = content
        else:
            self._reporter.event(kind, board=self._board.address.name, **content)

    @contextmanager
    def show_run(self, status: RunStatus) -> Iterator[Update]:
        """Show the run in the table of boards while the block lasts."""
        self._board.status = status
        self.event("start", **status.details(), slices=status.masks.slice_count)
        yield lambda: None


class CaseReader:
    """Reads cases in the order of `plans`, the next ones while boards are busy; for any thread.

    It begins at once. Its threads end with the block, which waits for what is just being read.
    """

    def __init__(self, plans: Sequence[CasePlan], arguments: argparse.Namespace) -> None:
        self._arguments, self._lock = arguments, threading.Lock()
        self._left = deque(plans)
        self._begun: dict[str, Future[Case]] = {}
        self._threads = ThreadPoolExecutor(READERS, "case-reader")
        self._read_ahead()

    def __enter__(self) -> "CaseReader":
        """Return the reader."""
        return self

    def __exit__(self, *_: object) -> None:
        """End its threads."""
        self._threads.shutdown(cancel_futures=True)

    def read(self, plan: CasePlan) -> Case:
        """Return a case, and begin to read those that follow; raises GliosliceError."""
        with self._lock:
            future = self._begun.pop(plan.name, None)
            if future is None:  # one that was given back, or that has not had its turn
                with suppress(ValueError):
                    self._left.remove(plan)
                future = self._begin(plan)
            self._read_ahead()
        return future.result()

    def _read_ahead(self) -> None:
        while self._left and len(self._begun) < READ_AHEAD:
            plan = self._left.popleft()
            self._begun[plan.name] = self._begin(plan)

    def _begin(self, plan: CasePlan) -> "Future[Case]":
        return self._threads.submit(batch.read_planned, plan, self._arguments)


@dataclass(frozen=True)
class ReceivedCase:
    """A case whose masks have all arrived; `counts` are those of its link at that time."""

    job: StreamJob
    counts: Counts
    reporter: BoardReporter
    observer: PageObserver


class FolderWorkload:
    """The cases of a folder: `rows` is their table, the page shows one case at a time."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        rows: dict[str, CaseRow],
        reporter: Reporter,
        page: Page | None,
        reader: CaseReader,
    ) -> None:
        self._arguments, self._rows, self._reporter = arguments, rows, reporter
        self._page, self._page_turn = page, threading.Lock()
        self._reader = reader
        self._received: dict[str, ReceivedCase] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        self._resumable: dict[str, Connection] = {}

    def perform(
        self, board: PoolBoard, connection: Connection, hello: BoardHello, content: CasePlan
    ) -> int:
        """Stream a case; the Workload protocol has the errors."""
        reporter = BoardReporter(board, self._reporter)
        on_page = self._page_turn.acquire(blocking=False)
        observer = PageObserver(self._page if on_page else None)
        try:
            job = self._start(board, connection, hello, content, reporter)
            run.receive_case(
                connection, job, content.outputs, self._arguments.baud, reporter, observer
            )
            received = ReceivedCase(job, connection.counts, reporter, observer)
            self._received[content.name] = received
            if on_page and self._page:  # its report is shown before the next case takes its place
                self.finish(board, content)
        finally:
            self._ended[content.name] = reporter.ended
            if on_page:
                self._page_turn.release()
        return job.masks.slice_count

    def finish(self, board: PoolBoard, content: CasePlan) -> None:
        """Write the files of a case that was performed, unless that has been done."""
        received = self._received.pop(content.name, None)
        if received is None:
            return
        try:
            result = run.write_case_files(
                received.counts, received.job, content.outputs, received.reporter, received.observer
            )
        finally:
            self._ended[content.name] = received.reporter.ended
        self._rows[content.name] = batch.case_row(content.name, batch.COMPLETE, result.report)
        self._report(board, content, "complete", None)

    def _start(
        self,
        board: PoolBoard,
        connection: Connection,
        hello: BoardHello,
        plan: CasePlan,
        reporter: Reporter,
    ) -> StreamJob:
        """Read a case and start its run; raises TaskFailed for a case that cannot be streamed."""
        if self._resumable.get(board.address.name) is connection:
            hello = replace(hello, kept=0, answered=0)  # only a session's first run is resumed
        handshake.choose_mode(hello, play=False, has_case=True)
        handshake.make_host_hello(hello, Mode.SERVE, self._arguments.images)
        try:
            case = self._reader.read(plan)
            job = run.start_stream(connection, hello, case, self._arguments, reporter)
        except batch.LINK_ERRORS:
            raise
        except GliosliceError as error:
            raise TaskFailed(one_line(error)) from error
        self._resumable[board.address.name] = connection
        return job

    def gave_back(self, board: PoolBoard, content: CasePlan, error: str) -> None:
        """Report that a case goes to another board."""
        self._reporter.event("returned", board=board.address.name, case=content.name, error=error)

    def failed(self, board: PoolBoard, content: CasePlan, error: str) -> None:
        """Note in the table that a case failed."""
        self._rows[content.name] = CaseRow(content.name, batch.FAILED, error=error)
        print(f"{content.name}: {error}", file=sys.stderr, flush=True)
        self._report(board, content, "failed", error)

    def ended(self, board: PoolBoard, content: CasePlan, error: str) -> None:
        """Note in the table that the pool stopped during a case."""
        self._rows[content.name] = CaseRow(content.name, batch.ENDED, error=error)
        self._report(board, content, "interrupted", error)

    def _report(self, board: PoolBoard, plan: CasePlan, state: str, error: str | None) -> None:
        event = {"files": [], "report": None, **self._ended.pop(plan.name, {})}
        event |= {"case": plan.name, "state": state, "error": error}
        self._reporter.event("case", board=board.address.name, **event)
        left = sum(row.state == batch.WAITING for row in self._rows.values())
        self._reporter.progress(f"{plan.name}: {state} on {board.address.name}, {left} left")


def _stream_folder(arguments: argparse.Namespace, far_end: FarEnd, reporter: Reporter) -> None:
    folder = arguments.output or batch.FOLDER
    plans = batch.plan_cases(arguments, folder)
    rows = {plan.name: batch.previous_row(plan, arguments.force) for plan in plans}
    waiting = [plan for plan in plans if rows[plan.name].state != batch.BEFORE]
    for plan in waiting:
        outputs.check_writable(plan.outputs, force=True)  # what exists ended early
    addresses = find_boards(arguments) if waiting else []
    with (
        open_page(arguments.view, reporter) as page,
        reporting_end(reporter),
        batch.table_at_the_end(rows, folder, reporter),
    ):
        if waiting:

            def make_tasks(hello: BoardHello) -> list[Task[CasePlan]]:
                if not arguments.allow_mixed:
                    batch.warn_of_other_models(plans, rows, hello)
                return [Task(plan.name, plan) for plan in waiting]

            with CaseReader(waiting, arguments) as reader:
                workload = FolderWorkload(arguments, rows, reporter, page, reader)
                _run_pool(addresses, arguments, far_end, reporter, page, make_tasks, workload)
        failed = sum(row.state == batch.FAILED for row in rows.values())
        if failed:
            raise GliosliceError(f"{failed} of {len(rows)} cases failed; see the table")


def _run_pool(
    addresses: list[BoardAddress],
    arguments: argparse.Namespace,
    far_end: FarEnd,
    reporter: Reporter,
    page: Page | None,
    make_tasks: Callable[[BoardHello], Sequence[Task[Content]]],
    workload: Workload[Content],
) -> None:
    """Do the tasks and report the table of the boards; raises Interrupted for Ctrl-C."""
    simulated = any(handshake.is_simulated(one.port) for one in addresses)
    command = far_end(arguments) if simulated else None
    pool = BoardPool(addresses, command, arguments, reporter, workload)
    if page is not None:
        page.set_boards(lambda: {"boards": [asdict(row) for row in pool.rows()]})
    with interrupts.deferred():
        try:
            pool.run(make_tasks)
        except KeyboardInterrupt:
            print("interrupted; what is finished is kept", file=sys.stderr)
            raise Interrupted(startup.INTERRUPTED) from None
        finally:
            rows = pool.rows()
            reporter.event("boards", boards=[asdict(row) for row in rows])
            reporter.result(*format_boards(rows), "")


def _stream_shared(arguments: argparse.Namespace, far_end: FarEnd, reporter: Reporter) -> None:
    """Stream one case on all boards; a run that ends early keeps its masks as partial."""
    source = inputs.given_source(arguments)
    name = case_name(source) if source else None
    mask = arguments.output or outputs.default_mask(name)
    paths = outputs.output_paths(mask, arguments.montage, arguments.report, arguments.labels)
    outputs.check_writable(paths, arguments.force)
    addresses = find_boards(arguments)
    case = inputs.load_case(arguments)
    with (
        open_page(arguments.view, reporter) as page,
        reporting_end(reporter),
        interrupts.deferred(),
    ):
        observer = PageObserver(page)
        shared = SharedCase(case, arguments, observer)
        try:
            _run_pool(
                addresses, arguments, far_end, reporter, page,
                lambda hello: shared.make_tasks(hello, len(addresses)), shared,
            )  # fmt: skip
            shared.check_complete()
        except (Exception, Interrupted) as error:
            job = shared.job()
            if job is None:
                raise
            run.keep_partial(shared.links.counts, job, paths, reporter, observer, error)
        job = shared.job()
        assert job is not None
        result = run.write_case_files(shared.links.counts, job, paths, reporter, observer)
        reporter.result(*result.lines, *run.result_lines(result))
        interrupts.raise_requested()
