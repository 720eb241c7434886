"""Measure flash, RAM, stack and instructions of the firmware, for docs/firmware.md.

    python benchmarks/firmware_sizes.py           # sizes.csv and docs/firmware.md
    python benchmarks/firmware_sizes.py --pages   # the page from benchmarks/firmware/sizes.csv

It makes the tables of the compact network, builds the firmware for each board and counts what the
linker and the compiler report. Then each board serves the golden slices in QEMU, where an
instruction takes a nanosecond of the board's clock. It needs gcc-arm-none-eabi,
libnewlib-arm-none-eabi and qemu-system-arm.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks import ROOT
from benchmarks.firmware_network import ASSUMED
from benchmarks.pages import fill, read_csv, table, write_csv
from device.goldens import read_slices
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.wire.codecs import encode_image
from glioslice.wire.connection import Connection
from glioslice.wire.messages import Empty, HostHello, Mask, Mode, Slice, Start, receive, send
from glioslice.wire.ports import open_port
from tools.firmware_demo import BAUD, qemu_command

FIRMWARE = ROOT / "device" / "firmware"
SIZES_FILE = ROOT / "benchmarks" / "firmware" / "sizes.csv"
COSTS_FILE = ROOT / "benchmarks" / "firmware" / "costs.csv"
PAGE = ROOT / "docs" / "firmware.md"
MODEL = ROOT / "models" / "compact"
BOARDS = {
    "mps2-an385": "M0+",
    "mps2-an386": "M4",
    "mps2-an500": "M7",
    "mps2-an505": "M33",
    "mps3-an547": "M55",
}
"""With the core that the firmware is compiled for: a Cortex-M3 runs the code of an M0+."""

PARTS = {"mps2-an500", "mps3-an547"}
"""Boards of which the table shows each part."""

WHOLE, LINK = "all, with the compact network", "the link, its smallest window"
IMAGES = "lossy images"

COUNTED = ("-icount", "shift=0")
"""What lets QEMU count: an instruction takes a nanosecond."""

UNUSED_STACK = 0xA5A5A5A5
"""What boards/core.c paints the stack with."""

PROMPT = b"(qemu) "
LOSSY, CHANGE = 3, 3

PROBE = """#include "server.h"
char link_ram[sizeof(struct wire_link) + 64 + 64 + 2 * WIRE_FRAME(64)];
char vp8_ram[sizeof(struct vp8)];
"""


@dataclass(frozen=True)
class PartSize:
    """Bytes of a part on a board. `ram` has the stack that the linker script reserves."""

    board: str
    part: str
    flash: int
    ram: int


@dataclass(frozen=True)
class SliceCost:
    """What a golden slice costs a board: instructions of the most expensive one, bytes of stack."""

    board: str
    instructions: int
    stack: int


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and measure."""
    parser = cli.parser(
        "Measure flash, RAM, stack and instructions of the firmware.",
        "python benchmarks/firmware_sizes.py",
    )
    parser.add_argument("--pages", action="store_true", help="write the page from the last figures")
    cli.run(write_sizes, parser.parse_args(argv))


def write_sizes(arguments: argparse.Namespace) -> None:
    """Measure, unless only the page is requested, and write the page."""
    if not arguments.pages:
        with tempfile.TemporaryDirectory() as folder:
            sizes, runs = measure(Path(folder))
        for path, rows in ((SIZES_FILE, sizes), (COSTS_FILE, runs)):
            head = [field.name for field in fields(rows[0])]
            write_csv(path, head, [astuple(row) for row in rows])
    fill(PAGE, {"firmware sizes": sizes_table(), "firmware costs": costs_table()})


def read_sizes() -> list[PartSize]:
    """Return the last figures of the linker and the compiler."""
    rows = read_csv(SIZES_FILE)
    return [PartSize(r["board"], r["part"], int(r["flash"]), int(r["ram"])) for r in rows]


def read_costs() -> list[SliceCost]:
    """Return the last figures of the boards in QEMU."""
    rows = read_csv(COSTS_FILE)
    return [SliceCost(r["board"], int(r["instructions"]), int(r["stack"])) for r in rows]


def sizes_table() -> str:
    """Return the table of flash and RAM."""
    rows = [(one.board, one.part, f"{one.flash:,}", f"{one.ram:,}") for one in read_sizes()]
    return table(("board", "part", "flash", "RAM"), rows)


def costs_table() -> str:
    """Return the table of instructions, memory and assumed times of a slice."""
    sizes = {one.board: one for one in read_sizes() if one.part == WHOLE}
    assumed = {core: (chip, clock, least, most) for chip, core, clock, least, most in ASSUMED}
    rows = []
    for cost in read_costs():
        core = BOARDS[cost.board]
        size, time = sizes[f"{cost.board}, {core}"], "not assumed"
        if core in assumed:
            chip, clock, least, most = assumed[core]
            low, high = (cost.instructions / clock / 1000 * cycles for cycles in (least, most))
            time = f"{low:,.0f} to {high:,.0f} on {chip} at {clock} MHz"
        count = f"{cost.instructions / 1e6:.1f} M"
        memory = (f"{size.flash:,}", f"{size.ram:,}", f"{cost.stack:,}")
        rows.append((cost.board, core, count, *memory, time, "QEMU"))
    head = (
        "board",
        "core",
        "instructions per slice",
        "flash",
        "RAM",
        "stack",
        "ms per slice, assumed",
    )
    return table((*head, "ran in"), rows)


