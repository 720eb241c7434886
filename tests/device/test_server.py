"""The board's side of a session, over a line in memory."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device.board import make_board, read_played
from device.engine import Engine
from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.labels import to_labels
from glioslice.model_card import Card, shipped
from glioslice.preprocessing import Crop, paste, quantise
from glioslice.wire.codecs import IMAGES, MASKS, RUNS, encode_image, offered
from glioslice.wire.connection import PeerClosed
from glioslice.wire.messages import (
    VERSION,
    End,
    ErrorCode,
    HostHello,
    Mask,
    Message,
    Mode,
    Slice,
    Start,
)
from tests.device.conftest import (
    MODEL,
    TURNED,
    Host,
    Patient,
    Running,
    decoded,
    digest,
    play,
    serve,
)

Begin = Callable[..., Running]
SERVE, PLAY = HostHello(Mode.SERVE, 2, 3), HostHello(Mode.PLAY, 0, 3)


def test_the_hello_says_what_the_board_is(start: Begin, engine: Engine) -> None:
    hello = start().host().join()
    assert hello.modes == {Mode.SERVE}
    assert (hello.window, hello.clip) == ((160, 192), 5.0)
    assert (hello.scale, hello.zero_point) == (engine.input.scale, engine.input.zero_point)
    assert hello.sha256 == sha256(shipped("nano") / MODEL)
    assert (hello.model, hello.modalities) == ("nano", MODALITIES)
    assert (hello.image_codecs, hello.mask_codecs) == (offered(IMAGES), offered(MASKS))
    assert hello.mask_codecs == 0b1010


@pytest.mark.parametrize(("image", "mask"), [(0, 1), (1, 3), (2, 1), (2, 3)])
def test_served_masks_are_those_of_a_local_run(
    image: int, mask: int, start: Begin, patient: Patient
) -> None:
    board = start()
    masks, end = serve(board.host(), patient, image, mask)
    assert [m.index for m in masks] == list(range(len(patient.z_scores)))
    assert {m.codec for m in masks} == {mask}
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    assert (end.masks, end.failed) == (len(masks), 0)
    assert end.device_us == sum(m.device_us for m in masks) > 0
    assert end.digest == digest(masks, patient.crop.window)
    assert board.lines[:2] == ["session opened", f"serve: run of {len(masks)} slices"]


def test_a_float_network_gets_the_steps_of_the_hello(start: Begin, patient: Patient) -> None:
    engine = Engine(shipped("nano") / "nano-fp16.tflite")
    host = start(make_board(engine, shipped("nano") / "nano-fp16.tflite")).host()
    hello = host.join()
    assert hello.scale == pytest.approx(10 / 255)
    slices = patient.slices(hello)
    host.say(SERVE, Start(len(slices)), *slices)
    masks, _, _ = host.hear_run()
    for z, labels in zip(patient.z_scores, decoded(masks, hello.window), strict=True):
        steps = quantise(z, hello.scale, 0).astype(np.float32) * np.float32(hello.scale)
        expected = to_labels(engine.regions(engine.invoke(steps)))
        np.testing.assert_array_equal(labels, expected)


DAMAGED = {
    "cut short": lambda s: replace(s, payload=s.payload[:-9]),
    "empty": lambda s: replace(s, payload=b""),
    "no such codec": lambda s: replace(s, codec=9),
    "another shape": lambda s: Slice(s.index, 1, encode_image(1, np.zeros((9, 9, 4), np.int8))),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_slice_is_answered_and_the_rest_still_come(
    damage: Callable[[Slice], Slice], start: Begin, patient: Patient
) -> None:
    board = start()
    host = board.host()
    slices = patient.slices(host.join())[:8]
    host.say(SERVE, Start(8), *slices[:3], damage(slices[3]), *slices[4:])
    masks, [error], end = host.hear_run()
    assert (error.code, error.index) == (ErrorCode.SLICE, 3)
    assert [m.index for m in masks] == [0, 1, 2, 4, 5, 6, 7]
    assert (end.masks, end.failed) == (7, 1)
    assert end.digest == digest(masks, patient.crop.window)
    assert board.logged("1 failed; slice 3 was the first: CodecError")


def test_a_network_that_fails_says_so_without_the_reason(
    start: Begin, patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(shipped("nano") / MODEL)
    invoke, calls = engine.invoke, iter(range(100))

    def fail(prepared: NDArray[Any]) -> NDArray[np.bool_]:
        if next(calls) == 1:
            raise RuntimeError("/home/someone/delegate.so")
        return invoke(prepared)

    monkeypatch.setattr(engine, "invoke", fail)
    board = start(make_board(engine, shipped("nano") / MODEL))
    host = board.host()
    slices = patient.slices(host.join())[:3]
    host.say(SERVE, Start(3), *slices)
    masks, [error], end = host.hear_run()
    assert (error.code, error.index) == (ErrorCode.ENGINE, 1)
    assert "someone" not in error.text
    assert board.logged("someone")
    assert [m.index for m in masks] == [0, 2]
    assert (end.masks, end.failed) == (2, 1)


def test_one_session_holds_many_runs(start: Begin, patient: Patient) -> None:
    host = start().host()
    first, end = serve(host, patient)
    for choice in ([], [HostHello(Mode.SERVE, 0, 1)]):  # the codecs may be chosen anew
        host.say(*choice, Start(len(first)), *patient.slices(host.hello))
        masks, _, again = host.hear_run()
        assert (again.masks, again.digest) == (end.masks, end.digest)
    assert {m.codec for m in masks} == {1}


def closes(board: Running, host: Host) -> Host:
    host.connection.close()
    return board.host()


def restarts(board: Running, host: Host) -> Host:
    host.connection.open(5.0)  # as a new process would: another session on the same line
    assert host.hear() == host.hello
    host.connection.close()
    return board.host()


def falls_silent(board: Running, host: Host) -> Host:
    host.kill()
    deadline = time.monotonic() + 5.0
    while "session ended" not in board.lines[-1] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "nothing heard" in board.lines[-1]
    return board.host()


@pytest.mark.parametrize("goes", [closes, restarts, falls_silent])
@pytest.mark.parametrize("after", [0, 5])
def test_a_host_that_is_gone_leaves_the_board_to_the_next(
    after: int, goes: Callable[[Running, Host], Host], start: Begin, patient: Patient
) -> None:
    board = start(silence=1.2)
    host = board.host()
    slices = patient.slices(host.join())
    host.say(SERVE, Start(len(slices)), *slices[:after])
    for index in range(after):
        assert isinstance(mask := host.hear(), Mask) and mask.index == index
    masks, end = serve(goes(board, host), patient)
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    assert end.masks == len(masks)  # nothing of the run before is counted


REFUSED = {
    "play": (HostHello(Mode.PLAY, 2, 3), "no case lies on this board"),
    "image codec": (HostHello(Mode.SERVE, 7, 3), "image codec 7"),
    "mask codec": (HostHello(Mode.SERVE, 2, 7), "mask codec 7"),
    "a reserved mask codec": (HostHello(Mode.SERVE, 2, 2), "mask codec 2"),
    "a Start without a choice": (Start(3), "out of turn"),
    "a Slice without a run": (Slice(4, 0, b""), "no slice of this index"),
    "a message of the board": (End(0, 0, 0, "0" * 64), "out of turn"),
}


@pytest.mark.parametrize(("message", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_changes_nothing(
    message: Message, text: str, start: Begin, patient: Patient
) -> None:
    host = start().host()
    slices = patient.slices(host.join())[:2]
    host.say(message, SERVE, Start(2), *slices)
    [mask, other], [error], _ = host.hear_run()
    assert error.code is ErrorCode.REFUSED
    assert text in error.text
    assert error.index == (4 if isinstance(message, Slice) else -1)
    assert (mask.index, other.index) == (0, 1)


def test_a_run_goes_on_past_what_does_not_belong_to_it(start: Begin, patient: Patient) -> None:
    host = start().host()
    one, two = patient.slices(host.join())[:2]
    host.say(SERVE, Start(2), one)
    for stray in (Start(5), SERVE, one, replace(two, index=2), replace(two, index=60000)):
        host.say(stray)
    host.connection.send(b"\x2a who are you")
    host.connection.send(b"\x02\x09")  # a HostHello of version 9
    host.say(two)
    masks, errors, end = host.hear_run()
    assert [m.index for m in masks] == [0, 1]
    assert {e.code for e in errors} == {ErrorCode.REFUSED}
    assert [e.index for e in errors] == [-1, -1, 0, 2, -1, -1, -1]
    assert "same version" in errors[-2].text and f"speaks version {VERSION}" in errors[-1].text
    assert (end.masks, end.failed) == (2, 0)


def test_a_case_is_played_to_every_host(
    start: Begin, engine: Engine, patient: Patient, lying: Path
) -> None:
    board = start(make_board(engine, shipped("nano") / MODEL, read_played(lying, engine)))
    for _ in range(2):
        host = board.host()
        assert host.join().modes == {Mode.SERVE, Mode.PLAY}
        for codec in (1, 3):
            volume, masks, end = play(host, codec)
            assert {m.codec for m in masks} == {codec}
            assert (end.masks, end.digest) == (len(masks), digest(masks, host.hello.window))
        host.connection.close()
    assert volume.shape == patient.labels.shape
    assert volume.spacing == pytest.approx((0.996, 1.004, 1.0))
    np.testing.assert_array_equal(np.reshape(volume.affine, (3, 4)), TURNED[:3].astype("f4"))
    assert volume.scheme == 1  # BraTS 2018-2021
    crop = Crop(volume.shape, volume.origin, volume.z, host.hello.window)
    labels = paste(np.stack(decoded(masks, crop.window)), crop)
    np.testing.assert_array_equal(labels, patient.labels)


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine whose masks are a chequerboard: as runs, 480 kB in all, they fill the line."""
    engine = Engine(shipped("nano") / MODEL)
    logits = np.full_like(engine.invoke(np.zeros((*engine.card.window, 4), np.int8)), -128)
    logits[np.indices(logits.shape[:2]).sum(axis=0) % 2 == 0] = 127
    monkeypatch.setattr(engine, "invoke", lambda prepared: logits)
    return engine


