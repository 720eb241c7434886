"""Time slices on this machine or on a board, and compare with the board's baseline.

    python benchmarks/board_baseline.py                              # this machine
    python benchmarks/board_baseline.py ssh://pi@raspberrypi.local   # a deployed board
    pytest tests/device --device ssh://pi@raspberrypi.local          # with its self-test

Baselines are in `benchmarks/boards/`; a board without one gets one. The reference network is made
here, because a board lacks the converter, and is copied over ssh for the run.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from device.bench import check_speed, format_result
from device.deployment.remote_board import PYTHON, Remote
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

BOARDS = ROOT / "benchmarks" / "boards"
REFERENCE = ROOT / "build" / "mobilenetv2-int8.tflite"

REMOTE_SCRIPT = """directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cat > "$directory/reference.tflite"
{command} --reference "$directory/reference.tflite"
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and measure; exit code 1 means too slow."""
    parser = cli.parser(
        "Time slices here or on a board, and compare with the board's baseline.",
        "python benchmarks/board_baseline.py ssh://pi@raspberrypi.local --max-ms 100",
    )
    parser.add_argument("board", nargs="?", metavar="SSH", help="a board as ssh takes it")
    parser.add_argument("--threads", default="1,2", help="default: %(default)s")
    parser.add_argument("--seconds", default="60", help="default: %(default)s")
    parser.add_argument(
        "--max-ms", type=float, metavar="MS", help="fail if the p99 of a slice is above this"
    )
    parser.add_argument(
        "--reference", type=Path, metavar="FILE", help="default: MobileNetV2 with random weights"
    )
    parser.add_argument("--boards", type=Path, default=BOARDS, metavar="FOLDER")
    parser.add_argument("--model", help="a .tflite file there (default: the wheel's)")
    parser.add_argument("--python", default=PYTHON, help="the board's (default: %(default)s)")
    parser.add_argument(
        "--ssh-option", action="append", default=[], metavar="NAME=VALUE", help="passed to ssh -o"
    )
    cli.run(measure, parser.parse_args(argv))


def measure(arguments: argparse.Namespace) -> None:
    """Measure, print the figures and compare them with the baseline."""
    reference = arguments.reference or reference_file()
    command = ["-m", "device", "bench", "--json", "-"]
    command += ["--threads", arguments.threads, "--seconds", arguments.seconds]
    command += ["--model", arguments.model] if arguments.model else []
    if arguments.board:
        board = Remote(arguments.board, tuple(arguments.ssh_option))
        result = measure_board(board, [arguments.python, *command], reference)
    else:
        result = measure_here([sys.executable, *command], reference)
    for line in format_result(result):
        print(line)
    if not check_speed(result, arguments.max_ms, arguments.boards):
        sys.exit(1)


def reference_file() -> Path:
    """Return the reference network's file, after making it if it is missing."""
    if not REFERENCE.is_file():
        from benchmarks.mobilenet_baseline import int8_file  # TensorFlow takes seconds to import

        write_bytes(REFERENCE, int8_file())
    return REFERENCE


def measure_here(command: Sequence[str], reference: Path) -> dict[str, Any]:
    """Run `device bench` here, in a process of its own."""
    done = subprocess.run(
        [*command, "--reference", reference.absolute()],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise GliosliceError(f"device bench: {(done.stderr.splitlines() or ['no reason'])[-1]}")
    return parse_bench_output(done.stdout)


def measure_board(board: Remote, command: Sequence[str], reference: Path) -> dict[str, Any]:
    """Run `device bench` on a board."""
    script = REMOTE_SCRIPT.format(command=shlex.join(command))
    return parse_bench_output(board.run(script, send=reference.read_bytes()))


def parse_bench_output(text: str) -> dict[str, Any]:
    """Return the JSON object on the last line that was printed."""
    try:
        result: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise GliosliceError(
            "device bench printed no result; is the same version of glioslice installed there?"
        ) from None
    return result


if __name__ == "__main__":
    main()
