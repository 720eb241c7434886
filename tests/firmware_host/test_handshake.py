"""The board's hello, the models that are known, the mode that is chosen."""

import argparse
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from firmware_host import handshake
from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.model_card import read_card, shipped
from glioslice.wire.connection import Connection
from glioslice.wire.messages import End, Error, ErrorCode, Message, Mode, send
from glioslice.wire.transport import pair
from tests.firmware_host.scripted import HELLO


def test_every_file_of_a_shipped_card_is_known() -> None:
    listed = read_card(shipped("nano")).content["files"]
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
    monkeypatch.setattr(handshake, "SHIPPED", ("none", "such"))
    assert handshake.known_models() == frozenset()


def test_a_device_on_a_simulated_line() -> None:
    given = argparse.Namespace(baud=None, model=Path("m.tflite"), input=Path("case"), play=False)
    start = [sys.executable, "-m", "device", "--port", "{port}", "--model", "m.tflite"]
    assert handshake.device_command(given) == start
    given.play = True
    assert handshake.device_command(given) == [*start, "--input", "case"]
    assert handshake.is_simulated("SIM://?baud=9600")
    assert not handshake.is_simulated("/dev/sim")
    assert handshake.patience_for("sim://") > handshake.patience_for("COM3")


def test_who_holds_the_volume() -> None:
    serving = HELLO
    playing = replace(HELLO, modes=frozenset({Mode.PLAY}))
    both = replace(HELLO, modes=frozenset(Mode))
    choose = handshake.choose_mode
    assert choose(serving, play=False, has_input=True) is Mode.SERVE
    assert choose(serving, play=False, has_input=False) is Mode.SERVE
    assert choose(playing, play=False, has_input=False) is Mode.PLAY
    assert choose(both, play=False, has_input=True) is Mode.SERVE
    assert choose(both, play=False, has_input=False) is Mode.PLAY
    assert choose(both, play=True, has_input=False) is Mode.PLAY
    with pytest.raises(GliosliceError, match="holds no case"):
        choose(serving, play=True, has_input=False)
    with pytest.raises(GliosliceError, match="leave --input out"):
        choose(playing, play=False, has_input=True)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (None, "does not introduce itself"),
        (End(0, 0, 0, "00" * 32), "something before its hello"),
        (Error(ErrorCode.STOPPED, -1, ""), "has given up: stopped"),
    ],
)
def test_a_far_end_without_a_hello(said: Message | None, words: str) -> None:
    near, far = pair()
    with Connection(far, active=False) as there, Connection(near, active=True) as here:

        def speak() -> None:
            there.open(5.0)
            if said:
                send(there, said)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(GliosliceError, match=words):
            handshake.greet(here, 0.6)
        thread.join()
