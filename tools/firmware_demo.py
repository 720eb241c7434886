"""Stream a case into the firmware, which runs in QEMU at the end of a simulated serial link.

    make firmware-demo                          # build all, stream the phantom with the live page
    python tools/firmware_demo.py --view CASE   # other options are those of stream.py

QEMU gives the simulated line the rate that the firmware sets.
"""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks import ROOT
from firmware_host import stream
from glioslice import cli
from glioslice.errors import GliosliceError

PROGRAM, PACKAGE = "qemu-system-arm", "qemu-system-arm"
BAUD = 921600
"""Which the Makefile gives to the firmware."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and stream."""
    parser = cli.parser(
        "Stream a case into the firmware in QEMU; other options are those of stream.py.",
        "python tools/firmware_demo.py --view",
    )
    parser.add_argument("--board", default="mps2-an500", metavar="BOARD")
    arguments, options = parser.parse_known_args(argv)
    cli.run(lambda given: run_demo(given, options), arguments)


def run_demo(arguments: argparse.Namespace, options: Sequence[str]) -> None:
    """Run stream.py with QEMU as the board; raises GliosliceError if something is missing."""
    elf = ROOT / "build" / "firmware" / arguments.board / "firmware.elf"
    if not elf.is_file():
        raise GliosliceError(f"{elf}: there is no such file; make firmware-demo builds it")
    if shutil.which(PROGRAM) is None:
        raise GliosliceError(f"{PROGRAM} is missing; install the package {PACKAGE}")
    command = qemu_command(arguments.board, elf)
    stream.main(["--port", "sim://", "--baud", str(BAUD), *options], lambda _: command)


def qemu_command(
    board: str, elf: Path, serial: str = "{port}", monitor: str = "none", *more: str
) -> list[str]:
    """Return the command that runs a program; `{port}` is the end of the simulated line."""
    options = ["-display", "none", "-serial", serial, "-monitor", monitor, *more]
    options += ["-semihosting-config", "enable=on,target=native", "-kernel", str(elf)]
    return [PROGRAM, "-M", board, *options]


if __name__ == "__main__":
    main()
