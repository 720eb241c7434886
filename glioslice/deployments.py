"""A note on this machine of the board that `glioslice deploy` installed last.

The doctor reads it: where there is a service on the board, its status is what to look at. The note
is `deployed.json` in `glioslice/` of the folder that XDG_STATE_HOME names, or ~/.local/state.
"""

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json


@dataclass(frozen=True)
class NotedBoard:
    """A board as ssh names it, the board's own serial port, and the day of the deployment."""

    board: str
    port: str
    date: str


def note_path() -> Path:
    """Return where the note is kept."""
    home = os.environ.get("XDG_STATE_HOME")
    folder = Path(home) if home else Path.home() / ".local" / "state"
    return folder / "glioslice" / "deployed.json"


def last_deployment() -> NotedBoard | None:
    """Return the last deployment, None if there is none or its note cannot be read."""
    with suppress(GliosliceError, OSError, TypeError, RuntimeError):
        return NotedBoard(**read_json(note_path()))
    return None


def note_deployment(deployment: NotedBoard) -> None:
    """Keep a note of a deployment; one that cannot be written is left out."""
    with suppress(OSError, RuntimeError):  # no home, or one that is read-only
        write_json(note_path(), asdict(deployment))


def forget_deployment(board: str) -> None:
    """Remove the note of a board that glioslice was uninstalled from."""
    last = last_deployment()
    if last is not None and last.board == board:
        with suppress(OSError):
            note_path().unlink(missing_ok=True)
