"""Check, install and uninstall one board."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from hashlib import sha256
from pathlib import Path

from device.deployment import service
from device.deployment.board_state import BoardState, find_board_problems, probe_script, read_state
from device.deployment.payload import Payload, make_payload
from device.deployment.remote import Remote
from glioslice.errors import GliosliceError
from glioslice.inventory import NotedBoard, forget_deployment, note_deployment


class Action(Enum):
    """What to do with a board."""

    INSTALL = "install"
    CHECK = "check"
    UNINSTALL = "uninstall"


class Effect(Enum):
    """What it came to."""

    INSTALLED = "installed"
    UNCHANGED = "unchanged"
    CHECKED = "ready"
    REMOVED = "removed"


@dataclass(frozen=True)
class Deployment:
    """A board, and what it is to run; `port` is its serial port."""

    name: str
    board: Remote
    model: Path
    port: str
    runtime: str


Show = Callable[[str], None]
MakePayload = Callable[[Path, str, tuple[int, int], str], Payload]


def deploy_board(
    deployment: Deployment,
    action: Action,
    show: Show = lambda line: print(line, flush=True),
    make: MakePayload = make_payload,
) -> Effect:
    """Do `action` on a board; `show` is called with each line that describes a step.

    Raises GliosliceError if the board cannot be reached, has to be changed first, or a step fails.
    """
    board = deployment.board
    if action is Action.UNINSTALL:
        forget_deployment(board.target)
        removed = bool(board.run(service.UNINSTALL, root=True).strip())
        show(f"{board.target}: glioslice is removed" + ("" if removed else "; none was installed"))
        return Effect.REMOVED if removed else Effect.UNCHANGED
    state = check_board(deployment, show)
    return Effect.CHECKED if action is Action.CHECK else install(deployment, state, show, make)


def check_board(deployment: Deployment, show: Show) -> BoardState:
    """Show what the board is; raises GliosliceError if something there has to change first."""
    board = deployment.board
    state = read_state(board.run(probe_script(deployment.port), root=True))
    show(f"{board.target}: {state.title}")
    problems = find_board_problems(state, deployment.port, deployment.runtime)
    for problem in problems:
        show(f"  {'must change' if problem.fatal else 'warning'}: {problem}")
    if any(problem.fatal for problem in problems):
        raise GliosliceError(f"{board.target}: nothing was installed; change the above first")
    return state


def install(deployment: Deployment, state: BoardState, show: Show, make: MakePayload) -> Effect:
    """Send a release, start it and test it; what is already in place is left alone."""
    board, port, runtime = deployment.board, deployment.port, deployment.runtime
    payload = make(deployment.model, state.machine, state.python, runtime)
    unit = service.make_unit(port, payload.model, coral=runtime == "coral")
    digest = sha256(unit.encode()).hexdigest()
    in_place = set(board.run(service.status_script(payload.release), root=True).split())
    if "complete" not in in_place:
        archive = payload.archive
        show(f"sending {len(payload.files)} files, {len(archive) / 1e6:.0f} MB")
        board.run(service.install_script(payload.release), root=True, send=archive)
    effect = Effect.INSTALLED
    if in_place >= {"complete", "current", "active", digest}:
        show("already installed and running: nothing was changed")
        effect = Effect.UNCHANGED
    else:
        board.run(service.start_script(payload.release), root=True, send=unit.encode())
    for line in board.run(service.test_script(payload.model), root=True).splitlines():
        show(line)
    note_deployment(NotedBoard(board.target, port, date.today().isoformat()))
    show(f"{board.target} waits on {port}; next: glioslice stream CASE --port ...")
    return effect
