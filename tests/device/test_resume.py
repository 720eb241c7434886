"""Resuming a run after the host or the board restarted."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device.board import load_played_case, make_board
from device.engine import Engine
from glioslice.model_card import shipped_folder
from glioslice.wire.messages import Error, ErrorCode, HostHello, Mask, Mode, Start
from tests.device.conftest import MODEL, PATIENCE, BoardThread, Host, Slab, StartBoard, digest, play

SERVE = HostHello(Mode.SERVE, 2, 3)
KEY = 0x1234567890ABCDEF


class CountingEngine:
    """An engine that counts the slices that it computes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = Engine(shipped_folder("nano") / MODEL)
        self.slices = 0
        logits = self.engine.logits

        def counted(prepared: NDArray[Any]) -> NDArray[np.bool_]:
            self.slices += 1
            return logits(prepared)

        monkeypatch.setattr(self.engine, "logits", counted)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingEngine]:
    yield CountingEngine(monkeypatch)


def begin_and_kill(board: BoardThread, patient: Slab, received: int, key: int = KEY) -> None:
    """Let a host receive some masks, send two more slices, and die."""
    host = board.host()
    slices = patient.slices(host.connect())
    host.send(SERVE, Start(len(slices), key=key), *slices[: received + 2])
    for index in range(received):
        assert isinstance(mask := host.receive(), Mask) and mask.index == index
    host.connection.flush(PATIENCE)
    host.kill()


def test_a_returning_host_gets_the_results_and_no_slice_is_computed_twice(
    start: StartBoard, counting: CountingEngine, patient: Slab
) -> None:
    board = start(make_board(counting.engine, shipped_folder("nano") / MODEL))
    begin_and_kill(board, patient, 6)
    host = board.host()
    hello = host.connect()
    assert (hello.kept, 6 <= hello.answered <= 8) == (KEY, True)
    slices = patient.slices(hello)
    host.send(HostHello(Mode.SERVE, 2, 1), Start(len(slices), key=KEY), *slices[hello.answered :])
    masks, errors, end = host.receive_run()
    assert (errors, [m.index for m in masks]) == ([], list(range(len(slices))))
    assert {m.codec for m in masks} == {1}  # encoded for the host of now
    assert all(m.device_us > 0 for m in masks)
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    assert (end.masks, end.digest) == (len(masks), digest(masks, hello.window))
    assert counting.slices == len(slices)
    assert board.logged(f"{hello.answered} results recalled")


@pytest.mark.parametrize("key", [0, KEY + 1])
def test_another_key_starts_a_new_run(
    key: int, start: StartBoard, counting: CountingEngine, patient: Slab
) -> None:
    board = start(make_board(counting.engine, shipped_folder("nano") / MODEL))
    begin_and_kill(board, patient, 3)
    host = board.host()
    slices = patient.slices(host.connect())
    before = counting.slices
    host.send(SERVE, Start(len(slices), key=key), *slices)
    masks, _, end = host.receive_run()
    assert end.masks == len(masks) == len(slices) == counting.slices - before


@pytest.mark.slow
def test_an_ended_run_is_remembered_until_the_host_closes_the_session(
    start: StartBoard, counting: CountingEngine, patient: Slab
) -> None:
    board = start(make_board(counting.engine, shipped_folder("nano") / MODEL))
    for closes in (False, True):
        host = board.host()
        hello = host.connect()
        slices = patient.slices(hello)
        assert (hello.kept, hello.answered) == ((KEY, len(slices)) if closes else (0, 0))
        host.send(SERVE, Start(len(slices), key=KEY), *slices[hello.answered :])
        masks, _, _ = host.receive_run()
        assert len(masks) == len(slices) == counting.slices
        host.connection.flush(PATIENCE)
        if closes:
            host.connection.close()
        else:
            host.kill()
    assert board.host().connect().kept == 0


def test_a_shorter_run_of_the_same_key_gets_no_more_than_it_has(
    start: StartBoard, counting: CountingEngine, patient: Slab
) -> None:
    """No host makes such a key: it covers the number of slices."""
    board = start(make_board(counting.engine, shipped_folder("nano") / MODEL))
    begin_and_kill(board, patient, 6)
    host = board.host()
    host.connect()
    host.send(SERVE, Start(4, key=KEY))
    masks, errors, end = host.receive_run()
    assert (errors, [m.index for m in masks]) == ([], [0, 1, 2, 3])
    assert (end.masks, end.digest) == (4, digest(masks, host.hello.window))


def test_a_run_is_not_resumed_within_its_session(
    start: StartBoard, counting: CountingEngine, patient: Slab
) -> None:
    host = start(make_board(counting.engine, shipped_folder("nano") / MODEL)).host()
    slices = patient.slices(host.connect())[:3]
    for _ in range(2):
        host.send(SERVE, Start(3, key=KEY), *slices)
        assert len(host.receive_run()[0]) == 3
    assert counting.slices == 6


def test_a_restarted_board_computes_what_is_missing(start: StartBoard, patient: Slab) -> None:
    first, second = start().host(), start().host()
    old, new = first.connect(), second.connect()
    assert (old.boot != new.boot, new.kept) == (True, 0)
    slices = patient.slices(new)
    second.send(SERVE, Start(len(slices), first=9, key=KEY), *slices[9:])
    masks, _, end = second.receive_run()
    assert [m.index for m in masks] == list(range(9, len(slices)))
    assert end.masks == len(slices) - 9


def test_a_slice_before_the_first_is_refused(start: StartBoard, patient: Slab) -> None:
    host = start().host()
    slices = patient.slices(host.connect())[:3]
    host.send(SERVE, Start(3, first=1), *slices)
    masks, [error], _ = host.receive_run()
    assert (error.code, error.index) == (ErrorCode.REFUSED, 0)
    assert [m.index for m in masks] == [1, 2]


def test_a_failed_slice_is_remembered(
    start: StartBoard, counting: CountingEngine, patient: Slab
) -> None:
    board = start(make_board(counting.engine, shipped_folder("nano") / MODEL))
    host = board.host()
    slices = patient.slices(host.connect())[:4]
    broken = type(slices[1])(1, 2, b"")
    host.send(SERVE, Start(4, key=KEY), slices[0], broken)
    assert isinstance(host.receive(), Mask) and isinstance(host.receive(), Error)
    host.kill()
    host = board.host()
    assert host.connect().answered == 2
    host.send(SERVE, Start(4, key=KEY), *slices[2:])
    masks, [error], end = host.receive_run()
    assert ([m.index for m in masks], error.index) == ([0, 2, 3], 1)
    assert (end.masks, end.failed, counting.slices) == (3, 1, 3)


def test_a_played_case_is_resumed_for_a_returning_host(
    start: StartBoard, counting: CountingEngine, stored_case: Any, patient: Slab
) -> None:
    engine = counting.engine
    board = start(
        make_board(engine, shipped_folder("nano") / MODEL, load_played_case(stored_case, engine))
    )
    host = board.host()
    host.connect()
    host.send(HostHello(Mode.PLAY, 0, 3))
    assert isinstance(host.receive(), Start)
    for _ in range(3):
        assert isinstance(host.receive(), Mask)
    host.kill()
    again = Host(host._port.__class__(board.port))
    again.connect()
    volume, masks, end = play(again)
    assert [m.index for m in masks] == list(range(volume.z[1] - volume.z[0]))
    assert end.digest == digest(masks, again.hello.window)
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    assert counting.slices == len(masks)
