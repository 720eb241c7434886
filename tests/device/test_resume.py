"""A host that is lost in the middle of a run and comes back, and a board that does."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device.board import make_board, read_played
from device.engine import Engine
from glioslice.model_card import shipped
from glioslice.wire.messages import Error, ErrorCode, HostHello, Mask, Mode, Start
from tests.device.conftest import MODEL, Host, Patient, Running, digest, play

Begin = Callable[..., Running]
SERVE = HostHello(Mode.SERVE, 2, 3)
KEY = 0x1234567890ABCDEF


class Worked:
    """An engine that counts the slices which it works out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = Engine(shipped("nano") / MODEL)
        self.slices = 0
        invoke = self.engine.invoke

        def counted(prepared: NDArray[Any]) -> NDArray[np.bool_]:
            self.slices += 1
            return invoke(prepared)

        monkeypatch.setattr(self.engine, "invoke", counted)


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Worked]:
    yield Worked(monkeypatch)


def begin_and_kill(board: Running, patient: Patient, heard: int, key: int = KEY) -> None:
    """A host that sends two slices more than it gets answers to, and dies."""
    host = board.host()
    slices = patient.slices(host.join())
    host.say(SERVE, Start(len(slices), key=key), *slices[: heard + 2])
    for index in range(heard):
        assert isinstance(mask := host.hear(), Mask) and mask.index == index
    host.connection.flush(5.0)
    host.kill()


def test_a_host_that_comes_back_gets_what_was_done_and_no_slice_is_done_twice(
    start: Begin, worked: Worked, patient: Patient
) -> None:
    board = start(make_board(worked.engine, shipped("nano") / MODEL))
    begin_and_kill(board, patient, 6)
    host = board.host()
    hello = host.join()
    assert (hello.kept, 6 <= hello.answered <= 8) == (KEY, True)
    slices = patient.slices(hello)
    host.say(HostHello(Mode.SERVE, 2, 1), Start(len(slices), key=KEY), *slices[hello.answered :])
    masks, errors, end = host.hear_run()
    assert (errors, [m.index for m in masks]) == ([], list(range(len(slices))))
    assert {m.codec for m in masks} == {1}  # encoded for whoever asks now
    assert all(m.device_us > 0 for m in masks)
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    assert (end.masks, end.digest) == (len(masks), digest(masks, hello.window))
    assert worked.slices == len(slices)
    assert f"{hello.answered} answers were here already" in board.lines


@pytest.mark.parametrize("key", [0, KEY + 1])
def test_another_run_begins_anew(key: int, start: Begin, worked: Worked, patient: Patient) -> None:
    board = start(make_board(worked.engine, shipped("nano") / MODEL))
    begin_and_kill(board, patient, 3)
    host = board.host()
    slices = patient.slices(host.join())
    before = worked.slices
    host.say(SERVE, Start(len(slices), key=key), *slices)
    masks, _, end = host.hear_run()
    assert end.masks == len(masks) == len(slices) == worked.slices - before


def test_a_run_is_remembered_after_its_end_until_the_host_says_goodbye(
    start: Begin, worked: Worked, patient: Patient
) -> None:
    board = start(make_board(worked.engine, shipped("nano") / MODEL))
    for goodbye in (False, True):
        host = board.host()
        hello = host.join()
        slices = patient.slices(hello)
        assert (hello.kept, hello.answered) == ((KEY, len(slices)) if goodbye else (0, 0))
        host.say(SERVE, Start(len(slices), key=KEY), *slices[hello.answered :])
        masks, _, _ = host.hear_run()
        assert len(masks) == len(slices) == worked.slices
        host.connection.flush(5.0)
        if goodbye:
            host.connection.close()
        else:
            host.kill()
    assert board.host().join().kept == 0


def test_within_a_session_a_run_is_never_taken_for_an_earlier_one(
    start: Begin, worked: Worked, patient: Patient
) -> None:
    host = start(make_board(worked.engine, shipped("nano") / MODEL)).host()
    slices = patient.slices(host.join())[:3]
    for _ in range(2):
        host.say(SERVE, Start(3, key=KEY), *slices)
        assert len(host.hear_run()[0]) == 3
    assert worked.slices == 6


def test_a_board_that_restarted_is_new_and_does_what_is_missing(
    start: Begin, patient: Patient
) -> None:
    first, second = start().host(), start().host()
    old, new = first.join(), second.join()
    assert (old.boot != new.boot, new.kept) == (True, 0)
    slices = patient.slices(new)
    second.say(SERVE, Start(len(slices), first=9, key=KEY), *slices[9:])
    masks, _, end = second.hear_run()
    assert [m.index for m in masks] == list(range(9, len(slices)))
    assert end.masks == len(slices) - 9


def test_a_slice_that_is_not_wanted_is_refused(start: Begin, patient: Patient) -> None:
    host = start().host()
    slices = patient.slices(host.join())[:3]
    host.say(SERVE, Start(3, first=1), *slices)
    masks, [error], _ = host.hear_run()
    assert (error.code, error.index) == (ErrorCode.REFUSED, 0)
    assert [m.index for m in masks] == [1, 2]


def test_a_failure_is_remembered_as_one(start: Begin, worked: Worked, patient: Patient) -> None:
    board = start(make_board(worked.engine, shipped("nano") / MODEL))
    host = board.host()
    slices = patient.slices(host.join())[:4]
    broken = type(slices[1])(1, 2, b"")
    host.say(SERVE, Start(4, key=KEY), slices[0], broken)
    assert isinstance(host.hear(), Mask) and isinstance(host.hear(), Error)
    host.kill()
    host = board.host()
    assert host.join().answered == 2
    host.say(SERVE, Start(4, key=KEY), *slices[2:])
    masks, [error], end = host.hear_run()
    assert ([m.index for m in masks], error.index) == ([0, 2, 3], 1)
    assert (end.masks, end.failed, worked.slices) == (3, 1, 3)


def test_a_played_case_goes_on_for_the_host_that_comes_back(
    start: Begin, worked: Worked, lying: Any, patient: Patient
) -> None:
    engine = worked.engine
    board = start(make_board(engine, shipped("nano") / MODEL, read_played(lying, engine)))
    host = board.host()
    host.join()
    host.say(HostHello(Mode.PLAY, 0, 3))
    assert isinstance(host.hear(), Start)
    for _ in range(3):
        assert isinstance(host.hear(), Mask)
    host.kill()
    again = Host(host._wire.__class__(board.port))
    again.join()
    volume, masks, end = play(again)
    assert [m.index for m in masks] == list(range(volume.z[1] - volume.z[0]))
    assert end.digest == digest(masks, again.hello.window)
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    assert worked.slices == len(masks)
    time.sleep(0.1)
