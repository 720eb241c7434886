"""The board's side of a session, over a link in memory."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device.board import load_played_case, make_board
from device.engine import Engine
from device.server import StopRequest
from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.labels import to_labels
from glioslice.model_card import Card, shipped_folder
from glioslice.preprocessing import Crop, quantize, restore_volume
from glioslice.wire.codecs import IMAGES, MASKS, RUNS, encode_image, offered_codecs
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
    PATIENCE,
    ROTATED,
    BoardThread,
    Host,
    Slab,
    StartBoard,
    decoded,
    digest,
    play,
    serve,
)

SERVE, PLAY = HostHello(Mode.SERVE, 2, 3), HostHello(Mode.PLAY, 0, 3)


def test_the_hello_describes_the_board(start: StartBoard, engine: Engine) -> None:
    hello = start().host().connect()
    assert hello.modes == {Mode.SERVE}
    assert (hello.window, hello.clip) == ((160, 192), 5.0)
    assert (hello.scale, hello.zero_point) == (engine.input.scale, engine.input.zero_point)
    assert hello.sha256 == sha256(shipped_folder("nano") / MODEL)
    assert (hello.model, hello.modalities) == ("nano", MODALITIES)
    assert (hello.image_codecs, hello.mask_codecs) == (
        offered_codecs(IMAGES),
        offered_codecs(MASKS),
    )
    assert hello.mask_codecs == 0b1010


@pytest.mark.slow
@pytest.mark.parametrize(("image", "mask"), [(0, 1), (1, 3), (2, 1), (2, 3)])
def test_served_masks_equal_a_local_run(
    image: int, mask: int, start: StartBoard, patient: Slab
) -> None:
    board = start()
    masks, end = serve(board.host(), patient, image, mask)
    assert [m.index for m in masks] == list(range(len(patient.z_scores)))
    assert {m.codec for m in masks} == {mask}
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    assert (end.masks, end.failed) == (len(masks), 0)
    assert end.device_us == sum(m.device_us for m in masks) > 0
    assert end.digest == digest(masks, patient.crop.window)
    assert board.logged("session opened") and board.logged(f"run of {len(masks)} slices")


def test_a_float_network_gets_dequantized_input(start: StartBoard, patient: Slab) -> None:
    engine = Engine(shipped_folder("nano") / "nano-fp16.tflite")
    host = start(make_board(engine, shipped_folder("nano") / "nano-fp16.tflite")).host()
    hello = host.connect()
    assert hello.scale == pytest.approx(10 / 255)
    slices = patient.slices(hello)
    host.send(SERVE, Start(len(slices)), *slices)
    masks, _, _ = host.receive_run()
    for z, labels in zip(patient.z_scores, decoded(masks, hello.window), strict=True):
        steps = quantize(z, hello.scale, 0).astype(np.float32) * np.float32(hello.scale)
        expected = to_labels(engine.regions(engine.logits(steps)))
        np.testing.assert_array_equal(labels, expected)


DAMAGED = {
    "cut short": lambda s: replace(s, payload=s.payload[:-9]),
    "empty": lambda s: replace(s, payload=b""),
    "no such codec": lambda s: replace(s, codec=9),
    "another shape": lambda s: Slice(s.index, 1, encode_image(1, np.zeros((9, 9, 4), np.int8))),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_slice_fails_alone(
    damage: Callable[[Slice], Slice], start: StartBoard, patient: Slab
) -> None:
    board = start()
    host = board.host()
    slices = patient.slices(host.connect())[:8]
    host.send(SERVE, Start(8), *slices[:3], damage(slices[3]), *slices[4:])
    masks, [error], end = host.receive_run()
    assert (error.code, error.index) == (ErrorCode.SLICE, 3)
    assert [m.index for m in masks] == [0, 1, 2, 4, 5, 6, 7]
    assert (end.masks, end.failed) == (7, 1)
    assert end.digest == digest(masks, patient.crop.window)
    assert board.logged("slice 3 failed: CodecError")


def test_a_failing_network_keeps_the_reason_on_the_board(
    start: StartBoard, patient: Slab, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(shipped_folder("nano") / MODEL)
    invoke, calls = engine.logits, iter(range(100))

    def fail(prepared: NDArray[Any]) -> NDArray[np.bool_]:
        if next(calls) == 1:
            raise RuntimeError("/home/someone/delegate.so")
        return invoke(prepared)

    monkeypatch.setattr(engine, "logits", fail)
    board = start(make_board(engine, shipped_folder("nano") / MODEL))
    host = board.host()
    slices = patient.slices(host.connect())[:3]
    host.send(SERVE, Start(3), *slices)
    masks, [error], end = host.receive_run()
    assert (error.code, error.index) == (ErrorCode.ENGINE, 1)
    assert "someone" not in error.text
    assert board.logged("someone")
    assert [m.index for m in masks] == [0, 2]
    assert (end.masks, end.failed) == (2, 1)


def test_a_session_can_have_many_runs(start: StartBoard, patient: Slab) -> None:
    host = start().host()
    first, end = serve(host, patient)
    for choice in ([], [HostHello(Mode.SERVE, 0, 1)]):  # the codecs may be chosen again
        host.send(*choice, Start(len(first)), *patient.slices(host.hello))
        masks, _, again = host.receive_run()
        assert (again.masks, again.digest) == (end.masks, end.digest)
    assert {m.codec for m in masks} == {1}


def closes(board: BoardThread, host: Host) -> Host:
    host.connection.close()
    return board.host()


def restarts(board: BoardThread, host: Host) -> Host:
    host.connection.open(PATIENCE)  # a new session on the same port, as by a new process
    assert host.receive() == host.hello
    host.connection.close()
    return board.host()


def falls_silent(board: BoardThread, host: Host) -> Host:
    host.kill()
    board.connection.silence = 0.5
    deadline = time.monotonic() + PATIENCE
    while "session ended" not in board.log[-1] and time.monotonic() < deadline:
        time.sleep(0.02)
    board.connection.silence = PATIENCE
    assert "session ended" in board.log[-1]
    return board.host()


@pytest.mark.slow
@pytest.mark.parametrize("goes", [closes, restarts, falls_silent])
@pytest.mark.parametrize("after", [0, 5])
def test_a_host_that_is_gone_leaves_the_board_to_the_next(
    after: int, goes: Callable[[BoardThread, Host], Host], start: StartBoard, patient: Slab
) -> None:
    board = start()
    host = board.host()
    slices = patient.slices(host.connect())
    host.send(SERVE, Start(len(slices)), *slices[:after])
    for index in range(after):
        assert isinstance(mask := host.receive(), Mask) and mask.index == index
    masks, end = serve(goes(board, host), patient)
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)
    assert end.masks == len(masks)  # nothing of the run before is counted


REFUSED = {
    "play": (HostHello(Mode.PLAY, 2, 3), "no case to play"),
    "image codec": (HostHello(Mode.SERVE, 7, 3), "image codec 7"),
    "mask codec": (HostHello(Mode.SERVE, 2, 7), "mask codec 7"),
    "a reserved mask codec": (HostHello(Mode.SERVE, 2, 2), "mask codec 2"),
    "a Start without a choice": (Start(3), "out of turn"),
    "a Slice without a run": (Slice(4, 0, b""), "index is expected"),
    "a message of the board": (End(0, 0, 0, "0" * 64), "out of turn"),
}


@pytest.mark.parametrize(("message", "text"), REFUSED.values(), ids=REFUSED)
def test_a_refused_message_changes_nothing(
    message: Message, text: str, start: StartBoard, patient: Slab
) -> None:
    host = start().host()
    slices = patient.slices(host.connect())[:2]
    host.send(message, SERVE, Start(2), *slices)
    [mask, other], [error], _ = host.receive_run()
    assert error.code is ErrorCode.REFUSED
    assert text in error.text
    assert error.index == (4 if isinstance(message, Slice) else -1)
    assert (mask.index, other.index) == (0, 1)


def test_a_run_survives_stray_messages(start: StartBoard, patient: Slab) -> None:
    host = start().host()
    one, two = patient.slices(host.connect())[:2]
    host.send(SERVE, Start(2), one)
    for stray in (Start(5), SERVE, one, replace(two, index=2), replace(two, index=60000)):
        host.send(stray)
    host.connection.send(b"\x2a who are you")
    host.connection.send(b"\x02\x09")  # a HostHello of version 9
    host.send(two)
    masks, errors, end = host.receive_run()
    assert [m.index for m in masks] == [0, 1]
    assert {e.code for e in errors} == {ErrorCode.REFUSED}
    assert [e.index for e in errors] == [-1, -1, 0, 2, -1, -1, -1]
    assert "same version" in errors[-2].text and f"uses version {VERSION}" in errors[-1].text
    assert (end.masks, end.failed) == (2, 0)


def test_a_case_is_played_to_every_host(
    start: StartBoard, engine: Engine, patient: Slab, stored_case: Path
) -> None:
    board = start(
        make_board(engine, shipped_folder("nano") / MODEL, load_played_case(stored_case, engine))
    )
    for _ in range(2):
        host = board.host()
        assert host.connect().modes == {Mode.SERVE, Mode.PLAY}
        for codec in (1, 3):
            volume, masks, end = play(host, codec)
            assert {m.codec for m in masks} == {codec}
            assert (end.masks, end.digest) == (len(masks), digest(masks, host.hello.window))
        host.connection.close()
    assert volume.shape == patient.labels.shape
    assert volume.spacing == pytest.approx((0.996, 1.004, 1.0))
    np.testing.assert_array_equal(np.reshape(volume.affine, (3, 4)), ROTATED[:3].astype("f4"))
    assert volume.scheme == 1  # BraTS 2018-2021
    crop = Crop(volume.shape, volume.origin, volume.z, host.hello.window)
    labels = restore_volume(np.stack(decoded(masks, crop.window)), crop)
    np.testing.assert_array_equal(labels, patient.labels)


@pytest.fixture
def flooding_board(
    start: StartBoard, stored_case: Path, monkeypatch: pytest.MonkeyPatch
) -> BoardThread:
    """A board that plays checkerboards as masks: 480 kB as runs, enough to fill the link."""
    engine = Engine(shipped_folder("nano") / MODEL)
    logits = np.full_like(engine.logits(np.zeros((*engine.card.window, 4), np.int8)), -128)
    logits[np.indices(logits.shape[:2]).sum(axis=0) % 2 == 0] = 127
    played = load_played_case(stored_case, engine)
    monkeypatch.setattr(engine, "logits", lambda prepared: logits)
    return start(make_board(engine, shipped_folder("nano") / MODEL, played))


@pytest.mark.slow
def test_a_host_that_restarts_while_a_case_is_played(flooding_board: BoardThread) -> None:
    board = flooding_board
    host = board.host()
    host.connect()
    host.send(HostHello(Mode.PLAY, 0, RUNS))
    time.sleep(0.5)
    host.connect()
    assert "run ended" not in "".join(board.log)
    _, masks, end = play(host)
    assert end.digest == digest(masks, host.hello.window)


def test_a_board_with_a_case_also_serves(
    start: StartBoard, engine: Engine, stored_case: Path, patient: Slab
) -> None:
    played = load_played_case(stored_case, engine)
    masks, _ = serve(
        start(make_board(engine, shipped_folder("nano") / MODEL, played)).host(), patient
    )
    np.testing.assert_array_equal(patient.volume(masks), patient.labels)


class Gate:
    """Blocks the engine in its second slice until `opened` is set."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()
        self._calls, self._invoke = 0, engine.logits
        monkeypatch.setattr(engine, "logits", self.invoke)

    def invoke(self, prepared: NDArray[Any]) -> NDArray[np.bool_]:
        self._calls += 1
        if self._calls == 2:
            self.reached.set()
            assert self.opened.wait(PATIENCE)
        return self._invoke(prepared)


