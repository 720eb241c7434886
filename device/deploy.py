"""Install the board's side on Raspberry Pis over ssh and start it as a service.

    glioslice deploy pi@raspberrypi.local --port /dev/serial0
    glioslice deploy pi@raspberrypi.local --check           # report, change nothing
    glioslice deploy pi@raspberrypi.local --uninstall       # remove everything
    glioslice deploy pi@ada.local pi@ben.local              # several boards at once
    glioslice deploy --inventory boards.toml                # those of an inventory, with names
    python device/deploy.py pi@raspberrypi.local            # the same from a checkout

A board needs no internet: this machine sends the wheels and the model. A second deployment of the
same files changes nothing, and an interrupted one can be repeated. `glioslice/inventory.py` has
the format of boards.toml, which also names the boards for `glioslice stream --boards boards.toml`.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from hashlib import sha256
from pathlib import Path

from device.deployment import release
from device.deployment.release import RUNTIME_PINS, Payload, make_payload
from device.deployment.remote_board import (
    BoardState,
    Remote,
    find_board_problems,
    probe_script,
    read_state,
)
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.inventory import (
    InventoryBoard,
    NotedBoard,
    forget_deployment,
    note_deployment,
    read_inventory,
)
from glioslice.model_card import find_model

logger = logging.getLogger(__name__)

PORT, RUNTIME = "/dev/serial0", "litert"
"""What is taken where neither the options nor the inventory name another."""

AT_ONCE = 16
"""Boards that are deployed at a time: each waits for its network and its own processor."""

FAILED = "failed"


class Action(Enum):
    """What to do with a board."""

    INSTALL = "install"
    CHECK = "check"
    UNINSTALL = "uninstall"


class Effect(Enum):
    """What the action did to a board."""

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


def main(argv: Sequence[str] | None = None) -> None:
    """Install, check or uninstall the board's side."""
    parser = cli.parser(
        "Install the board's side on Raspberry Pis over ssh.",
        "glioslice deploy pi@raspberrypi.local --port /dev/serial0",
    )
    parser.add_argument(
        "boards", nargs="*", metavar="USER@BOARD", help="a host name, as ssh takes it"
    )
    parser.add_argument("--inventory", type=Path, metavar="FILE", help="a TOML file of boards")
    parser.add_argument("--model", help="a shipped size, a folder or a file; default: compact")
    parser.add_argument("--port", help=f"the board's serial port; default: {PORT}")
    parser.add_argument(
        "--runtime", choices=RUNTIME_PINS, help=f"the board's TFLite runtime; default: {RUNTIME}"
    )
    parser.add_argument(
        "--ssh-option", action="append", default=[], metavar="NAME=VALUE", help="passed to ssh -o"
    )
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--check", action="store_true", help="check the board, change nothing")
    actions.add_argument(
        "--uninstall", action="store_true", help="remove everything from the board"
    )
    arguments = parser.parse_args(argv)
    if bool(arguments.boards) == bool(arguments.inventory):
        parser.error("name boards, such as pi@raspberrypi.local, or an --inventory")
    cli.run(deploy, arguments)


def deploy(arguments: argparse.Namespace) -> None:
    """Check, install or uninstall as `arguments` specify; several boards at once."""
    deployments = list_deployments(arguments)
    action = Action.INSTALL
    if arguments.check or arguments.uninstall:
        action = Action.CHECK if arguments.check else Action.UNINSTALL
    if arguments.inventory is None and len(deployments) == 1:
        deploy_board(deployments[0], action)
    else:
        deploy_fleet(deployments, action)


def list_deployments(arguments: argparse.Namespace) -> list[Deployment]:
    """Return what is installed where; an option takes precedence over the inventory.

    Raises GliosliceError for a board without an address, one that is named twice, an unknown
    runtime and a model that does not exist.
    """
    if arguments.inventory is None:
        boards = [InventoryBoard(name, address=name) for name in arguments.boards]
    else:
        boards = read_inventory(arguments.inventory)
    found = []
    for board in boards:
        if board.address is None:
            raise GliosliceError(f"{arguments.inventory}: board '{board.name}' has no address")
        runtime = arguments.runtime or board.runtime or RUNTIME
        if runtime not in RUNTIME_PINS:
            raise GliosliceError(
                f"{arguments.inventory}: board '{board.name}' has the runtime '{runtime}'; there "
                f"are {', '.join(RUNTIME_PINS)}"
            )
        remote = Remote(board.address, (*board.ssh_options, *arguments.ssh_option))
        model = find_model(arguments.model or board.model)
        port = arguments.port or board.port or PORT
        found.append(Deployment(board.name, remote, model, port, runtime))
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise GliosliceError(f"{twice}: named twice; a board is deployed once")
    return found


