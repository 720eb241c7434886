"""A pool of boards: each takes the next task, and a board that fails gives its task back.

    pool = BoardPool(addresses, command, arguments, reporter, workload)
    pool.run(lambda hello: [Task("Ada", plan), ...])    # once, until all are done or failed

Each board has a thread that connects, runs one task after another, and connects again if the link
is lost or the board has restarted. A second thread of the board writes the files of the last task
meanwhile. A task that was given back goes to a board that has not failed on it, if one is
connected. No task is started before every board has replied or failed to, so that boards with
different models are refused before anything is written.
"""

import argparse
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Generic, Protocol, TypeVar

from firmware_host import handshake, interrupts
from firmware_host.board_table import BoardRow, show_boards
from firmware_host.mask_volume import DigestMismatch
from firmware_host.progress import Reporter, RunStatus
from firmware_host.run import Interrupted, OutputsFailed, SlicesFailed, UnwritableFile
from firmware_host.session import DRAIN
from glioslice.cli import one_line
from glioslice.errors import GliosliceError
from glioslice.model_card import find_model
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello
from glioslice.wire.ports import open_port

logger = logging.getLogger(__name__)

SILENCE = 15.0
"""Seconds without a packet after which a board's task goes elsewhere; a single board gets 60."""

RETRY = 1.0
"""Seconds between two attempts to connect to a lost board."""

RETURN_LIMIT = 60.0
"""Seconds after which a lost board is given up."""

LINK_ATTEMPTS = 5
"""Lost links after which a task is reported as failed: it may be what makes boards crash."""

MASK_ATTEMPTS = 2
"""Failed slices or wrong digests after which a task is reported as failed."""

CONTENT_ERRORS = (SlicesFailed, DigestMismatch)
"""Failures that leave the session open."""

ENDINGS = GliosliceError, OSError, KeyboardInterrupt, Interrupted
"""How a task may end early; anything else is a defect."""

TICK = 0.5

Content = TypeVar("Content")
Performed = TypeVar("Performed", contravariant=True)


class BoardUnsuitable(GliosliceError):
    """A board that cannot take part; its task goes to another one."""


class TaskFailed(GliosliceError):
    """A task that no board can do, for example a case that cannot be read."""


@dataclass(frozen=True)
class BoardAddress:
    """A board's name in tables, and its port."""

    name: str
    port: str


@dataclass(eq=False)
class Task(Generic[Content]):
    """A piece of work; `failed_on` names the boards that gave it back."""

    name: str
    content: Content
    attempts: int = 0
    failed_on: set[str] = field(default_factory=set)


@dataclass(eq=False)
class PoolBoard:
    """A board of the pool. Its own threads change it, others only read it."""

    address: BoardAddress
    state: str = "connecting"
    hello: BoardHello | None = None
    connection: Connection | None = None
    status: RunStatus | None = None
    task: str | None = None
    finished: int = 0
    returned: int = 0
    slices: int = 0
    seconds: float = 0.0
    error: str = ""
    last_temperature_c: float | None = None
    tried: threading.Event = field(default_factory=threading.Event)

    @property
    def temperature_c(self) -> float | None:
        """The temperature that the board sent last, None if it sends none."""
        status = self.status
        now = None if status is None else status.masks.temperature_c
        return self.last_temperature_c if now is None else now

    def row(self) -> BoardRow:
        """Return the board's row in the table."""
        status = self.status
        done = slices = rate = link = None
        if status is not None:
            done, slices, seconds = status.done, status.masks.slice_count, status.masks.seconds
            rate, link = (done / seconds if seconds else 0.0), status.link_numbers()["link"]
        elif self.seconds:
            rate = self.slices / self.seconds
        return BoardRow(
            self.address.name, self.address.port, self.state, self.task, done, slices,
            None if rate is None else round(rate, 3), link, self.temperature_c, self.finished,
            self.returned, self.error or None,
        )  # fmt: skip


