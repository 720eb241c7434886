"""The board's hello, the models that are known, the mode that is chosen."""

import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from firmware_host import handshake
from firmware_host.diagnosis import ENOUGH, LinkAltersBytes
from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.model_card import find_model, read_card, shipped_folder
from glioslice.wire.connection import Connection
from glioslice.wire.messages import End, Error, ErrorCode, Message, Mode, send
from glioslice.wire.transport import MemoryPort, pair
from tests.firmware_host.scripted import HELLO


def test_every_file_of_a_shipped_card_is_known() -> None:
    listed = read_card(shipped_folder("nano")).content["files"]
    assert {entry["sha256"] for entry in listed.values()} <= handshake.known_models()
    digest = listed["nano-int8.tflite"]["sha256"]
    handshake.check_model(replace(HELLO, sha256=digest), [], None)


def test_an_unknown_model_is_accepted_by_digest_or_as_the_file_that_was_named(
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.tflite"
    file.write_bytes(b"network")
    with pytest.raises(GliosliceError, match=f"'rule'.*--allow-model {HELLO.sha256}"):
        handshake.check_model(HELLO, [], file)
    handshake.check_model(HELLO, [HELLO.sha256.upper()], None)
    handshake.check_model(replace(HELLO, sha256=sha256(file)), [], file)


def test_known_models_without_any_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "SHIPPED_MODELS", ("none", "such"))
    assert handshake.known_models() == frozenset()


def test_a_device_on_a_simulated_line(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes(b"network")
    start = [sys.executable, "-m", "device", "--quiet", "--port", "{port}", "--model", str(model)]
    assert handshake.device_command(model, None) == start
    played = handshake.device_command(model, 9600, Path("case"))
    assert played == [*start, "--baud", "9600", "--input", "case"]
    assert handshake.device_command(None, None)[-1] == str(find_model(None))
    assert handshake.is_simulated("SIM://?baud=9600")
    assert not handshake.is_simulated("/dev/sim")
    assert handshake.hello_timeout("sim://") > handshake.hello_timeout("COM3")


def test_who_holds_the_volume() -> None:
    serving = HELLO
    playing = replace(HELLO, modes=frozenset({Mode.PLAY}))
    both = replace(HELLO, modes=frozenset(Mode))
    choose = handshake.choose_mode
    assert choose(serving, play=False, has_case=True) is Mode.SERVE
    assert choose(serving, play=False, has_case=False) is Mode.SERVE
    assert choose(playing, play=False, has_case=False) is Mode.PLAY
    assert choose(both, play=False, has_case=True) is Mode.SERVE
    assert choose(both, play=False, has_case=False) is Mode.PLAY
    assert choose(both, play=True, has_case=False) is Mode.PLAY
    with pytest.raises(GliosliceError, match="no case to play"):
        choose(serving, play=True, has_case=False)
    with pytest.raises(GliosliceError, match="leave CASE out"):
        choose(playing, play=False, has_case=True)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (None, "sends no hello"),
        (End(0, 0, 0, "00" * 32), "before its hello"),
        (Error(ErrorCode.STOPPED, -1, ""), "reports: stopped"),
    ],
)
def test_a_board_without_a_hello(
    message: Message | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = count(0, 20 if message is None else 0)  # a minute passes within three looks, or never
    monkeypatch.setattr(handshake, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    near, far = pair()
    with Connection(far, active=False) as there, Connection(near, active=True) as here:

        def send_line() -> None:
            there.open(60.0)
            if message:
                send(there, message)

        thread = threading.Thread(target=send_line)
        thread.start()
        with pytest.raises(GliosliceError, match=expected):
            handshake.receive_hello(here, 60.0)
        thread.join()


def minute_of_damage(connection: Connection) -> Iterator[float]:
    """Yield a time that stands still until enough frames have arrived damaged."""
    yield 0.0  # the minute begins
    before = connection.counts.bad_frames
    while connection.counts.bad_frames < before + ENOUGH:
        yield 0.0
    yield 60.0


@pytest.mark.slow
def test_a_link_that_eats_a_byte_of_every_frame_after_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both sessions are free of 0x11, which XON/XOFF eats; the tag made from them is 0x1111."""

    class SoftwareFlowControl(MemoryPort):
        def read(self, timeout: float) -> bytes:
            return super().read(timeout).translate(None, b"\x11\x13")

    sessions = iter((0x40404040, 0x51515151))
    monkeypatch.setattr("secrets.randbelow", lambda _limit: next(sessions) - 1)
    near, far = pair()
    near.__class__ = SoftwareFlowControl
    with Connection(far, active=False) as there, Connection(near, active=True) as here:
        clock = minute_of_damage(here)
        monkeypatch.setattr(handshake, "time", SimpleNamespace(monotonic=lambda: next(clock)))

        def send_hello() -> None:
            there.open(60.0)
            send(there, HELLO)

        thread = threading.Thread(target=send_hello)
        thread.start()
        with pytest.raises(LinkAltersBytes, match=r"damaged.*XON/XOFF"):
            handshake.receive_hello(here, 60.0)
        thread.join()
