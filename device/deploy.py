"""Install the board's side on a Raspberry Pi over ssh, and let it wait at the serial line.

    python device/deploy.py pi@raspberrypi.local --port /dev/serial0
    python device/deploy.py pi@raspberrypi.local --check        # look, change nothing
    python device/deploy.py pi@raspberrypi.local --uninstall    # leave nothing there

The board needs no internet: wheels and model come from here. Doing it twice changes nothing, and
one that was interrupted can be repeated.
"""

import argparse
from hashlib import sha256

from device.deployment import service
from device.deployment.board_state import BoardState, findings, probe, read_state
from device.deployment.payload import RUNTIMES, chosen_model, make_payload
from device.deployment.remote import Remote
from glioslice import cli
from glioslice.errors import GliosliceError


def main() -> None:
    """Read the command line and deploy."""
    parser = cli.parser(
        "Install the board's side on a Raspberry Pi over ssh.",
        "python device/deploy.py pi@raspberrypi.local --port /dev/serial0",
    )
    parser.add_argument("board", metavar="USER@BOARD", help="as ssh takes it")
    parser.add_argument(
        "--model", default="compact", help="a shipped size or a .tflite file with its card"
    )
    parser.add_argument(
        "--port", default="/dev/serial0", help="the board's line; default: %(default)s"
    )
    parser.add_argument("--runtime", choices=RUNTIMES, default="litert")
    parser.add_argument(
        "--ssh-option", action="append", default=[], metavar="NAME=VALUE", help="passed to ssh -o"
    )
    parser.add_argument("--check", action="store_true", help="look at the board, change nothing")
    parser.add_argument("--uninstall", action="store_true", help="remove all that was installed")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    board = Remote(arguments.board, tuple(arguments.ssh_option))
    if arguments.uninstall:
        board.run(service.REMOVING, root=True)
        print(f"{board.target}: nothing of glioslice is left")
        return
    state = looked_at(board, arguments.port, arguments.runtime)
    if not arguments.check:
        install(board, state, arguments)


def looked_at(board: Remote, port: str, runtime: str) -> BoardState:
    """Print what the board is; raises GliosliceError if something there has to change first."""
    state = read_state(board.run(probe(port), root=True))
    print(f"{board.target}: {state.title}", flush=True)
    found = findings(state, port, runtime)
    for finding in found:
        print(f"  {'must change' if finding.fatal else 'warning'}: {finding}", flush=True)
    if any(finding.fatal for finding in found):
        raise GliosliceError(f"{board.target}: nothing was installed; change what is named above")
    return state


def install(board: Remote, state: BoardState, arguments: argparse.Namespace) -> None:
    """Put a release there, start it and test it; what stands already is left alone."""
    model = chosen_model(arguments.model)
    payload = make_payload(model, state.machine, state.python, arguments.runtime)
    unit = service.unit(arguments.port, payload.model, coral=arguments.runtime == "coral").encode()
    stands = set(board.run(service.standing(payload.release), root=True).split())
    if "complete" not in stands:
        archive = payload.archive
        print(f"sending {len(payload.files)} files, {len(archive) / 1e6:.0f} MB", flush=True)
        board.run(service.installing(payload.release), root=True, send=archive)
    if stands >= {"complete", "current", "active", sha256(unit).hexdigest()}:
        print("it is installed and runs: nothing was changed", flush=True)
    else:
        board.run(service.starting(payload.release), root=True, send=unit)
    print(board.run(service.checking(payload.model), root=True), end="")
    print(
        f"{board.target} waits on {arguments.port}; now: python firmware_host/stream.py --port ..."
    )


if __name__ == "__main__":
    main()
