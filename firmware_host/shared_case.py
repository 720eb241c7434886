"""One case whose slices several boards share: `glioslice stream CASE --boards all --share-case`.

The case is cut into spans of slices. Each span is a run of its own on the link, whose digest is
verified before its masks are taken, so a span that a board gives back leaves nothing behind. Each
board first segments the same three slices; one whose masks differ is left out.
"""

import argparse
import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from firmware_host import handshake, inputs, outputs, run, session
from firmware_host.board_pool import BoardUnsuitable, PoolBoard, Task
from firmware_host.mask_volume import MaskVolume
from firmware_host.progress import RunStatus
from firmware_host.run import StreamJob
from firmware_host.viewer.page import PageObserver
from glioslice.cases import Case
from glioslice.errors import GliosliceError
from glioslice.wire import messages
from glioslice.wire.connection import Connection
from glioslice.wire.link import Counts
from glioslice.wire.messages import BoardHello, HostHello, Mode

PROBES = 3
"""Slices that every board segments first, to compare the boards' masks."""

Span = tuple[int, int]


class SharedLinks:
    """The links of all boards of a shared case, as a run's status needs them."""

    name, rate = "several boards", None

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._before: dict[Connection, Counts] = {}

    def add(self, connection: Connection) -> None:
        """Count a connection's bytes from now on."""
        with self._lock:
            self._before.setdefault(connection, Counts())

    @property
    def counts(self) -> Counts:
        """The sums over all links."""
        with self._lock:
            connections = list(self._before)
        return sum((one.counts for one in connections), Counts())


class SharedCase:
    """The slices of one case, shared among boards; `masks` collects what they return."""

    def __init__(self, case: Case, arguments: argparse.Namespace, observer: PageObserver) -> None:
        self.case = inputs.hosted_case(case)
        self.links = SharedLinks()
        self.masks: MaskVolume | None = None
        self.hello: BoardHello | None = None
        self.choice: HostHello | None = None
        self._arguments, self._observer = arguments, observer
        self._slices: NDArray[np.int8] = np.empty(0, np.int8)
        self._lock = threading.Lock()
        self._reference: bytes | None = None
        self._compared: set[str] = set()
        self._failure: str | None = None

    def make_tasks(self, hello: BoardHello, boards: int) -> list[Task[Span]]:
        """Cut the case into slices for the boards' model, and these into spans."""
        assert self.case.images is not None
        crop, self._slices = inputs.quantize_slices(self.case.images, hello, self.case.missing)
        self.hello = hello
        self.choice = handshake.make_host_hello(hello, Mode.SERVE, self._arguments.images)
        self.masks = session.new_mask_volume(self.choice, crop)
        self._observer.start_run(RunStatus(self.masks, self.case, hello, self.links, None))
        number = self.masks.number
        return [
            Task(f"slices {number(first)} to {number(stop - 1)}", (first, stop))
            for first, stop in spans(len(self._slices), boards)
        ]

    def perform(
        self, board: PoolBoard, connection: Connection, hello: BoardHello, content: Span
    ) -> int:
        """Segment the slices of a span on a board."""
        hello = replace(hello, kept=0, answered=0)
        handshake.choose_mode(hello, play=False, has_case=True)
        choice = handshake.make_host_hello(hello, Mode.SERVE, self._arguments.images)
        self.links.add(connection)
        if board.address.name not in self._compared:
            self._compare(board, connection, hello, choice)
        part = self._segment(board, connection, hello, choice, np.arange(*content))
        assert self.masks is not None
        with self._lock:
            self.masks.take(part, content[0])
            for index in range(*content):
                self._observer.add_slice(self.masks, index)
        return part.slice_count

    def finish(self, board: PoolBoard, content: Span) -> None:
        """Nothing to write: the masks of a span are taken as soon as they are complete."""

    def _compare(
        self, board: PoolBoard, connection: Connection, hello: BoardHello, choice: HostHello
    ) -> None:
        """Raise GliosliceError if a board's masks of the same slices are not the first one's."""
        places = np.linspace(0, len(self._slices) - 1, PROBES + 2).astype(int)[1:-1]
        masks = self._segment(board, connection, hello, choice, places)
        found = b"".join(masks.mask(index).tobytes() for index in range(PROBES))
        with self._lock:
            self._reference = self._reference or found
            if found != self._reference:
                raise BoardUnsuitable(
                    f"{board.address.name}: its arithmetic gives other masks than the first "
                    "board's; it cannot share a case with it"
                )
            self._compared.add(board.address.name)

    def _segment(
        self,
        board: PoolBoard,
        connection: Connection,
        hello: BoardHello,
        choice: HostHello,
        places: NDArray[np.int_],
    ) -> MaskVolume:
        """Return the masks of some slices, segmented as a run of their own."""
        assert self.masks is not None
        crop = replace(self.masks.crop, z=(0, len(places)))
        masks = session.new_mask_volume(choice, crop)
        board.status = RunStatus(masks, self.case, hello, connection, self._arguments.baud)
        messages.send(connection, choice)
        absent = inputs.absent_channels(hello, self.case.missing)
        slices = self._slices[places]
        sender = session.send_slices(connection, hello, choice, masks, slices, absent)
        for _ in session.receive_masks(connection, masks, sender):
            pass
        if masks.failed:
            raise run.SlicesFailed(outputs.describe_failures(masks))
        return masks

    def gave_back(self, board: PoolBoard, content: Span, error: str) -> None:
        """Nothing to note: the span's masks are taken only once it is complete."""

    def failed(self, board: PoolBoard, content: Span, error: str) -> None:
        """Remember the first reason why slices are missing."""
        self._failure = self._failure or error

    ended = failed

    def check_complete(self) -> None:
        """Raise GliosliceError if masks are missing."""
        if self._failure is not None:
            raise GliosliceError(self._failure)

    def job(self) -> StreamJob | None:
        """Return the whole run, None if no board began it."""
        if self.masks is None or self.hello is None or self.choice is None:
            return None
        rules = run.find_rules(self.hello, self._arguments)
        return StreamJob(self.masks, self.case, self.hello, self.choice, rules)


def spans(slices: int, boards: int) -> list[Span]:
    """Return the spans of slices that boards take in turn: large ones first, then smaller ones.

    So every board is busy until the end, however fast it is: guided self-scheduling (Polychrono-
    poulos and Kuck, 1987).
    """
    found, first = [], 0
    while first < slices:
        size = min(slices - first, max(2, (slices - first) // (2 * boards)))
        found.append((first, first + size))
        first += size
    return found
