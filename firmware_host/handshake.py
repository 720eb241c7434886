"""The start of a session: the board's hello, whether its model is known, and the host's choice."""

import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from firmware_host.diagnosis import ENOUGH, TRANSPARENT, LinkAltersBytes, LinkWatch
from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.model_card import SHIPPED_MODELS, find_model, read_card, shipped_folder
from glioslice.wire import messages
from glioslice.wire.codecs import IMAGES, LOSSLESS, MASKS, choose
from glioslice.wire.connection import Connection
from glioslice.wire.messages import BoardHello, Error, HostHello, MessageError, Mode

HELLO_TIMEOUT = 15.0
"""Seconds for a board to reply: its server is already running."""

SIMULATED_TIMEOUT = 60.0
"""Seconds for a simulated board, which first loads Python, the model and perhaps a case."""

POLL = 0.5
"""Seconds between two looks at the link while nothing arrives."""


class BoardFailed(GliosliceError):
    """The board reported that it cannot continue the run."""


def is_simulated(port: str) -> bool:
    """Return whether `port` is a simulated line, to which a process is connected."""
    return port.lower().startswith("sim:")


def device_command(
    model: str | Path | None,
    baud: int | None,
    played: Path | None = None,
    missing: Collection[str] = (),
) -> list[str]:
    """Return the command of the simulated board; `played` is a case that it reads itself.

    `missing` are modalities that it does not read. A fixed baud rate applies to both ends. Raises
    GliosliceError for an unknown model.
    """
    command = [sys.executable, "-m", "device", "--quiet", "--port", "{port}", "--model"]
    command.append(str(find_model(model)))
    command += ["--baud", str(baud)] if baud else []
    if played:
        command += ["--input", str(played)]
        command += ["--missing", ",".join(missing)] if missing else []
    return command


def known_models() -> frozenset[str]:
    """Return the SHA-256 of every file that the shipped models' cards list."""
    known: set[str] = set()
    for name in SHIPPED_MODELS:
        folder = None
        with suppress(GliosliceError):  # a wheel holds one of them only
            folder = shipped_folder(name)
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


def hello_timeout(port: str) -> float:
    """Return how many seconds to wait for the hello of a board at `port`."""
    return SIMULATED_TIMEOUT if is_simulated(port) else HELLO_TIMEOUT


def receive_hello(connection: Connection, timeout: float) -> BoardHello:
    """Open a session and return the board's hello.

    Raises LinkError or LineLost if the link does not come up, VersionError for another protocol
    version, LinkAltersBytes, and GliosliceError if the board sends something else or nothing.
    """
    connection.open(timeout)
    watch, deadline = LinkWatch(connection), time.monotonic() + timeout
    before = connection.counts.bad_frames
    while (message := messages.receive(connection, POLL)) is None and time.monotonic() < deadline:
        watch.check()
    damaged = connection.counts.bad_frames - before
    if message is None and damaged >= ENOUGH:  # not even short frames pass
        raise LinkAltersBytes(
            f"{connection.name}: the link is up, but {damaged} frames arrived damaged and the "
            f"board's hello never did: {TRANSPARENT}"
        )
    if message is None:
        raise GliosliceError(
            f"{connection.name}: the link is up but the board sends no hello; restart its server"
        )
    if isinstance(message, Error):
        raise board_failure(message)
    if not isinstance(message, BoardHello):
        raise MessageError("the board sent a message before its hello; restart its server")
    return message


def board_failure(error: Error) -> BoardFailed:
    """Return the board's error message as an exception."""
    return BoardFailed(f"the board reports: {error.text or error.code.name.lower()}")


def choose_mode(hello: BoardHello, *, play: bool, has_case: bool) -> Mode:
    """Return which end holds the volume: a board that can play does, unless the host has a case.

    `play` means that the host's case was given to the simulated board. Raises GliosliceError if
    the board offers no such mode.
    """
    wanted = Mode.SERVE if has_case and not play else Mode.PLAY
    if wanted in hello.modes:
        return wanted
    if play:
        raise GliosliceError("the board has no case to play; leave --play out")
    if has_case:
        raise GliosliceError(
            "the board plays a case from its own disk and accepts no slices; leave CASE out to "
            "receive that one, or restart its server without a case"
        )
    return Mode.SERVE


def make_host_hello(hello: BoardHello, mode: Mode, images: str | None) -> HostHello:
    """Return the host's hello: `images` names a codec, None the smallest that both ends have.

    "lossless" is the smallest lossless one. Raises CodecError if the ends share none.
    """
    codecs, name = (LOSSLESS, None) if images == "lossless" else (IMAGES, images)
    image = choose(hello.image_codecs, codecs, name) if mode is Mode.SERVE else 0
    return HostHello(mode, image, choose(hello.mask_codecs, MASKS))
