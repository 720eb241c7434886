"""Masks on their way down: built on each other, empty ones in one message, on any line."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device.board import make_board, read_played
from device.engine import Engine
from device.run import Outbox, Run
from firmware_host.mask_volume import Run as Arrived
from glioslice.model_card import shipped
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
from glioslice.wire.simulator.line import Quality
from glioslice.wire.simulator.virtual_link import VirtualLine
from tests.device.conftest import MODEL, Host, Running, decoded, digest

Begin = Callable[..., Running]
SERVE = HostHello(Mode.SERVE, 2, 3)
KEY = 77
LOGIT = 100


class Drawn:
    """An engine that finds what a test has drawn: `labels` (slices, X, Y), one after the other.

    A slice of which `broken` holds the number fails.
    """

    def __init__(
        self,
        labels: NDArray[np.uint8],
        monkeypatch: pytest.MonkeyPatch,
        broken: tuple[int, ...] = (),
    ) -> None:
        self.engine = Engine(shipped("nano") / MODEL)
        self.gate = threading.Event()
        self.gate.set()
        self._labels, self._broken, self.done = labels, broken, 0
        monkeypatch.setattr(self.engine, "invoke", self.invoke)

    def invoke(self, _prepared: NDArray[Any]) -> NDArray[np.int8]:
        assert self.gate.wait(5.0)
        self.done += 1
        if self.done - 1 in self._broken:
            raise RuntimeError("a slice that fails")
        one = self._labels[self.done - 1]
        regions = np.stack([one > 0, (one & 1) > 0, one > 2], axis=-1)
        return np.where(regions, LOGIT, -LOGIT).astype(np.int8)


def tumours(*sizes: int) -> NDArray[np.uint8]:
    """Slices with a tumour of so many rows each; 0: an empty one."""
    labels = np.zeros((len(sizes), 160, 192), np.uint8)
    for index, size in enumerate(sizes):
        labels[index, 40 : 40 + size, 50 : 50 + 2 * size] = 2
        labels[index, 43 : 40 + size // 2, 55 : 50 + size] = 3
        labels[index, 41 : 40 + size // 3, 51 : 50 + size // 2] = 1
    return labels


SIZES = (0, 0, 0, 12, 15, 20, 0, 22, 21, 0, 0, 0, 9, 0, 0, 0)


def blank(first: int = 0, stop: int = len(SIZES)) -> list[Slice]:
    payload = encode_image(1, np.zeros((160, 192, 4), np.int8))
    return [Slice(i, 1, payload) for i in range(first, stop)]


def runs_of(empties: list[Empty]) -> list[tuple[int, int]]:
    return [(one.index, one.stop) for one in empties]


@pytest.mark.parametrize("codec", [1, 3])
def test_every_mask_comes_back_in_every_codec(
    codec: int, start: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Drawn(tumours(*SIZES), monkeypatch)
    host = start(make_board(drawn.engine, shipped("nano") / MODEL)).host()
    host.join()
    host.say(HostHello(Mode.SERVE, 0, codec), Start(len(SIZES)), *blank())
    masks, errors, end = host.hear_run()
    assert (errors, [m.index for m in masks]) == ([], list(range(len(SIZES))))
    np.testing.assert_array_equal(decoded(masks, host.hello.window), tumours(*SIZES))
    assert end.digest == digest(masks, host.hello.window)
    named = [i for one in host.empties for i, _, _ in one.each()]
    assert named == [i for i, size in enumerate(SIZES) if not size]
    assert end.device_us == sum(m.device_us for m in masks)


@pytest.fixture
def played(
    start: Begin, lying: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Running, Drawn, Host]]:
    """A host that has chosen to be played to, and takes nothing until it is told to."""

    def begin(broken: tuple[int, ...] = ()) -> tuple[Running, Drawn, Host]:
        drawn = Drawn(tumours(*SIZES), monkeypatch, broken)
        engine = drawn.engine
        board = start(make_board(engine, shipped("nano") / MODEL, read_played(lying, engine)))
        drawn.gate.clear()
        host = board.host()
        host.join()
        host.say(HostHello(Mode.PLAY, 0, 3))
        assert isinstance(host.hear(), Start)
        host.connection._lock.acquire()
        return board, drawn, host

    return begin


def wait_for(drawn: Drawn, slices: int) -> None:
    deadline = time.monotonic() + 5.0
    while drawn.done < slices and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)


def test_empty_masks_share_a_message_while_the_line_is_busy(
    played: Callable[..., tuple[Running, Drawn, Host]],
) -> None:
    board, drawn, host = played()
    board.connection.send(Error(ErrorCode.REFUSED, -1, "something in flight").to_bytes())
    drawn.gate.set()
    board.logged("run ended")
    host.connection._lock.release()
    assert isinstance(host.hear(), Error)
    masks, errors, end = host.hear_run()
    assert runs_of(host.empties) == [(0, 3), (6, 7), (9, 12), (13, 16)]
    assert ([m.index for m in masks], errors) == (list(range(len(SIZES))), [])
    np.testing.assert_array_equal(decoded(masks, host.hello.window), tumours(*SIZES))
    assert (end.masks, end.digest) == (len(SIZES), digest(masks, host.hello.window))
    assert end.device_us == sum(m.device_us for m in masks)


def test_empty_masks_leave_before_an_error_and_in_order(
    played: Callable[..., tuple[Running, Drawn, Host]],
) -> None:
    board, drawn, host = played((1, 10, 15))
    board.connection.send(Error(ErrorCode.REFUSED, -1, "something in flight").to_bytes())
    drawn.gate.set()
    board.logged("run ended")
    host.connection._lock.release()
    assert isinstance(host.hear(), Error)
    heard = []
    while not isinstance(message := host.hear(), End):
        assert isinstance(message, Mask | Error)
        heard.append(message.index)
    assert heard == list(range(len(SIZES)))
    assert runs_of(host.empties) == [(0, 1), (2, 3), (6, 7), (9, 10), (11, 12), (13, 15)]
    assert (message.masks, message.failed) == (len(SIZES) - 3, 3)


def test_empty_masks_leave_before_a_board_that_is_told_to_stop(
    played: Callable[..., tuple[Running, Drawn, Host]],
) -> None:
    board, drawn, host = played()
    board.connection.send(Error(ErrorCode.REFUSED, -1, "something in flight").to_bytes())
    board.stop.request()
    drawn.gate.set()
    board.logged("run ended")
    host.connection._lock.release()
    assert isinstance(host.hear(), Error)
    masks, [error], end = host.hear_run()
    assert ([m.index for m in masks], error.code) == ([0], ErrorCode.STOPPED)
    assert (end.masks, end.digest) == (1, digest(masks, host.hello.window))


def test_an_empty_mask_leaves_at_once_when_nothing_is_on_its_way(
    played: Callable[..., tuple[Running, Drawn, Host]],
) -> None:
    _, drawn, host = played()
    host.connection._lock.release()
    time.sleep(0.2)
    drawn.gate.set()
    assert isinstance(mask := host.hear(), Mask) and mask.index == 0
    assert host.empties[0].index == 0
    host.hear_run()


def test_a_board_that_waits_for_a_slice_keeps_no_mask_back(
    start: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Drawn(tumours(*SIZES), monkeypatch)
    host = start(make_board(drawn.engine, shipped("nano") / MODEL)).host()
    host.join()
    host.say(SERVE, Start(len(SIZES)))
    for one in blank():
        host.say(one)
        assert isinstance(mask := host.hear(), Mask) and mask.index == one.index
    assert isinstance(host.hear(), End)
    assert runs_of(host.empties) == [(i, i + 1) for i, size in enumerate(SIZES) if not size]


@pytest.mark.parametrize("first", [0, 2, 5])
@pytest.mark.parametrize("codecs", [(3, 3), (3, 1), (1, 3)])
def test_what_a_board_remembers_comes_back_exactly(
    codecs: tuple[int, int], first: int, start: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts die, the third gets all; a slice failed in between."""
    drawn = Drawn(tumours(*SIZES), monkeypatch, broken=(4,))
    board = start(make_board(drawn.engine, shipped("nano") / MODEL))
    host = board.host()
    host.join()
    host.say(HostHello(Mode.SERVE, 0, codecs[0]), Start(len(SIZES), key=KEY), *blank(0, 9))
    for index in range(9):
        assert getattr(host.hear(), "index", None) == index
    host.kill()
    host = board.host()
    assert host.join().answered == 9
    host.say(HostHello(Mode.SERVE, 0, codecs[1]), Start(len(SIZES), first=first, key=KEY))
    assert getattr(host.hear(), "index", None) == first
    host.kill()
    host = board.host()
    assert host.join().answered == 9
    choice = HostHello(Mode.SERVE, 0, codecs[0])
    host.say(choice, Start(len(SIZES), first=first, key=KEY), *blank(9))
    masks, errors, end = host.hear_run()
    assert [e.index for e in errors] == [i for i in (4,) if i >= first]
    wanted = [i for i in range(first, len(SIZES)) if i != 4]
    assert [m.index for m in masks] == wanted
    np.testing.assert_array_equal(decoded(masks, host.hello.window), tumours(*SIZES)[wanted])
    assert (end.masks, end.digest) == (len(masks), digest(masks, host.hello.window))
    assert (end.failed, drawn.done) == (len(errors), len(SIZES))


