"""Masks on their way to the host: encoded as differences, empty ones in shared messages."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device.board import load_played_case, make_board
from device.engine import Engine
from device.run import ResultSender, SegmentationRun
from firmware_host.mask_volume import MaskVolume
from glioslice.model_card import shipped_folder
from glioslice.preprocessing import Crop
from glioslice.wire.codecs import decode_mask, encode_image, encode_mask
from glioslice.wire.link import Link
from glioslice.wire.messages import (
    Empty,
    End,
    Error,
    ErrorCode,
    HostHello,
    Mask,
    Mode,
    Slice,
    Start,
    parse,
)
from glioslice.wire.simulator.line import LineQuality
from glioslice.wire.simulator.virtual_link import VirtualLine
from tests.device.conftest import MODEL, PATIENCE, BoardThread, Host, StartBoard, decoded, digest

SERVE = HostHello(Mode.SERVE, 2, 3)
KEY = 77
LOGIT = 100


class ScriptedEngine:
    """An engine that returns the masks of a test: `labels` (slices, X, Y), one after the other.

    The slices whose numbers are in `broken` fail.
    """

    def __init__(
        self,
        labels: NDArray[np.uint8],
        monkeypatch: pytest.MonkeyPatch,
        broken: tuple[int, ...] = (),
    ) -> None:
        self.engine = Engine(shipped_folder("nano") / MODEL)
        self.gate = threading.Event()
        self.gate.set()
        self._labels, self._broken, self.done = labels, broken, 0
        monkeypatch.setattr(self.engine, "logits", self.invoke)

    def invoke(self, _prepared: NDArray[Any]) -> NDArray[np.int8]:
        assert self.gate.wait(PATIENCE)
        self.done += 1
        if self.done - 1 in self._broken:
            raise RuntimeError("a slice that fails")
        one = self._labels[self.done - 1]
        regions = np.stack([one > 0, (one & 1) > 0, one > 2], axis=-1)
        return np.where(regions, LOGIT, -LOGIT).astype(np.int8)


def tumours(*sizes: int) -> NDArray[np.uint8]:
    """Slices with a tumour of the given number of rows each; 0: an empty mask."""
    labels = np.zeros((len(sizes), 160, 192), np.uint8)
    for index, size in enumerate(sizes):
        labels[index, 40 : 40 + size, 50 : 50 + 2 * size] = 2
        labels[index, 43 : 40 + size // 2, 55 : 50 + size] = 3
        labels[index, 41 : 40 + size // 3, 51 : 50 + size // 2] = 1
    return labels


SIZES = (0, 0, 0, 12, 15, 20, 0, 22, 21, 0, 0, 0, 9, 0, 0, 0)


def blank_slices(first: int = 0, stop: int = len(SIZES)) -> list[Slice]:
    payload = encode_image(1, np.zeros((160, 192, 4), np.int8))
    return [Slice(i, 1, payload) for i in range(first, stop)]


def runs_of(empties: list[Empty]) -> list[tuple[int, int]]:
    return [(one.index, one.stop) for one in empties]


@pytest.mark.parametrize("codec", [1, 3])
def test_every_codec_returns_every_mask(
    codec: int, start: StartBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = ScriptedEngine(tumours(*SIZES), monkeypatch)
    host = start(make_board(scripted.engine, shipped_folder("nano") / MODEL)).host()
    host.connect()
    host.send(HostHello(Mode.SERVE, 0, codec), Start(len(SIZES)), *blank_slices())
    masks, errors, end = host.receive_run()
    assert (errors, [m.index for m in masks]) == ([], list(range(len(SIZES))))
    np.testing.assert_array_equal(decoded(masks, host.hello.window), tumours(*SIZES))
    assert end.digest == digest(masks, host.hello.window)
    named = [i for one in host.empties for i, _, _ in one.per_slice()]
    assert named == [i for i, size in enumerate(SIZES) if not size]
    assert end.device_us == sum(m.device_us for m in masks)


@pytest.fixture
def played(
    start: StartBoard, stored_case: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[BoardThread, ScriptedEngine, Host]]:
    """A host that chose to play, and accepts nothing until its lock is released."""

    def begin(broken: tuple[int, ...] = ()) -> tuple[BoardThread, ScriptedEngine, Host]:
        scripted = ScriptedEngine(tumours(*SIZES), monkeypatch, broken)
        engine = scripted.engine
        board = start(
            make_board(
                engine, shipped_folder("nano") / MODEL, load_played_case(stored_case, engine)
            )
        )
        scripted.gate.clear()
        host = board.host()
        host.connect()
        host.send(HostHello(Mode.PLAY, 0, 3))
        assert isinstance(host.receive(), Start)
        host.connection._lock.acquire()
        return board, scripted, host

    return begin


@pytest.mark.slow
def test_empty_masks_share_a_message_while_the_link_is_busy(
    played: Callable[..., tuple[BoardThread, ScriptedEngine, Host]],
) -> None:
    board, scripted, host = played()
    board.connection.send(Error(ErrorCode.REFUSED, -1, "something in flight").to_bytes())
    scripted.gate.set()
    board.logged("run ended")
    host.connection._lock.release()
    assert isinstance(host.receive(), Error)
    masks, errors, end = host.receive_run()
    assert runs_of(host.empties) == [(0, 3), (6, 7), (9, 12), (13, 16)]
    assert ([m.index for m in masks], errors) == (list(range(len(SIZES))), [])
    np.testing.assert_array_equal(decoded(masks, host.hello.window), tumours(*SIZES))
    assert (end.masks, end.digest) == (len(SIZES), digest(masks, host.hello.window))
    assert end.device_us == sum(m.device_us for m in masks)


def test_empty_masks_leave_before_an_error_and_in_order(
    played: Callable[..., tuple[BoardThread, ScriptedEngine, Host]],
) -> None:
    board, scripted, host = played((1, 10, 15))
    board.connection.send(Error(ErrorCode.REFUSED, -1, "something in flight").to_bytes())
    scripted.gate.set()
    board.logged("run ended")
    host.connection._lock.release()
    assert isinstance(host.receive(), Error)
    indices = []
    while not isinstance(message := host.receive(), End):
        assert isinstance(message, Mask | Error)
        indices.append(message.index)
    assert indices == list(range(len(SIZES)))
    assert runs_of(host.empties) == [(0, 1), (2, 3), (6, 7), (9, 10), (11, 12), (13, 15)]
    assert (message.masks, message.failed) == (len(SIZES) - 3, 3)


def test_empty_masks_leave_before_a_stopping_board_ends(
    played: Callable[..., tuple[BoardThread, ScriptedEngine, Host]],
) -> None:
    board, scripted, host = played()
    board.connection.send(Error(ErrorCode.REFUSED, -1, "something in flight").to_bytes())
    board.stop.request()
    scripted.gate.set()
    board.logged("run ended")
    host.connection._lock.release()
    assert isinstance(host.receive(), Error)
    masks, [error], end = host.receive_run()
    assert ([m.index for m in masks], error.code) == ([0], ErrorCode.STOPPED)
    assert (end.masks, end.digest) == (1, digest(masks, host.hello.window))


def test_an_idle_link_carries_an_empty_mask_at_once(
    played: Callable[..., tuple[BoardThread, ScriptedEngine, Host]],
) -> None:
    _, scripted, host = played()
    host.connection._lock.release()
    time.sleep(0.2)
    scripted.gate.set()
    assert isinstance(mask := host.receive(), Mask) and mask.index == 0
    assert host.empties[0].index == 0
    host.receive_run()


def test_a_board_that_waits_for_a_slice_defers_no_mask(
    start: StartBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = ScriptedEngine(tumours(*SIZES), monkeypatch)
    host = start(make_board(scripted.engine, shipped_folder("nano") / MODEL)).host()
    host.connect()
    host.send(SERVE, Start(len(SIZES)))
    for one in blank_slices():
        host.send(one)
        assert isinstance(mask := host.receive(), Mask) and mask.index == one.index
    assert isinstance(host.receive(), End)
    assert runs_of(host.empties) == [(i, i + 1) for i, size in enumerate(SIZES) if not size]


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 2, 5])
@pytest.mark.parametrize("codecs", [(3, 3), (3, 1), (1, 3)])
def test_recalled_masks_are_exact(
    codecs: tuple[int, int], first: int, start: StartBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts die and the third gets everything; one slice failed."""
    scripted = ScriptedEngine(tumours(*SIZES), monkeypatch, broken=(4,))
    board = start(make_board(scripted.engine, shipped_folder("nano") / MODEL))
    host = board.host()
    host.connect()
    host.send(HostHello(Mode.SERVE, 0, codecs[0]), Start(len(SIZES), key=KEY), *blank_slices(0, 9))
    for index in range(9):
        assert getattr(host.receive(), "index", None) == index
    host.kill()
    host = board.host()
    assert host.connect().answered == 9
    host.send(HostHello(Mode.SERVE, 0, codecs[1]), Start(len(SIZES), first=first, key=KEY))
    assert getattr(host.receive(), "index", None) == first
    host.kill()
    host = board.host()
    assert host.connect().answered == 9
    choice = HostHello(Mode.SERVE, 0, codecs[0])
    host.send(choice, Start(len(SIZES), first=first, key=KEY), *blank_slices(9))
    masks, errors, end = host.receive_run()
    assert [e.index for e in errors] == [i for i in (4,) if i >= first]
    wanted = [i for i in range(first, len(SIZES)) if i != 4]
    assert [m.index for m in masks] == wanted
    np.testing.assert_array_equal(decoded(masks, host.hello.window), tumours(*SIZES)[wanted])
    assert (end.masks, end.digest) == (len(masks), digest(masks, host.hello.window))
    assert (end.failed, scripted.done) == (len(errors), len(SIZES))


