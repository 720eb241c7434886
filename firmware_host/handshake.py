"""The board at the far end: the process behind `sim://`, its hello, the models that are known."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.model_card import SHIPPED, default_model, read_card, shipped
from glioslice.wire import messages
from glioslice.wire.codecs import IMAGES, LOSSLESS, MASKS, choose
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello, Error, HostHello, MessageError, Mode

PATIENCE = 15.0
"""Seconds for a board to answer: its runner is at work already."""

SIMULATED_PATIENCE = 60.0
"""The same where the runner starts now: Python, the model and perhaps a case have to load."""


class BoardFailed(GliosliceError):
    """The board has said that the run cannot go on."""


def is_simulated(port: str) -> bool:
    """Tell whether `port` is a virtual line, at whose end a process is started."""
    return port.lower().startswith("sim:")


def device_command(arguments: argparse.Namespace) -> list[str]:
    """Return what starts the simulated board: the shipped compact model, or `--model`.

    A rate that is fixed is that of both ends.
    """
    model = arguments.model or default_model()
    words = [sys.executable, "-m", "device", "--port", "{port}", "--model", str(model)]
    words += ["--baud", str(arguments.baud)] if arguments.baud else []
    return words + (["--input", str(arguments.input)] if arguments.play else [])


def known_models() -> frozenset[str]:
    """Return the SHA-256 of every file that the shipped models' cards list."""
    known: set[str] = set()
    for name in SHIPPED:
        folder = None
        with suppress(GliosliceError):  # a checkout may hold one of them only
            folder = shipped(name)
        if folder:
            files = read_card(folder).content.get("files", {})
            known |= {str(entry["sha256"]) for entry in files.values()}
    return frozenset(known)


def check_model(hello: BoardHello, allowed: list[str], own: Path | None) -> None:
    """Refuse a model that is not shipped, not in `allowed`, and not the file `own`.

    Raises GliosliceError.
    """
    accepted = known_models() | {text.lower() for text in allowed}
    if hello.sha256 in accepted or (own and hello.sha256 == sha256(own)):
        return
    raise GliosliceError(
        f"the board runs a model that this host does not know, '{hello.model}'; if it is yours, "
        f"add --allow-model {hello.sha256}"
    )


def patience_for(port: str) -> float:
    """Return how many seconds a board at `port` has to answer."""
    return SIMULATED_PATIENCE if is_simulated(port) else PATIENCE


def greet(connection: Connection, patience: float) -> BoardHello:
    """Open a session and return the board's hello.

    Raises LinkError or LineLost for a line that does not come up, VersionError for another
    version, GliosliceError for a board that says something else or nothing.
    """
    connection.open(patience)
    message = messages.receive(connection, patience)
    if message is None:
        raise GliosliceError(
            f"{connection.name}: the far end is there but does not introduce itself; start its "
            "runner anew"
        )
    if isinstance(message, Error):
        raise refusal(message)
    if not isinstance(message, BoardHello):
        raise MessageError("the far end sent something before its hello; start its runner anew")
    return message


def refusal(error: Error) -> BoardFailed:
    """Return what the board said as an exception."""
    return BoardFailed(f"the board has given up: {error.text or error.code.name.lower()}")


def choose_mode(hello: BoardHello, *, play: bool, has_input: bool) -> Mode:
    """Return who holds the volume: a board that plays does so unless the host has a case.

    `play` says that the case was put onto the board. Raises GliosliceError if it cannot be.
    """
    wanted = Mode.SERVE if has_input and not play else Mode.PLAY
    if wanted in hello.modes:
        return wanted
    if play:
        raise GliosliceError("the board holds no case to play; leave --play out")
    if has_input:
        raise GliosliceError(
            "the board plays the case on its own disk and takes no slices; leave --input out to "
            "receive that one, or start its runner without --input"
        )
    return Mode.SERVE


def answer(hello: BoardHello, mode: Mode, images: str | None) -> HostHello:
    """Return the host's hello: `images` names a codec, else the smallest that both ends have.

    "lossless" is the smallest that loses nothing. Raises CodecError if there is none.
    """
    codecs, name = (LOSSLESS, None) if images == "lossless" else (IMAGES, images)
    image = choose(hello.image_codecs, codecs, name) if mode is Mode.SERVE else 0
    return HostHello(mode, image, choose(hello.mask_codecs, MASKS))
