"""The command line of `stream.py`: its options, and which of them go together."""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from glioslice import cli
from glioslice.case_options import add_case_options, add_missing_option

CODECS = ("lossy", "lossless", "webp", "zlib", "raw")
SCHEME_NAMES = ("brats2018", "brats2023", "msd", "regions")
"""Names from `glioslice.wire`, which is not imported for them: see `stream.run_command`."""

AUTO = "auto"
"""The value of --port that stands for the port where a board replies."""

FarEnd = Callable[[argparse.Namespace], list[str]]
"""Returns the command of the board at the end of a simulated line."""


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options; exits with the usage if they do not go together."""
    parser = cli.parser(
        "Stream a case, or a folder of cases, to a board and save mask, montage and reports. "
        "Without CASE, receive what the board plays, or stream the phantom.",
        "glioslice stream CASE --port /dev/ttyUSB0",
    )
    parser.add_argument(
        "case", type=Path, nargs="?", metavar="CASE", help="a case, or a folder of cases"
    )
    parser.add_argument("--input", type=Path, metavar="CASE", help="the same as CASE")
    parser.add_argument(
        "--port", action="append", default=[],
        help="such as /dev/ttyUSB0, COM3, socket://pi:4000, sim://, or auto: find it; may be "
        "repeated for several boards",
    )  # fmt: skip
    parser.add_argument(
        "--baud", type=cli.positive, help="fix the baud rate; default: negotiate it"
    )
    parser.add_argument("--images", choices=CODECS, help="image codec; default: lossy")
    parser.add_argument(
        "--allow-model", type=_digest, action="append", default=[], metavar="SHA256",
        help="accept a board with this model, which is not a shipped one",
    )  # fmt: skip
    parser.add_argument(
        "--model",
        help="model of a simulated board: a shipped size, a folder or a file; default: compact",
    )
    parser.add_argument(
        "--play", action="store_true", help="with --port sim://: the board reads CASE itself"
    )
    add_missing_option(parser)
    add_case_options(parser)
    _add_boards(parser)
    _add_outputs(parser)
    _add_recordings(parser)
    _add_series_options(parser)
    aliases = parser.add_argument_group("aliases of other commands")
    aliases.add_argument("--doctor", action="store_true", help="glioslice doctor")
    aliases.add_argument("--list", action="store_true", help="glioslice ports")
    aliases.add_argument("--open", type=Path, metavar="MASK", help="glioslice view MASK")
    arguments = parser.parse_args(argv)
    if arguments.case and arguments.input:
        parser.error("CASE and --input are the same; give one of them")
    arguments.case = arguments.case or arguments.input
    arguments.ports, arguments.port = arguments.port, (arguments.port or [None])[0]
    _check(parser, arguments)
    return arguments


def _add_boards(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several boards")
    group.add_argument(
        "--boards", type=_boards, metavar="all|N|FILE",
        help="with --port auto every board that replies, or N of them; with --port sim:// N boards "
        "on simulated lines; FILE.toml: the boards of an inventory",
    )  # fmt: skip
    group.add_argument(
        "--share-case", action="store_true", help="split the slices of one case among the boards"
    )
    group.add_argument(
        "--allow-mixed", action="store_true", help="accept boards with different models"
    )


def _boards(text: str) -> str:
    if text != "all" and not text.endswith(".toml") and not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"'{text}' is not all, a number of boards or a .toml file")
    return text


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    outputs = parser.add_argument_group("outputs")
    outputs.add_argument(
        "--output", type=Path, metavar="MASK",
        help="default: CASE-mask.nii.gz; for a folder of cases a folder, default: masks",
    )  # fmt: skip
    outputs.add_argument("--montage", type=Path, metavar="PNG", help="default: beside the mask")
    outputs.add_argument(
        "--labels", choices=SCHEME_NAMES, help="label scheme of the mask; default: the input's"
    )
    outputs.add_argument(
        "--report", type=Path, action="append", default=[], metavar="FILE",
        help="FILE.html to read, FILE.csv by slice, FILE.json; may be repeated",
    )  # fmt: skip
    outputs.add_argument(
        "--raw", action="store_true", help="leave the masks as the board sends them"
    )
    outputs.add_argument(
        "--dicom-out", type=Path, metavar="DIR",
        help="CASE is a scanner's folder of DICOM series: the mask on its frames goes here",
    )  # fmt: skip
    outputs.add_argument("--force", action="store_true", help="overwrite existing files")
    outputs.add_argument(
        "--view", type=cli.http_port, nargs="?", const=0, metavar="PORT",
        help="show the run live in the browser, on this HTTP port",
    )  # fmt: skip
    format_ = outputs.add_mutually_exclusive_group()
    format_.add_argument("--json", action="store_true", help="print one JSON object per line")
    format_.add_argument("--quiet", action="store_true", help="print errors only")


def _add_series_options(parser: argparse.ArgumentParser) -> None:
    """Add what `glioslice prepare` asks for if the tags of a study do not decide."""
    group = parser.add_argument_group(
        "a scanner's folder of DICOM series", "--t1ce and the others then take a series' number"
    )
    group.add_argument(
        "--study", type=cli.positive, metavar="N", help="which study of several, from 1"
    )
    group.add_argument(
        "--brain-extraction", metavar="METHOD", help="as in glioslice prepare; default: deepbet"
    )


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a SHA-256, which has 64 hexadecimal digits"
        )
    return text


def _add_recordings(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recordings")
    recordings = group.add_mutually_exclusive_group()
    recordings.add_argument(
        "--record", type=Path, metavar="FILE", help="record every frame, with images"
    )
    recordings.add_argument(
        "--record-masks", type=Path, metavar="FILE", help="without images, for a bug report"
    )
    group.add_argument(
        "--replay", type=Path, metavar="FILE", help="take the masks from a recording, not a board"
    )
    group.add_argument(
        "--at-once",
        action="store_true",
        help="with --replay: as fast as possible, not in real time",
    )


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exit with the usage if the options do not go together."""
    _check_replay(parser, arguments)
    inventory = (arguments.boards or "").endswith(".toml")
    others = arguments.doctor or arguments.list or arguments.open or inventory
    if arguments.port is None and not others:
        parser.error("--port is missing; --port auto finds the board, `glioslice ports` lists all")
    simulated = (arguments.port or "").lower().startswith("sim:")
    if (arguments.play or arguments.model) and not simulated:
        parser.error("--play and --model are for --port sim://; a real board has its own model")
    several = arguments.boards is not None or len(arguments.ports) > 1
    if (arguments.share_case or arguments.allow_mixed) and not several:
        parser.error("--share-case and --allow-mixed are for several boards: see --boards")
    if arguments.play and arguments.case is None:
        parser.error("--play needs CASE, which the board reads")
    if arguments.dicom_out and (arguments.play or arguments.replay or arguments.case is None):
        parser.error("--dicom-out needs a folder of DICOM series that the host reads")
    if arguments.json and (arguments.doctor or arguments.open):
        parser.error("--json is for runs and for --list")


def _check_replay(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Let a replay take the place of the port; reject options that need a board."""
    if arguments.replay is None:
        if arguments.at_once:
            parser.error("--at-once is for --replay FILE")
        return
    others = ("port", "boards", "baud", "images", "model", "play", "doctor", "list", "open")
    given = [f"--{name}" for name in others if getattr(arguments, name)]
    if given:
        parser.error(f"--replay FILE needs no board: leave {' and '.join(given)} out")
    arguments.port = str(arguments.replay)
    arguments.ports = [arguments.port]
