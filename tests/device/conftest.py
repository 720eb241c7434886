"""A board in a thread, the line to it, and a host that says what a test tells it to."""

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
from device.lifecycle import Stop
from device.segment import segment, slices_of
from device.server import run_sessions
from glioslice.cases import MODALITIES
from glioslice.model_card import shipped
from glioslice.nifti import Space
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import paste, quantise
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
    Volume,
    receive,
    send,
)
from glioslice.wire.transport import LineLost, Port, pair
from tests.conftest import save

MODEL = "nano-int8.tflite"
TURNED = np.array([[0, 0, 1.0, -7], [0, 1.004, 0, 30], [0.996, 0, 0, 5], [0, 0, 0, 1]])


class Host:
    """The desk's end of a line, or of what is left of one.

    It hears an Empty as so many masks in the codec that it chose last; `empties` are as they came.
    """

    def __init__(self, wire: "Wire") -> None:
        self._wire = wire
        self.connection = Connection(wire, active=True)
        self.empties: list[Empty] = []
        self._heard: deque[Message] = deque()
        self._codec = 1

    def kill(self) -> None:
        """End without a goodbye."""
        self._wire.dead = True
        self.connection.close()

    def join(self) -> BoardHello:
        self.connection.open(5.0)
        hello = self.hear()
        assert isinstance(hello, BoardHello)
        return hello

    def say(self, *messages: Message) -> None:
        for message in messages:
            if isinstance(message, HostHello):
                self._codec = message.mask_codec
            send(self.connection, message)

    def hear(self) -> Message:
        if not self._heard:
            message = receive(self.connection, 5.0)
            assert message is not None, "the board says nothing"
            if isinstance(message, BoardHello):
                self.hello = message
            if isinstance(message, Empty):
                self.empties.append(message)
                self._heard.extend(self._masks(message))
            else:
                self._heard.append(message)
        return self._heard.popleft()

    def _masks(self, message: Empty) -> Iterator[Mask]:
        payload = encode_mask(self._codec, np.zeros(self.hello.window, np.uint8))
        for index, microseconds, quality in message.each():
            yield Mask(index, self._codec, microseconds, payload, quality)

    def hear_run(self) -> tuple[list[Mask], list[Error], End]:
        """Everything up to End."""
        masks, errors = [], []
        while not isinstance(message := self.hear(), End):
            if isinstance(message, Mask):
                masks.append(message)
            else:
                assert isinstance(message, Error)
                errors.append(message)
        return masks, errors, message


class Wire:
    """A port that outlives its connections, and the death of a host that uses it."""

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


class Running:
    """A board that waits in a thread; `lines` is its log, `port` the desk's end of its line."""

    def __init__(self, board: Board, silence: float = 5.0) -> None:
        self.port, far = pair()
        self.lines: list[str] = []
        self.lost: LineLost | None = None
        self.connection = Connection(far, active=False, silence=silence)
        self.stop = Stop(last_resort=self.connection.close)
        self.thread = threading.Thread(target=self._work, args=(board,), daemon=True)
        self.thread.start()

    def _work(self, board: Board) -> None:
        try:
            run_sessions(self.connection, board, self.stop, self.lines.append)
        except LineLost as error:
            self.lost = error
        finally:
            self.connection.close()

    def host(self) -> Host:
        return Host(Wire(self.port))

    def logged(self, text: str) -> str:
        """The first line of the log that holds this text, once it is there."""
        deadline = time.monotonic() + 5.0
        while time.monotonic() < deadline:
            for line in list(self.lines):
                if text in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"'{text}' is not in {self.lines}")

    def ended(self, seconds: float = 5.0) -> bool:
        self.thread.join(seconds)
        return not self.thread.is_alive()


class Patient:
    """A slab of a small head: its slices as z-scores, and the masks that a local run gives."""

    def __init__(self, engine: Engine) -> None:
        self.images = make_phantom(0, shape=(64, 72, 48)).images[..., 16:32]
        self.z_scores, self.crop = slices_of(self.images, engine.card)
        self.labels = segment(self.images, engine).labels

    def slices(self, hello: BoardHello, codec: int = 2) -> list[Slice]:
        images = quantise(self.z_scores, hello.scale, hello.zero_point)
        return [Slice(i, codec, encode_image(codec, one)) for i, one in enumerate(images)]

    def volume(self, masks: list[Mask]) -> NDArray[np.uint8]:
        """Labels (X, Y, Z) of masks that came back in order."""
        return paste(np.stack(decoded(masks, self.crop.window)), self.crop)


def decoded(masks: list[Mask], window: tuple[int, int]) -> list[NDArray[np.uint8]]:
    """The labels of masks in the order in which they came, the first of a run and those after."""
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


def serve(host: Host, patient: Patient, image: int = 2, mask: int = 3) -> tuple[list[Mask], End]:
    """A whole session by the book, which must succeed."""
    hello = host.join()
    slices = patient.slices(hello, image)
    host.say(HostHello(Mode.SERVE, image, mask), Start(len(slices)), *slices)
    masks, errors, end = host.hear_run()
    assert not errors
    return masks, end


def play(host: Host, mask: int = 3) -> tuple[Volume, list[Mask], End]:
    """A whole playing run, which must succeed, in a session that is open."""
    host.say(HostHello(Mode.PLAY, 0, mask))
    begun = host.hear()
    assert isinstance(begun, Start) and begun.volume is not None
    masks, errors, end = host.hear_run()
    assert (begun.slices, errors) == (len(masks), [])
    return begun.volume, masks, end


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine(shipped("nano") / MODEL)


@pytest.fixture(scope="session")
def patient(engine: Engine) -> Patient:
    made = Patient(engine)
    assert np.count_nonzero(made.labels) > 100
    return made


@pytest.fixture(scope="session")
def lying(patient: Patient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The patient as a case on the board's disk, its axes turned to head, front and right.

    The expert's mask beside it is damaged: playing needs none.
    """
    folder = tmp_path_factory.mktemp("board") / "Someone"
    x, y, z = patient.labels.shape
    space = Space((z, y, x), TURNED, Nifti1Header())
    for name, image in zip(MODALITIES, patient.images, strict=True):
        save(folder / f"Someone_{name}.nii.gz", space.from_lps(image), TURNED)
    (folder / "Someone_seg.nii.gz").write_bytes(b"damaged")
    return folder


@pytest.fixture
def start(engine: Engine) -> Iterator[Callable[..., Running]]:
    """Start a board, the nano model's by default; every board of a test ends with it."""
    boards: list[Running] = []

    def begin(board: Board | None = None, silence: float = 5.0) -> Running:
        nano = board or make_board(engine, shipped("nano") / MODEL)
        boards.append(Running(nano, silence))
        return boards[-1]

    yield begin
    for one in boards:
        one.stop.request()
        assert one.ended()
