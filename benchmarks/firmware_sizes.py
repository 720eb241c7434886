"""Measure flash and RAM of the firmware and of its parts, for docs/firmware.md.

    python benchmarks/firmware_sizes.py           # sizes.csv and docs/firmware.md
    python benchmarks/firmware_sizes.py --pages   # the page from benchmarks/firmware/sizes.csv

It makes the tables of the compact network, builds the firmware for each board and counts what the
linker and the compiler report. It needs gcc-arm-none-eabi and libnewlib-arm-none-eabi.
"""

import argparse
import csv
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from benchmarks import ROOT
from benchmarks.pages import fill, table
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes

FIRMWARE = ROOT / "device" / "firmware"
SIZES_FILE = ROOT / "benchmarks" / "firmware" / "sizes.csv"
PAGE = ROOT / "docs" / "firmware.md"
MODEL = ROOT / "models" / "compact"
BOARDS = {"mps2-an500": "M7", "mps3-an547": "M55"}
"""With their core."""

PROBE = """#include "server.h"
char link_ram[sizeof(struct wire_link) + 64 + 64 + 2 * WIRE_FRAME(64)];
char vp8_ram[sizeof(struct vp8)];
"""


@dataclass(frozen=True)
class Size:
    """Bytes of a part on a board. `ram` has the stack that the linker script reserves."""

    board: str
    part: str
    flash: int
    ram: int


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and measure."""
    parser = cli.parser(
        "Measure flash and RAM of the firmware.", "python benchmarks/firmware_sizes.py"
    )
    parser.add_argument("--pages", action="store_true", help="write the page from the last figures")
    cli.run(write_sizes, parser.parse_args(argv))


def write_sizes(arguments: argparse.Namespace) -> None:
    """Measure unless told otherwise, and write the page."""
    if not arguments.pages:
        with tempfile.TemporaryDirectory() as folder:
            rows = list(measure(Path(folder)))
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Size)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
        SIZES_FILE.parent.mkdir(exist_ok=True)
        write_bytes(SIZES_FILE, text.getvalue().encode())
    with SIZES_FILE.open(encoding="utf-8", newline="") as file:
        read = [
            Size(r["board"], r["part"], int(r["flash"]), int(r["ram"]))
            for r in csv.DictReader(file)
        ]
    fill(PAGE, {"firmware sizes": sizes_table(read)})


def sizes_table(sizes: Sequence[Size]) -> str:
    """Return the table of the page."""
    rows = [(one.board, one.part, f"{one.flash:,}", f"{one.ram:,}") for one in sizes]
    return table(("board", "part", "flash", "RAM"), rows)


def measure(folder: Path) -> Iterator[Size]:
    """Yield the sizes on each board."""
    tables = folder / "tables"
    file = MODEL / f"{MODEL.name}-int8.tflite"
    run(sys.executable, "convert/targets/firmware.py", str(file), "--out", str(tables))
    run(sys.executable, "tools/firmware_model.py", str(MODEL), "--out", str(tables))
    (folder / "probe.c").write_text(PROBE, encoding="utf-8")
    for board, core in BOARDS.items():
        out = folder / board
        make = ["make", "-s", "-C", str(FIRMWARE), f"BOARD={board}", f"OUT={out}"]
        make.append(f"TABLES={tables}")
        run(*make)
        run(*make, "PROGRAM=echo")
        run(*make, f"PROGRAM={folder / 'probe.c'}", str(out / "probe.c" / "probe.c.o"))
        name = f"{board}, {core}"
        ram = {line.split()[3]: int(line.split()[1], 16) for line in symbols(out)}
        yield Size(name, "all, with the compact network", *linked(out / "firmware.elf"))
        built = out / "firmware"
        link = object_flash(built / "frame.c.o") + object_flash(built / "link.c.o")
        yield Size(name, "the link, its smallest window", link, ram["link_ram"])
        yield Size(name, "lossy images", object_flash(built / "vp8.c.o"), ram["vp8_ram"])
        yield Size(name, "the example echo, all of it", *linked(out / "echo.elf"))


def run(*command: str) -> str:
    """Return what a command prints; raises GliosliceError if it fails."""
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    except OSError as error:
        raise GliosliceError(f"{command[0]}: cannot be run ({error.strerror})") from error
    if result.returncode:
        raise GliosliceError(f"{command[0]} failed: {result.stderr.strip()[-500:]}")
    return result.stdout


def symbols(out: Path) -> list[str]:
    """Return address, size, kind and name of each symbol of the probe."""
    probe = str(out / "probe.c" / "probe.c.o")
    return run("arm-none-eabi-nm", "--print-size", "--defined-only", probe).splitlines()


def object_flash(file: Path) -> int:
    """Return the code and constants of an object file."""
    text, data = run("arm-none-eabi-size", str(file)).splitlines()[1].split()[:2]
    return int(text) + int(data)


def linked(file: Path) -> tuple[int, int]:
    """Return flash and RAM of a program."""
    text, data, bss = map(int, run("arm-none-eabi-size", str(file)).splitlines()[1].split()[:3])
    return text + data, data + bss


if __name__ == "__main__":
    main()