@pytest.mark.parametrize("choice", [SERVE, PLAY], ids=["serving", "playing"])
def test_a_stop_finishes_the_current_slice(
    choice: HostHello, start: StartBoard, patient: Slab, stored_case: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    engine = Engine(shipped_folder("nano") / MODEL)
    played = load_played_case(stored_case, engine)
    board = start(make_board(engine, shipped_folder("nano") / MODEL, played))
    gate = Gate(engine, monkeypatch)
    host = board.host()
    slices = patient.slices(host.connect())
    host.send(choice)
    if choice is SERVE:
        host.send(Start(len(slices)), *slices[:6])
    else:
        assert isinstance(host.receive(), Start)
    assert gate.reached.wait(PATIENCE)
    board.stop.request()
    gate.opened.set()
    masks, [error], end = host.receive_run()
    assert [m.index for m in masks] == [0, 1]
    assert (error.code, error.index) == (ErrorCode.STOPPED, -1)
    assert (end.masks, end.failed, end.digest) == (2, 0, digest(masks, host.hello.window))
    with pytest.raises(PeerClosed):
        host.receive()
    assert board.ended() and board.lost is None


def test_a_signal_that_is_ignored_requests_no_stop() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell's script
    stop = StopRequest(force=lambda: None)
    stop.install_handlers()
    os.kill(os.getpid(), signal.SIGINT)
    assert not stop.requested
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.requested


def test_a_stop_between_runs_closes_the_session_at_once(start: StartBoard) -> None:
    board = start()
    host = board.host()
    host.connect()
    began = time.monotonic()
    board.stop.request()
    with pytest.raises(PeerClosed):
        host.receive()
    assert board.ended() and time.monotonic() - began < PATIENCE / 2


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_host_that_accepts_nothing(flooding_board: BoardThread) -> None:
    board = flooding_board
    host = board.host()
    host.connect()
    host.send(HostHello(Mode.PLAY, 0, RUNS))
    time.sleep(0.5)
    began = time.monotonic()
    board.stop.request()
    assert board.ended() and time.monotonic() - began < PATIENCE / 2


def test_a_lost_port_ends_the_board(start: StartBoard, patient: Slab) -> None:
    board = start()
    serve(board.host(), patient)
    board.port.close()
    assert board.ended()
    assert board.lost is not None and "the other end was closed" in str(board.lost)


@pytest.mark.parametrize("name", ["", "a name with spaces", "seventeen-letters", "n\xe4no"])
def test_an_unusable_model_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(shipped_folder("nano") / MODEL)
    card: Card = engine.card
    monkeypatch.setattr(engine, "card", replace(card, name=name))
    with pytest.raises(GliosliceError, match="1 to 16 ASCII characters"):
        make_board(engine, shipped_folder("nano") / MODEL)
