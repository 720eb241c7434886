"""Serve slices over a serial link, or play a case stored on this board.

    glioslice serve --port /dev/ttyGS0                    # the host sends the slices
    glioslice serve --port /dev/ttyGS0 CASE               # the case is here, only masks are sent
    python -m device --port /dev/ttyGS0                   # the same as glioslice serve
    python -m device selftest                             # the same as glioslice selftest
    python -m device bench                                # the same as glioslice bench

It serves one host after another. SIGTERM and Ctrl-C stop it after the current slice.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from device.board import load_played_case, make_board
from device.engine import Engine, add_engine_options, add_mirroring_option
from device.server import READY, STOPPING, StopRequest, notify, run_sessions
from glioslice import cli
from glioslice.case_options import add_missing_option
from glioslice.cli import configure_malloc
from glioslice.model_card import find_model
from glioslice.wire.connection import Connection
from glioslice.wire.ports import open_port

COMMANDS = ("selftest", "bench")
"""Modules of this package that `python -m device NAME` runs instead of the server."""


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until stopped (exit code 0) or until the port is lost (2)."""
    configure_malloc()
    parser = cli.parser(
        "Serve slices over a serial link, or play a case stored on this board.",
        "glioslice serve --port /dev/ttyGS0\n\nother commands of `python -m device`:\n"
        "  selftest   check this board against the model's goldens\n"
        "  bench      measure this board",
    )
    parser.add_argument(
        "case", nargs="?", type=Path, metavar="CASE", help="a case on this board to play"
    )
    parser.add_argument("--input", type=Path, metavar="CASE", help="the same as CASE")
    parser.add_argument("--port", required=True, help="a serial device or a pyserial URL")
    add_engine_options(parser)
    parser.add_argument(
        "--baud", type=cli.positive, help="fix the rate; default: negotiate, from 115200"
    )
    add_mirroring_option(parser)
    add_missing_option(parser)
    parser.add_argument("--quiet", action="store_true", help="log errors only")
    arguments = parser.parse_args(argv)
    arguments.verbose = max(1, arguments.verbose)  # the log of its sessions is a service's journal
    cli.run(serve, arguments)


def serve(arguments: argparse.Namespace) -> None:
    """Serve slices; play the case that `arguments` name, if any."""
    model = find_model(arguments.model)
    engine = Engine(
        model,
        threads=arguments.threads,
        delegate=arguments.delegate,
        mirroring=False if arguments.no_mirroring else None,
    )
    case = arguments.case or arguments.input
    played = load_played_case(case, engine, arguments.missing) if case else None
    board = make_board(engine, model, played)
    port = open_port(arguments.port, arguments.baud)
    with Connection(port, active=False) as connection:
        stop = StopRequest(force=connection.close)
        stop.install_handlers()
        # Whoever started this process may wait for this line.
        print(
            f"READY {board.hello.model} {board.hello.sha256[:12]} on {arguments.port}", flush=True
        )
        notify(READY)
        run_sessions(connection, board, stop)
        notify(STOPPING)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        name = sys.argv.pop(1)
        sys.argv[0] = f"python -m device {name}"
        importlib.import_module(f"device.{name}").main()
    else:
        sys.argv[0] = "python -m device"
        main()