class Workload(Protocol[Performed]):
    """What the pool's tasks are. The pool calls these methods from its boards' threads."""

    def perform(
        self, board: PoolBoard, connection: Connection, hello: BoardHello, content: Performed
    ) -> int:
        """Do a task on a board; return how many slices it segmented.

        Raises TaskFailed, OSError or UnwritableFile for files that cannot be written, and any other
        GliosliceError if the board failed.
        """

    def finish(self, board: PoolBoard, content: Performed) -> None:
        """Write the files of a task that was performed, while the board does its next one.

        Raises OutputsFailed if they cannot be made, and UnwritableFile if they cannot be written.
        """

    def gave_back(self, board: PoolBoard, content: Performed, error: str) -> None:
        """Note that a task goes to another board."""

    def failed(self, board: PoolBoard, content: Performed, error: str) -> None:
        """Note that a task failed for good."""

    def ended(self, board: PoolBoard, content: Performed, error: str) -> None:
        """Note that a task ended early because the whole pool stopped."""


class TaskQueue(Generic[Content]):
    """The tasks that wait, and how many are being done. Any thread may call its methods."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Task[Content]] = deque()
        self._active = 0
        self._connected: set[str] = set()
        self._opened = self.stopped = False

    @property
    def waiting(self) -> int:
        """The number of tasks that no board has taken."""
        return len(self._waiting)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do, or the pool was stopped."""
        return self.stopped or (self._opened and not self._waiting and not self._active)

    def open(self, tasks: Sequence[Task[Content]]) -> None:
        """Let boards take tasks."""
        with self._changed:
            self._waiting.extend(tasks)
            self._opened = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Let no board take another task."""
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def wait_until_over(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds; return `over`."""
        with self._changed:
            return self._changed.wait_for(lambda: self.over, timeout)

    def connect(self, board: str) -> None:
        """Note that a board can take tasks."""
        with self._changed:
            self._connected.add(board)

    def disconnect(self, board: str) -> None:
        """Note that a board is lost: others may now have to repeat what failed on them."""
        with self._changed:
            self._connected.discard(board)
            self._changed.notify_all()

    def take(self, board: str) -> Task[Content] | None:
        """Wait for the next task for `board`; return None once there is nothing left to do.

        An idle board waits while others work, because they may give their tasks back.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.over or self._next(board) is not None)
            task = None if self.over else self._next(board)
            if task is not None:
                self._waiting.remove(task)
                self._active += 1
            return task

    def finish(self) -> None:
        """Note that a task is done or has failed."""
        with self._changed:
            self._active -= 1
            self._changed.notify_all()

    def give_back(self, task: Task[Content], board: str) -> None:
        """Put a task first in the queue, for a board that has not failed on it."""
        with self._changed:
            task.failed_on.add(board)
            self._active -= 1
            self._waiting.appendleft(task)
            self._changed.notify_all()

    def _next(self, board: str) -> Task[Content] | None:
        if not self._opened:
            return None
        for task in self._waiting:
            if board not in task.failed_on or task.failed_on >= self._connected:
                return task
        return None


class BoardPool(Generic[Content]):
    """The boards at `addresses`; `command` is the process at the end of each simulated line."""

    def __init__(
        self,
        addresses: Sequence[BoardAddress],
        command: list[str] | None,
        arguments: argparse.Namespace,
        reporter: Reporter,
        workload: Workload[Content],
    ) -> None:
        self.boards = [PoolBoard(address) for address in addresses]
        self._command, self._arguments, self._reporter = command, arguments, reporter
        self._workload, self._queue = workload, TaskQueue[Content]()
        self._own = find_model(arguments.model) if arguments.model else None
        self._failure: BaseException | None = None

    def rows(self) -> list[BoardRow]:
        """Return the table of the boards as it is now."""
        return [board.row() for board in self.boards]

    def run(self, make_tasks: Callable[[BoardHello], Sequence[Task[Content]]]) -> None:
        """Do the tasks that `make_tasks` returns for the first board's hello.

        Raises GliosliceError if no board replies, if their models differ, or if every board is
        lost; OSError or UnwritableFile for a file that cannot be written; KeyboardInterrupt for a
        signal that was deferred (`firmware_host.interrupts`). Whatever the reason, tasks that are
        being done end first.
        """
        queue = self._queue
        threads = [
            threading.Thread(target=self._serve, args=(board,), name=board.address.name)
            for board in self.boards
        ]
        with show_boards(self.rows, self._reporter):
            try:
                for thread in threads:
                    thread.start()
                self._await_replies(threads)
                queue.open(make_tasks(self.check_models()))
                while not queue.wait_until_over(TICK) and any(t.is_alive() for t in threads):
                    interrupts.raise_requested()
                    self._reporter.event("boards", boards=[asdict(row) for row in self.rows()])
            finally:
                left = queue.waiting
                queue.stop()
                self._end(threads)
        interrupts.raise_requested()
        if self._failure is not None:
            raise self._failure
        if left:
            raise GliosliceError(
                f"every board is lost ({self._reasons()}); run the same command again to continue"
            )

    def check_models(self) -> BoardHello:
        """Check the boards that replied and return the first one's hello; warn of the others.

        Raises GliosliceError if none replied, or if models differ without --allow-mixed.
        """
        found = [board for board in self.boards if board.hello is not None]
        if not found:
            raise GliosliceError(f"no board replies: {self._reasons()}")
        models: dict[str, str] = {}
        for board in found:
            assert board.hello is not None
            models.setdefault(board.hello.sha256, f"{board.hello.model} at {board.address.name}")
        if len(models) > 1 and not self._arguments.allow_mixed:
            raise GliosliceError(
                f"the boards run different models ({', '.join(models.values())}), so their masks "
                "would differ; install one model on all, or add --allow-mixed"
            )
        for board in self.boards:
            if board.hello is None:
                logger.warning("%s: %s; going on without it", board.address.name, board.error)
        assert found[0].hello is not None
        return found[0].hello

    def _end(self, threads: Sequence[threading.Thread]) -> None:
        """Close the connections and wait for the threads that were started.

        After an interrupt each may first take what its board has sent already.
        """
        started = [thread for thread in threads if thread.ident is not None]
        if interrupts.requested():
            deadline = time.monotonic() + DRAIN + TICK
            for thread in started:
                thread.join(max(0.0, deadline - time.monotonic()))
        for board in self.boards:
            if connection := board.connection:  # its thread may end it at any time
                connection.close()
        for thread in started:
            thread.join()

    def _await_replies(self, threads: Sequence[threading.Thread]) -> None:
        for board, thread in zip(self.boards, threads, strict=True):
            while not board.tried.wait(TICK) and thread.is_alive():
                interrupts.raise_requested()
        if self._failure is not None:
            raise self._failure

    def _reasons(self) -> str:
        return "; ".join(dict.fromkeys(board.error for board in self.boards if board.error))

    def _serve(self, board: PoolBoard) -> None:
        """Serve one board until nothing is left to do or the board stays lost."""
        queue, name, lost_at = self._queue, board.address.name, time.monotonic()
        try:
            while not queue.over:
                try:
                    with self._connect(board) as (connection, hello):
                        self._do_tasks(board, connection, hello)
                    board.state = "ended" if self._stopped() else "finished"
                    return
                except UnwritableFile:  # no board can change that
                    raise
                except BoardUnsuitable as error:
                    board.error = one_line(error)
                    break
                except GliosliceError as error:
                    if board.state != "connecting":
                        lost_at = time.monotonic()
                    board.state, board.error = "connecting", one_line(error)
                finally:
                    board.connection = board.status = board.task = None
                    queue.disconnect(name)
                    board.tried.set()
                if time.monotonic() - lost_at >= RETURN_LIMIT:
                    break
                queue.wait_until_over(RETRY)
            if not queue.over:
                logger.warning("%s: %s; given up", name, board.error)
            board.state = "ended" if self._stopped() else "lost"
        except BaseException as error:  # the main thread raises it
            board.state = "ended"
            self._fail(error)

    @contextmanager
    def _connect(self, board: PoolBoard) -> Iterator[tuple[Connection, BoardHello]]:
        """Yield the connection to a board and its hello.

        Raises GliosliceError if it does not reply, or with another model than before.
        """
        port, arguments = board.address.port, self._arguments
        opened = open_port(port, arguments.baud, command=self._command)
        with Connection(opened, active=True, silence=SILENCE) as connection:
            board.connection = connection
            if self._queue.over:  # checked after the assignment: whoever stops the pool closes it
                raise GliosliceError(f"{port}: the pool has ended")
            hello = handshake.receive_hello(connection, handshake.hello_timeout(port))
            handshake.check_model(hello, arguments.allow_model, self._own)
            if board.hello is not None and board.hello.sha256 != hello.sha256:
                raise GliosliceError(f"{port}: the board came back with another model")
            board.hello, board.state, board.error = hello, "idle", ""
            self._queue.connect(board.address.name)
            board.tried.set()
            yield connection, hello

    def _do_tasks(self, board: PoolBoard, connection: Connection, hello: BoardHello) -> None:
        """Do one task after another; raises the error that lost the board.

        The link is not idle while files are written: a thread does that for the last task.
        """
        with ThreadPoolExecutor(1, f"{board.address.name}-files") as files:
            finishing: Future[None] | None = None
            while (task := self._queue.take(board.address.name)) is not None:
                board.state, board.task, started = "streaming", task.name, time.monotonic()
                try:
                    board.slices += self._workload.perform(board, connection, hello, task.content)
                except ENDINGS as error:
                    self._note_end(board, task, error)
                else:
                    if finishing is not None:
                        finishing.result()  # no more than two cases of a board are in memory
                    finishing = files.submit(self._finish, board, task)
                board.seconds += time.monotonic() - started
                board.last_temperature_c = board.temperature_c
                board.state, board.task, board.status = "idle", None, None

    def _finish(self, board: PoolBoard, task: Task[Content]) -> None:
        """Write the files of a task; an error that no other task could avoid stops the pool."""
        try:
            try:
                self._workload.finish(board, task.content)
            except ENDINGS as error:
                self._note_end(board, task, error)
            else:
                board.finished += 1
                self._queue.finish()
        except BaseException as error:  # the main thread raises it
            self._fail(error)

    def _stopped(self) -> bool:
        """Return whether the pool ended early."""
        return interrupts.requested() or self._failure is not None

    def _fail(self, error: BaseException) -> None:
        """Stop the pool; the main thread raises the first error that did."""
        self._failure = self._failure or error
        self._queue.stop()

    def _note_end(self, board: PoolBoard, task: Task[Content], error: BaseException) -> None:
        """Report a task that ended early, or give it back; raise the error if the next one would.

        Raises it for a lost board, files that cannot be written, and Ctrl-C.
        """
        if isinstance(error, TaskFailed | OutputsFailed):
            self._workload.failed(board, task.content, one_line(error))
            self._queue.finish()
        elif isinstance(error, GliosliceError) and not isinstance(error, UnwritableFile):
            self._note_failure(board, task, error)
            if not isinstance(error, CONTENT_ERRORS):
                raise error
        else:
            stopped = isinstance(error, KeyboardInterrupt | Interrupted)
            reason = "interrupted" if stopped else one_line(error)
            self._workload.ended(board, task.content, reason)
            self._queue.finish()
            raise error

    def _note_failure(self, board: PoolBoard, task: Task[Content], error: GliosliceError) -> None:
        """Give a task back, or report it as failed or ended."""
        queue, workload = self._queue, self._workload
        name, reason = board.address.name, one_line(error)
        if queue.stopped:
            workload.ended(board, task.content, "interrupted")
            queue.finish()
            return
        task.attempts += not isinstance(error, BoardUnsuitable)
        if task.attempts >= (MASK_ATTEMPTS if isinstance(error, CONTENT_ERRORS) else LINK_ATTEMPTS):
            workload.failed(board, task.content, reason)
            queue.finish()
            return
        board.returned += 1
        logger.warning("%s: %s; %s goes to another board", name, reason, task.name)
        workload.gave_back(board, task.content, reason)
        queue.give_back(task, name)
