"""The words of `stream.py`'s command line, and which of them go together."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from glioslice import cli

CODECS = ("lossy", "lossless", "webp", "zlib", "raw")
FORMS = ("brats2018", "brats2023", "msd", "regions")
"""Names from `glioslice.wire`, which is not imported for them: see `stream.work`."""

AUTO = "auto"
"""The port that stands for whichever one a board answers at."""

SCRIPT, INSTALLED = "python firmware_host/stream.py", "glioslice-desk"


def parsed(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return what the command line says; ends with the usage if it says what cannot be."""
    installed = Path(sys.argv[0]).stem == INSTALLED
    parser = cli.parser(
        "Stream a case, or a folder of them, to a board, or receive what it plays, and leave mask, "
        "montage and summary.",
        f"{INSTALLED if installed else SCRIPT} --port sim:// --input CASE",
    )
    parser.add_argument(
        "--port", help="such as /dev/ttyUSB0, COM3, socket://pi:4000, sim://, or auto: asks each"
    )
    parser.add_argument("--baud", type=int, help="fix the rate; default: begin at 115200 and agree")
    parser.add_argument(
        "--input", type=Path, metavar="CASE",
        help="a case, or a folder of cases; default: what the board plays",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="MASK",
        help="default: mask.nii.gz; of a folder of cases: a folder, default: masks",
    )  # fmt: skip
    parser.add_argument("--montage", type=Path, metavar="PNG", help="default: beside the mask")
    parser.add_argument("--labels", choices=FORMS, help="of the mask; default: the input's edition")
    parser.add_argument(
        "--report", type=Path, action="append", default=[], metavar="FILE",
        help="FILE.html for people, .csv by slice, .json for a machine; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--view", type=int, nargs="?", const=0, metavar="PORT", help="show the run in the browser"
    )
    parser.add_argument("--open", type=Path, metavar="MASK", help="show a finished case instead")
    parser.add_argument("--force", action="store_true", help="overwrite files that are there")
    parser.add_argument(
        "--allow-model", action="append", default=[], metavar="SHA256", help="accept this model"
    )
    parser.add_argument(
        "--images", choices=CODECS, help="default: lossy; lossless: the smallest that is"
    )
    parser.add_argument("--model", type=Path, help="sim://: the board's model; default: compact")
    parser.add_argument("--play", action="store_true", help="sim://: CASE lies on the board")
    parser.add_argument("--doctor", action="store_true", help="say what is wrong with the line")
    parser.add_argument("--list", action="store_true", help="ask every likely port for a board")
    recordings = parser.add_mutually_exclusive_group()
    recordings.add_argument(
        "--record", type=Path, metavar="FILE", help="keep every frame, images too"
    )
    recordings.add_argument(
        "--record-masks", type=Path, metavar="FILE", help="without images, for a bug report"
    )
    parser.add_argument(
        "--replay", type=Path, metavar="FILE", help="take the masks from a recording, no board"
    )
    parser.add_argument(
        "--at-once", action="store_true", help="--replay: not at the pace of the recording"
    )
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("--json", action="store_true", help="an object a line, for a program")
    loudness.add_argument("--quiet", action="store_true", help="say nothing but what went wrong")
    arguments = parser.parse_args(words)
    _check(parser, arguments)
    return arguments


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with the usage if the words do not go together."""
    _check_replay(parser, arguments)
    if arguments.port is None and not (arguments.doctor or arguments.list or arguments.open):
        parser.error("--port is missing; --port auto finds the board, --list says what is there")
    simulated = (arguments.port or "").lower().startswith("sim:")
    if (arguments.play or arguments.model) and not simulated:
        parser.error("--play and --model are for --port sim://; a real board brings its own")
    if arguments.play and arguments.input is None:
        parser.error("--play needs --input CASE, the case that the board is to hold")
    if arguments.json and (arguments.doctor or arguments.open):
        parser.error("--json is for runs and for --list")


def _check_replay(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Let a replay stand for the port; end with the usage if it is given what a board is for."""
    if arguments.replay is None:
        if arguments.at_once:
            parser.error("--at-once is for --replay FILE")
        return
    others = ("port", "baud", "images", "model", "play", "doctor", "list", "open")
    given = [f"--{name}" for name in others if getattr(arguments, name)]
    if given:
        parser.error(f"--replay FILE needs no board: leave {' and '.join(given)} out")
    arguments.port = str(arguments.replay)
