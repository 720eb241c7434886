"""Install the board's side on a Raspberry Pi over ssh and start it as a service.

    glioslice deploy pi@raspberrypi.local --port /dev/serial0
    glioslice deploy pi@raspberrypi.local --check           # report, change nothing
    glioslice deploy pi@raspberrypi.local --uninstall       # remove everything
    python device/deploy.py pi@raspberrypi.local            # the same from a checkout

The board needs no internet: this machine sends the wheels and the model. A second deployment of the
same files changes nothing, and an interrupted one can be repeated.
"""

import argparse
from collections.abc import Sequence
from hashlib import sha256

from device.deployment import service
from device.deployment.board_state import BoardState, find_board_problems, probe_script, read_state
from device.deployment.payload import RUNTIME_PINS, make_payload
from device.deployment.remote import Remote
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.model_card import find_model


def main(argv: Sequence[str] | None = None) -> None:
    """Install, check or uninstall the board's side."""
    parser = cli.parser(
        "Install the board's side on a Raspberry Pi over ssh.",
        "glioslice deploy pi@raspberrypi.local --port /dev/serial0",
    )
    parser.add_argument("board", metavar="USER@BOARD", help="a host name, as ssh takes it")
    parser.add_argument("--model", help="a shipped size, a folder or a file; default: compact")
    parser.add_argument(
        "--port", default="/dev/serial0", help="the board's serial port; default: %(default)s"
    )
    parser.add_argument(
        "--runtime", choices=RUNTIME_PINS, default="litert", help="default: %(default)s"
    )
    parser.add_argument(
        "--ssh-option", action="append", default=[], metavar="NAME=VALUE", help="passed to ssh -o"
    )
    parser.add_argument("--check", action="store_true", help="check the board, change nothing")
    parser.add_argument("--uninstall", action="store_true", help="remove everything from the board")
    cli.run(deploy, parser.parse_args(argv))


def deploy(arguments: argparse.Namespace) -> None:
    """Check the board, then install or uninstall as `arguments` specify."""
    board = Remote(arguments.board, tuple(arguments.ssh_option))
    if arguments.uninstall:
        board.run(service.UNINSTALL, root=True)
        print(f"{board.target}: glioslice is removed")
        return
    state = check_board(board, arguments.port, arguments.runtime)
    if not arguments.check:
        install(board, state, arguments)


def check_board(board: Remote, port: str, runtime: str) -> BoardState:
    """Print what the board is; raises GliosliceError if something there has to change first."""
    state = read_state(board.run(probe_script(port), root=True))
    print(f"{board.target}: {state.title}", flush=True)
    problems = find_board_problems(state, port, runtime)
    for problem in problems:
        print(f"  {'must change' if problem.fatal else 'warning'}: {problem}", flush=True)
    if any(problem.fatal for problem in problems):
        raise GliosliceError(f"{board.target}: nothing was installed; change the above first")
    return state


def install(board: Remote, state: BoardState, arguments: argparse.Namespace) -> None:
    """Send a release, start it and test it; what is already in place is left alone."""
    model = find_model(arguments.model)
    payload = make_payload(model, state.machine, state.python, arguments.runtime)
    unit = service.make_unit(arguments.port, payload.model, coral=arguments.runtime == "coral")
    digest = sha256(unit.encode()).hexdigest()
    in_place = set(board.run(service.status_script(payload.release), root=True).split())
    if "complete" not in in_place:
        archive = payload.archive
        print(f"sending {len(payload.files)} files, {len(archive) / 1e6:.0f} MB", flush=True)
        board.run(service.install_script(payload.release), root=True, send=archive)
    if in_place >= {"complete", "current", "active", digest}:
        print("already installed and running: nothing was changed", flush=True)
    else:
        board.run(service.start_script(payload.release), root=True, send=unit.encode())
    print(board.run(service.test_script(payload.model), root=True), end="")
    print(f"{board.target} waits on {arguments.port}; next: glioslice stream CASE --port ...")


if __name__ == "__main__":
    main()
