"""A board in a thread, the port to it, and a host whose messages a test chooses."""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header
from numpy.typing import NDArray

from device.board import Board, make_board
from device.engine import Engine
from device.segment import segment
from device.server import StopRequest, run_sessions
from glioslice.cases import MODALITIES
from glioslice.model_card import shipped_folder
from glioslice.nifti import Space
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import quantize, restore_volume, slice_volume
from glioslice.wire.codecs import decode_mask, encode_image, encode_mask
from glioslice.wire.connection import Connection
from glioslice.wire.messages import (
    BoardHello,
    Empty,
    End,
    Error,
    HostHello,
    Mask,
    MaskDigest,
    Message,
    Mode,
    Slice,
    Start,
    VolumeGeometry,
    receive,
    send,
)
from glioslice.wire.transport import LineLost, Port, pair
from tests.conftest import save

MODEL = "nano-int8.tflite"
RUNNER = [sys.executable, "-m", "device", "--model", str(shipped_folder("nano") / MODEL)]
ROTATED = np.array([[0, 0, 1.0, -7], [0, 1.004, 0, 30], [0.996, 0, 0, 5], [0, 0, 0, 1]])
PATIENCE = 120.0
"""Seconds; far more than anything takes, even on a busy machine, unless it waits in vain."""


class Host:
    """A host that uses `port` and may be killed.

    It expands an Empty into masks in the codec that it chose last; `empties` holds the originals.
    """

    def __init__(self, port: "SharedPort") -> None:
        self._port = port
        self.connection = Connection(port, active=True)
        self.empties: list[Empty] = []
        self._received: deque[Message] = deque()
        self._codec = 1

    def kill(self) -> None:
        """End without closing the session."""
        self._port.dead = True
        self.connection.close()

    def connect(self) -> BoardHello:
        self.connection.open(PATIENCE)
        hello = self.receive()
        assert isinstance(hello, BoardHello)
        return hello

    def send(self, *messages: Message) -> None:
        for message in messages:
            if isinstance(message, HostHello):
                self._codec = message.mask_codec
            send(self.connection, message)

    def receive(self) -> Message:
        if not self._received:
            message = receive(self.connection, PATIENCE)
            assert message is not None, "no message from the board"
            if isinstance(message, BoardHello):
                self.hello = message
            if isinstance(message, Empty):
                self.empties.append(message)
                self._received.extend(self._masks(message))
            else:
                self._received.append(message)
        return self._received.popleft()

    def _masks(self, message: Empty) -> Iterator[Mask]:
        payload = encode_mask(self._codec, np.zeros(self.hello.window, np.uint8))
        for index, microseconds, quality in message.per_slice():
            yield Mask(index, self._codec, microseconds, payload, quality)

    def receive_run(self) -> tuple[list[Mask], list[Error], End]:
        """Everything up to End."""
        masks, errors = [], []
        while not isinstance(message := self.receive(), End):
            if isinstance(message, Mask):
                masks.append(message)
            else:
                assert isinstance(message, Error)
                errors.append(message)
        return masks, errors, message


class SharedPort:
    """A port that stays open for the next host when the host that uses it is killed."""

    def __init__(self, port: Port) -> None:
        self.name, self.port, self.dead = port.name, port, False

    def read(self, timeout: float) -> bytes:
        if self.dead:
            raise LineLost("this host was killed")
        return self.port.read(timeout)

    def write(self, data: bytes) -> None:
        if self.dead:
            raise LineLost("this host was killed")
        self.port.write(data)

    def close(self) -> None:
        """Left open for the next host."""