def measure(folder: Path) -> tuple[list[PartSize], list[SliceCost]]:
    """Return sizes and runs of each board."""
    tables = make_tables(folder / "tables")
    sizes, runs = [], []
    for board, core in BOARDS.items():
        out = folder / board
        elf = build_board(board, out, tables)
        name = f"{board}, {core}"
        sizes.append(PartSize(name, WHOLE, *linked(elf)))
        if board in PARTS:
            sizes += measure_parts(board, name, out, tables, folder / "probe.c")
        runs.append(run_golden(board, elf, folder))
        print(runs[-1], flush=True)
    return sizes, runs


def make_tables(folder: Path, model: Path = MODEL) -> Path:
    """Write the tables of a shipped network into a folder and return it."""
    file = model / f"{model.name}-int8.tflite"
    run_program(sys.executable, "convert/targets/firmware.py", str(file), "--out", str(folder))
    return folder


def build_board(board: str, out: Path, tables: Path, program: str = "firmware") -> Path:
    """Build a program for a board and return it."""
    make = ["make", "-s", "-C", str(FIRMWARE), f"BOARD={board}", f"OUT={out}", f"BAUD={BAUD}"]
    run_program(*make, f"TABLES={tables}", f"PROGRAM={program}")
    return out / f"{program}.elf"


def measure_parts(
    board: str, name: str, out: Path, tables: Path, probe: Path
) -> Iterator[PartSize]:
    """Yield what the parts of a firmware take that was built in `out`."""
    probe.write_text(PROBE, encoding="utf-8")
    make = ["make", "-s", "-C", str(FIRMWARE), f"BOARD={board}", f"OUT={out}", f"TABLES={tables}"]
    run_program(*make, "PROGRAM=echo")
    run_program(*make, f"PROGRAM={probe}", str(out / "probe.c" / "probe.c.o"))
    probed = run_program(
        "arm-none-eabi-nm", "-S", "--defined-only", str(out / "probe.c" / "probe.c.o")
    )
    ram = {line.split()[3]: int(line.split()[1], 16) for line in probed.splitlines()}
    built = out / "firmware"
    link = object_flash(built / "frame.c.o") + object_flash(built / "link.c.o")
    yield PartSize(name, LINK, link, ram["link_ram"])
    yield PartSize(name, IMAGES, object_flash(built / "vp8.c.o"), ram["vp8_ram"])
    yield PartSize(name, "the example echo, all of it", *linked(out / "echo.elf"))


def run_golden(board: str, elf: Path, folder: Path) -> SliceCost:
    """Return what the golden slices cost a board in QEMU; `folder` is for its monitor."""
    images = read_slices()[0]
    socket_path = folder / "monitor"
    monitor = f"unix:{socket_path},server=on,wait=off"
    command = qemu_command(board, elf, "{port}", monitor, *COUNTED)
    most = 0
    with Connection(open_port("sim://", BAUD, command=command), active=True) as connection:
        connection.open(20.0)
        receive(connection, 20.0)
        send(connection, HostHello(Mode.SERVE, LOSSY, CHANGE))
        send(connection, Start(len(images)))
        for index, image in enumerate(images):
            send(connection, Slice(index, LOSSY, encode_image(LOSSY, image)))
            result = receive(connection, 300.0)
            if not isinstance(result, Mask | Empty):
                raise GliosliceError(f"{board}: replied to slice {index} with {result}")
            micros = result.device_us if isinstance(result, Mask) else result.device_us[0]
            most = max(most, 1000 * micros)
        return SliceCost(board, most, used_stack(elf, socket_path))


def used_stack(elf: Path, monitor: Path) -> int:
    """Return how many bytes of its stack a board has used so far; raises GliosliceError."""
    listed = (line.split() for line in run_program("arm-none-eabi-nm", str(elf)).splitlines())
    places = {line[2]: int(line[0], 16) for line in listed if len(line) == 3}
    bottom, top = places["stack_bottom"], places["stack_top"]
    copy = monitor.with_name("stack.bin")
    command_monitor(monitor, f'memsave {bottom:#x} {top - bottom} "{copy}"')
    words = np.frombuffer(copy.read_bytes(), "<u4")
    used = np.flatnonzero(words != UNUSED_STACK)
    if not len(used) or used[0] == 0:
        raise GliosliceError(f"{elf}: all {top - bottom} bytes of its stack were used")
    return int(4 * (len(words) - used[0]))


def command_monitor(monitor: Path, command: str) -> str:
    """Let QEMU execute a command of its monitor; return what the monitor printed."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30.0)
        line.connect(str(monitor))
        for text in ("", f"{command}\n"):
            line.sendall(text.encode())
            received = b""
            while not received.endswith(PROMPT):
                received += line.recv(4096)
    return received.decode(errors="replace")


def run_program(*command: str) -> str:
    """Return what a command prints; raises GliosliceError if it fails."""
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    except OSError as error:
        raise GliosliceError(f"{command[0]}: cannot be run ({error.strerror})") from error
    if result.returncode:
        raise GliosliceError(f"{command[0]} failed: {result.stderr.strip()[-500:]}")
    return result.stdout


def object_flash(file: Path) -> int:
    """Return the code and constants of an object file."""
    text, data = run_program("arm-none-eabi-size", str(file)).splitlines()[1].split()[:2]
    return int(text) + int(data)


def linked(file: Path) -> tuple[int, int]:
    """Return flash and RAM of a program."""
    text, data, bss = map(
        int, run_program("arm-none-eabi-size", str(file)).splitlines()[1].split()[:3]
    )
    return text + data, data + bss


if __name__ == "__main__":
    main()