def test_the_first_mask_of_every_run_stands_alone(
    start: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Drawn(tumours(20, 21, 22, 20, 21, 22), monkeypatch)
    host = start(make_board(drawn.engine, shipped("nano") / MODEL)).host()
    window = host.join().window
    host.say(SERVE)
    payloads = []
    for _ in range(2):
        host.say(Start(3), *blank(0, 3))
        masks, _, _ = host.hear_run()
        payloads.append([m.payload for m in masks])
        decode_mask(3, masks[0].payload, window)
    assert payloads[0] == payloads[1]


def test_slices_out_of_turn_are_remembered_too(
    start: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, sizes = (0, 3, 2, 1), (12, 15, 18, 21)
    drawn = Drawn(tumours(*(sizes[i] for i in order)), monkeypatch)
    board = start(make_board(drawn.engine, shipped("nano") / MODEL))
    host = board.host()
    host.join()
    slices = blank(0, 4)
    host.say(SERVE, Start(5, key=KEY), *(slices[i] for i in order))
    for index in order:
        assert getattr(host.hear(), "index", None) == index
    host.kill()
    host = board.host()
    assert host.join().answered == 4
    host.say(SERVE, Start(4, key=KEY))
    masks, _, end = host.hear_run()
    np.testing.assert_array_equal(decoded(masks, host.hello.window), tumours(*sizes))
    assert end.digest == digest(masks, host.hello.window)


def test_a_mask_is_encoded_once(start: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []

    def counted(number: int, *masks: Any) -> bytes:
        encoded.append(number)
        return encode_mask(number, *masks)

    monkeypatch.setattr("device.run.encode_mask", counted)
    drawn = Drawn(tumours(*SIZES), monkeypatch)
    host = start(make_board(drawn.engine, shipped("nano") / MODEL)).host()
    host.join()
    host.say(SERVE, Start(len(SIZES)), *blank())
    host.hear_run()
    assert encoded == [3] * sum(size > 0 for size in SIZES)


@pytest.mark.parametrize("pace", [0.0, 0.01])
@pytest.mark.parametrize("seed", range(3))
def test_every_mask_comes_back_over_a_damaged_line(
    seed: int, pace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In virtual time, at 115200 baud: bits flip, blocks vanish, segments come twice and late."""
    labels = tumours(*SIZES * 4)
    drawn = Drawn(labels, monkeypatch)
    run = Run(drawn.engine, len(labels), 3)
    board = Link(active=False, session=2)
    quality = Quality(errors=3e-4, loss=0.1, latency=0.016, seed=seed)
    line = VirtualLine(Link(active=True, session=1), board, quality)
    outbox = Outbox(board.sender)
    prepared = np.zeros((160, 192, 4), np.int8)
    for index in range(len(labels)):
        outbox.send(run.mask(index, prepared, time.perf_counter_ns()))
        line.run(lambda: False, pace)
    board.sender.send(run.end().to_bytes())
    assert line.run(lambda: not board.sender.queued, 60.0)
    assert board.counts.retransmits
    crop = Crop((160, 192, len(labels)), (0, 0), (0, len(labels)), (160, 192))
    arrived = Arrived(Mode.SERVE, "webp", crop)
    for data in line.host.received:
        message = parse(data)
        if isinstance(message, End):
            arrived.end(message)
        else:
            assert isinstance(message, Mask | Empty)
            arrived.take(message)
    assert arrived.complete
    np.testing.assert_array_equal([arrived.mask(i) for i in range(len(labels))], labels)
