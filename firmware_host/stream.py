"""Stream a case to a board over a serial line, or receive what it plays; masks become a volume.

    python firmware_host/stream.py --port /dev/ttyUSB0 [--input CASE] [--output mask.nii.gz]
    python firmware_host/stream.py --port sim:// --input CASE     # a board on a virtual line
    python firmware_host/stream.py --port P --input CASE --view   # with a live page in the browser
    python firmware_host/stream.py --open mask.nii.gz --input CASE    # the page of a finished case
    python firmware_host/stream.py --doctor [--port P]            # what is wrong with the line?

A run that ends early keeps what arrived as `<name>.partial.nii.gz`, never under the final name.
A report's name says what it is: .html for people, .csv volumes by slice, else JSON that holds: case
(null for one played by a board), complete, mode, images (codec), slices, masks, seconds,
slices_per_second, device_ms {p50, p90, p99}, bytes_up, bytes_down, retransmits (the host's),
volumes_ml and diameters_mm {WT, TC, ET}, model {name, sha256}, labels, warnings.
"""

import argparse
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from glioslice import command

CODECS = ("webp", "zlib", "raw")
FORMS = ("brats2018", "brats2023", "msd", "regions")
"""Names from `glioslice.wire`, which is not imported for them: see `work`."""

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What a `kill` and a closed terminal send; Windows has no SIGHUP."""

FarEnd = Callable[[argparse.Namespace], list[str]]


def main(words: Sequence[str] | None = None, far_end: FarEnd | None = None) -> None:
    """Read the command line and stream.

    `far_end` returns the command that `sim://` starts, by default the device's own.
    """
    stop_like_ctrl_c()
    parser = command.parser(
        "Stream a case to a board, or receive what it plays, and leave mask, montage and summary.",
        "python firmware_host/stream.py --port sim:// --input CASE",
    )
    parser.add_argument("--port", help="such as /dev/ttyUSB0, COM3, socket://pi:4000 or sim://")
    parser.add_argument("--baud", type=int, help="fix the rate; default: begin at 115200 and agree")
    parser.add_argument("--input", type=Path, metavar="CASE", help="default: what the board plays")
    parser.add_argument("--output", type=Path, default=Path("mask.nii.gz"), metavar="MASK")
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
    parser.add_argument("--images", choices=CODECS, help="default: the smallest")
    parser.add_argument("--model", type=Path, help="sim://: the board's model; default: compact")
    parser.add_argument("--play", action="store_true", help="sim://: CASE lies on the board")
    parser.add_argument("--doctor", action="store_true", help="say what is wrong with the line")
    arguments = parser.parse_args(words)
    check_words(parser, arguments)
    command.run(lambda given: work(given, far_end), arguments)


def check_words(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """End with the usage if the words do not go together."""
    if arguments.port is None and not (arguments.doctor or arguments.open):
        parser.error("--port is missing; --doctor lists the ports there are")
    simulated = (arguments.port or "").lower().startswith("sim:")
    if (arguments.play or arguments.model) and not simulated:
        parser.error("--play and --model are for --port sim://; a real board brings its own")
    if arguments.play and arguments.input is None:
        parser.error("--play needs --input CASE, the case that the board is to hold")


def stop_like_ctrl_c() -> None:
    """Let a `kill` or a closed terminal end a run like Ctrl-C: what arrived is kept."""
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Let Ctrl-C leave on the spot while modules load: numpy makes an ImportError of it."""

    def leave(_number: int, _frame: FrameType | None) -> None:
        os.write(2, b"interrupted\n")
        os._exit(130)

    numbers = (signal.SIGINT, *ENDING)
    # One that is ignored, as under nohup, stays so.
    before = {n: signal.signal(n, leave) for n in numbers if callable(signal.getsignal(n))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def work(arguments: argparse.Namespace, far_end: FarEnd | None) -> None:
    """Do what the command line says."""
    with leaving_at_once():
        from firmware_host import board, desk, doctor
        from firmware_host.view import finished

    if arguments.open:
        finished.show(arguments)
    else:
        task = doctor.work if arguments.doctor else desk.stream
        task(arguments, far_end or board.device_command)


if __name__ == "__main__":
    main()
