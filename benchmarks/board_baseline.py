"""Time the slices on this machine or on a board, and hold them against the board's file.

    python benchmarks/board_baseline.py                                  # this machine
    python benchmarks/board_baseline.py ssh://pi@raspberrypi.local       # a board, as deploy.py left it
    pytest tests/device --device ssh://pi@raspberrypi.local      # with its self-test

Files are in `benchmarks/boards/`; a board without one gets one. The reference network is made
here, for a board has nothing to make it with, and is carried over ssh for the run.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.folds import ROOT
from device.bench import lines
from device.bench_baseline import judged
from device.deployment.board_state import PYTHON
from device.deployment.remote import Remote
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

BOARDS = ROOT / "benchmarks" / "boards"
REFERENCE = ROOT / "build" / "mobilenetv2-int8.tflite"

CARRIED = """directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cat > "$directory/reference.tflite"
{words} --reference "$directory/reference.tflite"
"""


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and measure; too slow ends with exit code 1."""
    parser = cli.parser(
        "Time the slices here or on a board, held against the board's file.",
        "python benchmarks/board_baseline.py ssh://pi@raspberrypi.local --max-ms 100",
    )
    parser.add_argument("board", nargs="?", metavar="SSH", help="a board as ssh takes it")
    parser.add_argument("--threads", default="1,2", help="default: %(default)s")
    parser.add_argument("--seconds", default="60", help="default: %(default)s")
    parser.add_argument("--max-ms", type=float, metavar="MS", help="fail if p99 of a slice is more")
    parser.add_argument("--reference", type=Path, metavar="FILE", help="default: MobileNetV2, made")
    parser.add_argument("--boards", type=Path, default=BOARDS, metavar="FOLDER")
    parser.add_argument("--model", help="a .tflite file there; default: the wheel's")
    parser.add_argument("--python", default=PYTHON, help="the board's; default: %(default)s")
    parser.add_argument(
        "--ssh-option", action="append", default=[], metavar="NAME=VALUE", help="passed to ssh -o"
    )
    cli.run(work, parser.parse_args(words))


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    reference = arguments.reference or made_reference()
    words = ["-m", "device", "bench", "--json", "-"]
    words += ["--threads", arguments.threads, "--seconds", arguments.seconds]
    words += ["--model", arguments.model] if arguments.model else []
    if arguments.board:
        board = Remote(arguments.board, tuple(arguments.ssh_option))
        result = far_result(board, [arguments.python, *words], reference)
    else:
        result = near_result([sys.executable, *words], reference)
    for line in lines(result):
        print(line)
    if judged(result, arguments.max_ms, arguments.boards, print):
        sys.exit(1)


def made_reference() -> Path:
    """Return the reference network's file, made if it is not there yet."""
    if not REFERENCE.is_file():
        from benchmarks.mobilenet_baseline import int8_file  # TensorFlow takes seconds to import

        write_bytes(REFERENCE, int8_file())
    return REFERENCE


def near_result(words: Sequence[str], reference: Path) -> dict[str, Any]:
    """Return what `device bench` measures here, in a process of its own."""
    done = subprocess.run(
        [*words, "--reference", reference.absolute()],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise GliosliceError(f"device bench: {(done.stderr.splitlines() or ['no reason'])[-1]}")
    return read_result(done.stdout)


def far_result(board: Remote, words: Sequence[str], reference: Path) -> dict[str, Any]:
    """Return what `device bench` measures on a board."""
    script = CARRIED.format(words=shlex.join(words))
    return read_result(board.run(script, send=reference.read_bytes()))


def read_result(text: str) -> dict[str, Any]:
    """Return the JSON object on the last line that was printed."""
    try:
        result: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise GliosliceError("device bench told no result; is the same glioslice there?") from None
    return result


if __name__ == "__main__":
    main()