@dataclass(frozen=True)
class FleetRow:
    """What became of a board; `note` is its error, or a description of the board."""

    board: str
    host: str
    result: str
    seconds: float
    note: str


@dataclass
class PayloadCache:
    """Makes each payload once, however many boards need it."""

    _made: dict[tuple[object, ...], Payload] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def make(self, model: Path, machine: str, python: tuple[int, int], runtime: str) -> Payload:
        """Return `make_payload` of the same arguments."""
        key = (model, machine, python, runtime)
        with self._lock:  # pip writes to folders that all boards share
            if key not in self._made:
                self._made[key] = make_payload(model, machine, python, runtime)
            return self._made[key]


def deploy_fleet(deployments: Sequence[Deployment], action: Action) -> None:
    """Do `action` on all boards; one that fails stops no other.

    Raises GliosliceError at the end if any failed.
    """
    payloads = PayloadCache()
    rows: dict[str, FleetRow] = {}
    with ThreadPoolExecutor(AT_ONCE, "deploy") as pool:
        futures = [pool.submit(_deploy_one, one, action, payloads) for one in deployments]
        for future in as_completed(futures):
            row = future.result()
            rows[row.board] = row
            stream = sys.stderr if row.result == FAILED else sys.stdout
            print(f"{row.board}: {row.result}: {row.note}", file=stream, flush=True)
    print("\n".join(format_fleet([rows[one.name] for one in deployments])))
    failed = sum(row.result == FAILED for row in rows.values())
    if failed:
        raise GliosliceError(
            f"{failed} of {len(rows)} boards failed; run the same command again to continue"
        )


def _deploy_one(deployment: Deployment, action: Action, payloads: PayloadCache) -> FleetRow:
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line.strip())
        logger.info("%s: %s", deployment.name, line)

    host, started = deployment.board.target, time.monotonic()
    try:
        result = deploy_board(deployment, action, show, payloads.make).value
        note = lines[0].removeprefix(f"{host}: ")
    except (GliosliceError, OSError) as error:
        fatal = [line for line in lines if line.startswith("must change")]
        result, note = FAILED, "; ".join(fatal) or cli.one_line(error)
    return FleetRow(deployment.name, host, result, time.monotonic() - started, note)


def format_fleet(rows: Sequence[FleetRow]) -> list[str]:
    """Return the lines of the table of all boards."""
    table = [("board", "host", "result", "s")]
    table += [(row.board, row.host, row.result, f"{row.seconds:.0f}") for row in rows]
    widths = [max(len(line[place]) for line in table) for place in range(4)]
    lines = ("  ".join(f"{c:{w}}" for c, w in zip(line, widths, strict=True)) for line in table)
    return [line.rstrip() for line in lines]


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
        removed = bool(board.run(release.UNINSTALL, root=True).strip())
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
    unit = release.make_unit(port, payload.model, coral=runtime == "coral")
    digest = sha256(unit.encode()).hexdigest()
    in_place = set(board.run(release.status_script(payload.release), root=True).split())
    if "complete" not in in_place:
        archive = payload.archive
        show(f"sending {len(payload.files)} files, {len(archive) / 1e6:.0f} MB")
        board.run(release.install_script(payload.release), root=True, send=archive)
    effect = Effect.INSTALLED
    if in_place >= {"complete", "current", "active", digest}:
        show("already installed and running: nothing was changed")
        effect = Effect.UNCHANGED
    else:
        board.run(release.start_script(payload.release), root=True, send=unit.encode())
    for line in board.run(release.test_script(payload.model), root=True).splitlines():
        show(line)
    note_deployment(NotedBoard(board.target, port, date.today().isoformat()))
    show(f"{board.target} waits on {port}; next: glioslice stream CASE --port ...")
    return effect


if __name__ == "__main__":
    main()