def test_the_first_mask_of_a_run_needs_no_previous_mask(
    start: StartBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = ScriptedEngine(tumours(20, 21, 22, 20, 21, 22), monkeypatch)
    host = start(make_board(scripted.engine, shipped_folder("nano") / MODEL)).host()
    window = host.connect().window
    host.send(SERVE)
    payloads = []
    for _ in range(2):
        host.send(Start(3), *blank_slices(0, 3))
        masks, _, _ = host.receive_run()
        payloads.append([m.payload for m in masks])
        decode_mask(3, masks[0].payload, window)
    assert payloads[0] == payloads[1]


def test_slices_out_of_order_are_remembered(
    start: StartBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, sizes = (0, 3, 2, 1), (12, 15, 18, 21)
    scripted = ScriptedEngine(tumours(*(sizes[i] for i in order)), monkeypatch)
    board = start(make_board(scripted.engine, shipped_folder("nano") / MODEL))
    host = board.host()
    host.connect()
    slices = blank_slices(0, 4)
    host.send(SERVE, Start(5, key=KEY), *(slices[i] for i in order))
    for index in order:
        assert getattr(host.receive(), "index", None) == index
    host.kill()
    host = board.host()
    assert host.connect().answered == 4
    host.send(SERVE, Start(4, key=KEY))
    masks, _, end = host.receive_run()
    np.testing.assert_array_equal(decoded(masks, host.hello.window), tumours(*sizes))
    assert end.digest == digest(masks, host.hello.window)


def test_a_mask_is_encoded_once(start: StartBoard, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []

    def counted(number: int, *masks: Any) -> bytes:
        encoded.append(number)
        return encode_mask(number, *masks)

    monkeypatch.setattr("device.run.encode_mask", counted)
    scripted = ScriptedEngine(tumours(*SIZES), monkeypatch)
    host = start(make_board(scripted.engine, shipped_folder("nano") / MODEL)).host()
    host.connect()
    host.send(SERVE, Start(len(SIZES)), *blank_slices())
    host.receive_run()
    assert encoded == [3] * sum(size > 0 for size in SIZES)


@pytest.mark.parametrize("pace", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(3))
def test_every_mask_arrives_over_a_damaged_link(
    seed: int, pace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In virtual time, at 115200 baud: flipped bits, lost blocks, duplicate and late segments."""
    labels = tumours(*SIZES * 4)
    scripted = ScriptedEngine(labels, monkeypatch)
    board = make_board(scripted.engine, shipped_folder("nano") / MODEL)
    run = SegmentationRun(board, Start(len(labels)), 3)
    link = Link(active=False, session=2)
    quality = LineQuality(errors=3e-4, loss=0.1, latency=0.016, seed=seed)
    line = VirtualLine(Link(active=True, session=1), link, quality)
    results = ResultSender(link.sender)
    prepared = np.zeros((160, 192, 4), np.int8)
    for index in range(len(labels)):
        results.send(run.segment_slice(index, prepared, time.perf_counter_ns()))
        line.run(lambda: False, pace)
    link.sender.send(run.end().to_bytes())
    assert line.run(lambda: not link.sender.unacknowledged, 60.0)
    assert link.counts.retransmits
    crop = Crop((160, 192, len(labels)), (0, 0), (0, len(labels)), (160, 192))
    arrived = MaskVolume(Mode.SERVE, "webp", crop)
    for data in line.host.received:
        message = parse(data)
        if isinstance(message, End):
            arrived.finish(message)
        else:
            assert isinstance(message, Mask | Empty)
            arrived.add(message)
    assert arrived.complete
    np.testing.assert_array_equal([arrived.mask(i) for i in range(len(labels))], labels)
