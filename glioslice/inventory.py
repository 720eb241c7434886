"""An inventory of boards: their names, and how they are reached for deployment and for streaming.

    # boards.toml: what stands at the top holds for every board that does not set its own
    model = "compact"
    port = "/dev/ttyGS0"

    [[board]]
    name = "ada"
    address = "pi@ada.local"                        # as ssh takes it
    host_port = "/dev/serial/by-id/usb-ada-if00"    # the port of the host that it is connected to

    [[board]]
    name = "ben"
    address = "pi@192.168.1.12"
    ssh_options = ["Port=2222"]
    host_port = "/dev/serial/by-id/usb-ben-if00"

`glioslice deploy --inventory boards.toml` needs `address`, `glioslice stream --boards
boards.toml` needs `host_port`.

The board that was installed last is noted in `glioslice/deployed.json` of the folder that
XDG_STATE_HOME names, or ~/.local/state. The doctor reads it: where there is a service on the board,
its status is what to look at.
"""

import os
import re
import tomllib
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")


@dataclass(frozen=True)
class InventoryBoard:
    """A board: `port` is its own serial port, `host_port` the one of the host at the other end."""

    name: str
    address: str | None = None
    host_port: str | None = None
    port: str | None = None
    model: str | None = None
    runtime: str | None = None
    ssh_options: tuple[str, ...] = ()


KEYS = frozenset(field.name for field in fields(InventoryBoard))


def read_inventory(path: Path) -> list[InventoryBoard]:
    """Return the boards of an inventory in their order.

    Raises GliosliceError, naming the file, for one that is missing or no TOML, for an unknown or
    malformed entry, and for a name, address or port of the host that is used twice.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GliosliceError(f"{path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise GliosliceError(f"{path}: not valid TOML ({error})") from None
    listed = content.pop("board", [])
    if not isinstance(listed, list) or not listed or not all(isinstance(b, dict) for b in listed):
        raise GliosliceError(f"{path}: has no board; each one begins with a line [[board]]")
    boards = [_read_board(path, content, entry) for entry in listed]
    for key in ("name", "address", "host_port"):
        values = [value for board in boards if (value := getattr(board, key)) is not None]
        doubled = {value for value in values if values.count(value) > 1}
        # Several boards may lie behind one address, each with its own port of ssh.
        if doubled and not (key == "address" and any(board.ssh_options for board in boards)):
            raise GliosliceError(f"{path}: the {key} {min(doubled)} is used by two boards")
    return boards


def _read_board(path: Path, shared: dict[str, Any], entry: dict[str, Any]) -> InventoryBoard:
    name = entry.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise GliosliceError(
            f"{path}: a board has the name {name!r}; expected up to 32 letters, digits, - _ or ."
        )
    values = {**shared, **entry}
    if unknown := sorted(values.keys() - KEYS):
        raise GliosliceError(
            f"{path}: board '{name}' has the unknown entry '{unknown[0]}'; there are "
            f"{', '.join(sorted(KEYS))}"
        )
    options = values.pop("ssh_options", [])
    if not isinstance(options, list) or not all(isinstance(one, str) for one in options):
        raise GliosliceError(f"{path}: ssh_options of board '{name}' is not a list of strings")
    for key, value in values.items():
        if not isinstance(value, str) or not value:
            raise GliosliceError(f"{path}: {key} of board '{name}' is not a string")
    return InventoryBoard(**values, ssh_options=tuple(options))


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