def test_a_host_that_leaves_a_case_half_played(start: Begin, generous: Engine, lying: Path) -> None:
    board = start(make_board(generous, shipped("nano") / MODEL, read_played(lying, generous)))
    host = board.host()
    host.join()
    host.say(HostHello(Mode.PLAY, 0, RUNS))
    time.sleep(0.5)
    host.join()
    assert "run ended" not in "".join(board.lines)
    _, masks, end = play(host)
    assert end.digest == digest(masks, host.hello.window)


def test_a_board_with_a_case_serves_as_well(
    start: Begin, engine: Engine, lying: Path, patient: Patient
) -> None:
    played = read_played(lying, engine)
    masks, _ = serve(start(make_board(engine, shipped("nano") / MODEL, played)).host(), patient)
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)


class Gate:
    """Holds the engine in its second slice until it is opened."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._calls, self._invoke = 0, engine.invoke
        monkeypatch.setattr(engine, "invoke", self.invoke)

    def invoke(self, prepared: NDArray[Any]) -> NDArray[np.bool_]:
        self._calls += 1
        if self._calls == 2:
            self.reached.set()
            assert self.opened.wait(5.0)
        return self._invoke(prepared)


@pytest.mark.parametrize("choice", [SERVE, PLAY], ids=["serving", "playing"])
def test_a_stop_lets_the_slice_in_hand_through(
    choice: HostHello, start: Begin, patient: Patient, lying: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    engine = Engine(shipped("nano") / MODEL)
    played = read_played(lying, engine)
    board = start(make_board(engine, shipped("nano") / MODEL, played))
    gate = Gate(engine, monkeypatch)
    host = board.host()
    slices = patient.slices(host.join())
    host.say(choice)
    if choice is SERVE:
        host.say(Start(len(slices)), *slices[:6])
    else:
        assert isinstance(host.hear(), Start)
    assert gate.reached.wait(5.0)
    board.stop.request()
    gate.opened.set()
    masks, [error], end = host.hear_run()
    assert [m.index for m in masks] == [0, 1]
    assert (error.code, error.index) == (ErrorCode.STOPPED, -1)
    assert (end.masks, end.failed, end.digest) == (2, 0, digest(masks, host.hello.window))
    with pytest.raises(PeerClosed):
        host.hear()
    assert board.ended() and board.lost is None


def test_a_stop_between_runs_ends_at_once_and_with_a_goodbye(start: Begin) -> None:
    board = start()
    host = board.host()
    host.join()
    began = time.monotonic()
    board.stop.request()
    with pytest.raises(PeerClosed):
        host.hear()
    assert board.ended() and time.monotonic() - began < 1.5


def test_a_stop_is_not_held_up_by_a_host_that_takes_nothing(
    start: Begin, generous: Engine, lying: Path
) -> None:
    board = start(make_board(generous, shipped("nano") / MODEL, read_played(lying, generous)))
    host = board.host()
    host.join()
    host.say(HostHello(Mode.PLAY, 0, RUNS))
    time.sleep(0.5)
    began = time.monotonic()
    board.stop.request()
    assert board.ended() and time.monotonic() - began < 4.0


def test_a_lost_line_ends_the_board(start: Begin, patient: Patient) -> None:
    board = start()
    serve(board.host(), patient)
    board.port.close()
    assert board.ended()
    assert board.lost is not None and "the other end was closed" in str(board.lost)


@pytest.mark.parametrize("name", ["", "a name with spaces", "seventeen-letters", "n\xe4no"])
def test_a_name_that_cannot_cross_the_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(shipped("nano") / MODEL)
    card: Card = engine.card
    monkeypatch.setattr(engine, "card", replace(card, name=name))
    with pytest.raises(GliosliceError, match="calls the model"):
        make_board(engine, shipped("nano") / MODEL)
