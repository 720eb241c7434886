"""The board's runner: it waits at a serial line, slices come, masks leave.

    python -m device --port /dev/ttyGS0                   # serve: the host sends the slices
    python -m device --port /dev/ttyGS0 --input CASE      # play: the case lies here, masks cross
    python -m device selftest                             # is this board right?
    python -m device bench                                # how fast is it?

It stays for every host that comes, until SIGTERM or Ctrl-C, which end it after the slice in hand.
"""

import argparse
import importlib
import sys
from pathlib import Path

from device.board import make_board
from device.engine import Engine
from device.lifecycle import READY, STOPPING, Stop, notify
from device.server import run_sessions
from glioslice import cli
from glioslice.malloc import settle_memory
from glioslice.model_card import default_model
from glioslice.wire.connection import Connection
from glioslice.wire.ports import open_port

COMMANDS = ("selftest", "bench")
"""Modules of this package with a `main` of their own, read only where they are asked for."""


def main() -> None:
    """Run until told to stop (exit code 0) or until the line is lost (2)."""
    settle_memory()
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        importlib.import_module(f"device.{sys.argv[1]}").main(sys.argv[2:])
        return
    parser = cli.parser(
        "Serve slices over a serial line, or play a case that lies on this board.",
        "python -m device --port /dev/ttyGS0 --model models/compact/compact-int8.tflite",
    )
    parser.prog = "python -m device"
    parser.add_argument("--port", required=True, help="a serial device or a pyserial URL")
    parser.add_argument("--model", type=Path, help="a .tflite file with its card; default: compact")
    parser.add_argument("--input", type=Path, metavar="CASE", help="a case on this board to play")
    parser.add_argument("--baud", type=int, help="fix the rate; default: begin at 115200 and agree")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--delegate", help="an accelerator's library, such as libedgetpu.so.1")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    model = arguments.model or default_model()
    engine = Engine(model, threads=arguments.threads, delegate=arguments.delegate)
    played = None
    if arguments.input:
        from device.board import read_played  # serving needs no part of it

        played = read_played(arguments.input, engine)
    board = make_board(engine, model, played)
    port = open_port(arguments.port, arguments.baud)
    with Connection(port, active=False, say=say) as connection:
        stop = Stop(last_resort=connection.close)
        stop.on_signals()
        say(f"READY {board.hello.model} {board.hello.sha256[:12]} on {arguments.port}")
        notify(READY)
        run_sessions(connection, board, stop, say)
        notify(STOPPING)


def say(line: str) -> None:
    """Print a line now: whoever started this process may wait for it."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