class LogOfThread(logging.Handler):
    """Appends the messages of the thread that made it to `lines`."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines, self._thread = lines, threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self._lines.append(record.getMessage())


class BoardThread:
    """A board that serves in a thread; `log` holds its messages, `port` is the host's end."""

    def __init__(self, board: Board) -> None:
        self.port, far = pair()
        self.log: list[str] = []
        self.lost: LineLost | None = None
        self.connection = Connection(far, active=False, silence=PATIENCE)
        self.stop = StopRequest(force=self.connection.close)
        self.thread = threading.Thread(target=self._serve, args=(board,), daemon=True)
        self.thread.start()

    def _serve(self, board: Board) -> None:
        logger, handler = logging.getLogger("device"), LogOfThread(self.log)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
        try:
            run_sessions(self.connection, board, self.stop)
        except LineLost as error:
            self.lost = error
        finally:
            logger.removeHandler(handler)
            self.connection.close()

    def host(self) -> Host:
        return Host(SharedPort(self.port))

    def logged(self, text: str) -> str:
        """The first message of the log that contains `text`, as soon as it is there."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for line in list(self.log):
                if text in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"'{text}' is not in {self.log}")

    def ended(self) -> bool:
        self.thread.join(PATIENCE)
        return not self.thread.is_alive()


class Slab:
    """A slab of a small head: its slices as z-scores, and its raw labels by a local run."""

    def __init__(self, engine: Engine) -> None:
        self.images = make_phantom(0, shape=(64, 72, 48)).images[..., 16:32]
        self.z_scores, self.crop = slice_volume(self.images, engine.card.window, engine.card.clip)
        self.labels = segment(self.images, engine, raw=True).labels

    def slices(self, hello: BoardHello, codec: int = 2) -> list[Slice]:
        images = quantize(self.z_scores, hello.scale, hello.zero_point)
        return [Slice(i, codec, encode_image(codec, one)) for i, one in enumerate(images)]

    def volume(self, masks: list[Mask]) -> NDArray[np.uint8]:
        """Labels (X, Y, Z) of masks that were received in order."""
        return restore_volume(np.stack(decoded(masks, self.crop.window)), self.crop)


def decoded(masks: list[Mask], window: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """The labels of the masks of one run, in the order in which they were received."""
    labels: list[NDArray[np.uint8]] = []
    for mask in masks:
        before = labels[-1] if labels else None
        labels.append(decode_mask(mask.codec, mask.payload, window, before))
    return labels


def digest(masks: list[Mask], window: tuple[int, int]) -> str:
    total = MaskDigest()
    for mask, labels in zip(masks, decoded(masks, window), strict=True):
        total.add(mask.index, labels.tobytes())
    return total.hexdigest()


def serve(host: Host, patient: Slab, image: int = 2, mask: int = 3) -> tuple[list[Mask], End]:
    """Serve a whole volume in a new session."""
    hello = host.connect()
    slices = patient.slices(hello, image)
    host.send(HostHello(Mode.SERVE, image, mask), Start(len(slices)), *slices)
    masks, errors, end = host.receive_run()
    assert not errors
    return masks, end


def play(host: Host, mask: int = 3) -> tuple[VolumeGeometry, list[Mask], End]:
    """Play the board's case in an open session."""
    host.send(HostHello(Mode.PLAY, 0, mask))
    start = host.receive()
    assert isinstance(start, Start) and start.volume is not None
    masks, errors, end = host.receive_run()
    assert (start.slices, errors) == (len(masks), [])
    return start.volume, masks, end


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine(shipped_folder("nano") / MODEL)


@pytest.fixture(scope="session")
def patient(engine: Engine) -> Slab:
    made = Slab(engine)
    assert np.count_nonzero(made.labels) > 100
    return made


@pytest.fixture(scope="session")
def stored_case(patient: Slab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The patient as a case on the board's disk, with rotated axes.

    The ground truth beside it is damaged, because playing must not read it.
    """
    folder = tmp_path_factory.mktemp("board") / "Someone"
    x, y, z = patient.labels.shape
    space = Space((z, y, x), ROTATED, Nifti1Header())
    for name, image in zip(MODALITIES, patient.images, strict=True):
        save(folder / f"Someone_{name}.nii.gz", space.from_lps(image), ROTATED)
    (folder / "Someone_seg.nii.gz").write_bytes(b"damaged")
    return folder


StartBoard = Callable[..., BoardThread]


@pytest.fixture
def start(engine: Engine) -> Iterator[StartBoard]:
    """Start a board, by default with the nano model; it stops at the end of the test."""
    boards: list[BoardThread] = []

    def begin(board: Board | None = None) -> BoardThread:
        nano = board or make_board(engine, shipped_folder("nano") / MODEL)
        boards.append(BoardThread(nano))
        return boards[-1]

    yield begin
    for one in boards:
        one.stop.request()
        assert one.ended()
