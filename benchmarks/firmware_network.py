"""Count what the network of device/firmware costs on each Cortex-M: instructions, RAM and flash.

    python benchmarks/firmware_network.py

builds the network of both shipped models for each core, runs the golden slices in QEMU, compares
every logit with the reference kernels, and writes `benchmarks/firmware/network.csv` and the figures
of docs/firmware.md. It needs gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm.

QEMU counts instructions; it knows nothing of cycles. Milliseconds are a range under an assumption.
"""

import argparse
import csv
import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import ROOT
from benchmarks.pages import fill, table
from convert.targets import firmware, micro
from convert.targets.firmware_layers import FirmwareLayer, read_layers
from convert.targets.firmware_plan import Form
from convert.tflite.reader import read_model
from device.engine import Engine
from device.goldens import golden_slices
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.labels import to_labels
from glioslice.model_card import SHIPPED_MODELS, shipped_folder

NET = ROOT / "device" / "firmware" / "net"
FIGURES = ROOT / "benchmarks" / "firmware" / "network.csv"
PAGE = ROOT / "docs" / "firmware.md"

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror")
KERNELS = {"plain": 0, "DSP": 1, "MVE": 2}
TIMEOUT = 300
"""Seconds."""


@dataclass(frozen=True)
class Core:
    """A processor, the flags that compile for it, and a machine of QEMU with its memory map."""

    name: str
    flags: tuple[str, ...]
    machine: str
    code: int
    data: int
    kernels: str


CORES = {
    core.name: core
    for core in (
        Core("M0+", ("-mcpu=cortex-m0plus",), "mps2-an385", 0, 0x20000000, "plain"),
        Core("M4", ("-mcpu=cortex-m4",), "mps2-an386", 0, 0x20000000, "DSP"),
        Core("M7", ("-mcpu=cortex-m7",), "mps2-an500", 0, 0x20000000, "DSP"),
        Core("M33", ("-mcpu=cortex-m33",), "mps2-an505", 0x10000000, 0x38000000, "DSP"),
        Core("M55", ("-mcpu=cortex-m55", "-mfloat-abi=hard"), "mps3-an547", 0, 0x20000000, "MVE"),
    )
}

RUNS: tuple[tuple[str, str, str, Form], ...] = (
    ("compact", "M7", "plain", "fast"),
    ("compact", "M0+", "plain", "fast"),
    ("compact", "M4", "DSP", "fast"),
    ("compact", "M7", "DSP", "fast"),
    ("compact", "M33", "DSP", "fast"),
    ("compact", "M55", "MVE", "fast"),
    ("compact", "M0+", "plain", "small"),
    ("compact", "M4", "DSP", "small"),
    ("compact", "M7", "DSP", "small"),
    ("compact", "M33", "DSP", "small"),
    ("compact", "M55", "MVE", "small"),
    ("nano", "M7", "DSP", "small"),
    ("nano", "M55", "MVE", "small"),
)

ASSUMED = (
    ("STM32H7", "M7", 480, 0.8, 1.1),
    ("RP2350", "M33", 150, 1.3, 1.8),
    ("Alif Ensemble, STM32N6", "M55", 800, 1.0, 1.5),
    ("RP2040", "M0+", 133, 1.2, 1.6),
)
"""Boards: name, core, MHz and the cycles that an instruction is assumed to take, code and data in
memory without wait states. LDM and LDRD move several words, so that M33 takes more than one."""


@dataclass(frozen=True)
class HarnessResult:
    """What the harness wrote for one slice: labels, logits, and a CRC-32 of each traced layer.

    `instructions` and `stack` are 0 on a host computer.
    """

    labels: NDArray[np.uint8]
    logits: NDArray[np.int8]
    checks: NDArray[np.uint32]
    instructions: int
    stack: int


@dataclass(frozen=True)
class NetworkFigures:
    """What one model costs on one core: all in bytes but `instructions`, which are a slice's."""

    model: str
    core: str
    machine: str
    kernels: str
    form: str
    instructions: int
    ram: int
    stack: int
    flash: int


def write_tables(content: bytes, name: str, folder: Path) -> tuple[FirmwareLayer, ...]:
    """Write the tables of a packed int8 file and return its layers.

    Raises GliosliceError if the file does not fit.
    """
    result = firmware.check(content, name)
    if not result.ok:
        raise GliosliceError(f"{name}: {result.problems}")
    for path, text in result.files.items():
        write_bytes(folder / path, text)
    return read_layers(read_model(content))


def sources(tables: Path) -> list[Path]:
    """Return the C files of the network itself, with the tables in a folder."""
    return [*sorted(NET.glob("*.c")), tables / firmware.SOURCE]


def build_for_core(
    core: Core, kernels: str, tables: Path, form: Form, *, trace: bool = False
) -> Path:
    """Compile harness and network for a core and return the program."""
    program = tables / "network.elf"
    options = _options(tables, form, trace)
    options += ["-mthumb", *core.flags, f"-DNETWORK_KERNELS={KERNELS[kernels]}"]
    options += ["-ffunction-sections", "-fdata-sections", "-nostartfiles"]
    options += ["--specs=nano.specs", "--specs=nosys.specs", "-T", str(NET / "bench" / "qemu.ld")]
    linker = f"-Wl,--gc-sections,--defsym=CODE={core.code},--defsym=DATA={core.data}"
    harness = [NET / "bench" / "main.c", NET / "bench" / "qemu.c"]
    _run([COMPILER, *options, linker, *map(str, sources(tables) + harness), "-o", str(program)])
    return program


def build_for_host(compiler: str, tables: Path, form: Form, flags: Sequence[str]) -> Path:
    """Compile harness and network, plain and with traces, for this computer."""
    program = tables / f"network-{compiler}"
    harness = [NET / "bench" / "main.c", NET / "bench" / "host.c"]
    files = map(str, sources(tables) + harness)
    _run([compiler, *_options(tables, form, trace=True), *flags, *files, "-o", str(program)])
    return program


def _options(tables: Path, form: Form, trace: bool) -> list[str]:
    options = [*FLAGS, f"-I{tables}", f"-I{NET}", f"-DNETWORK_SMALL={int(form == 'small')}"]
    return options + ["-DNETWORK_TRACE"] * trace


def run_in_qemu(core: Core, program: Path) -> None:
    """Run a program in the folder where it lies; an instruction takes a nanosecond.

    Raises GliosliceError if it fails or faults.
    """
    command = [EMULATOR, "-M", core.machine, "-icount", "shift=0", "-display", "none"]
    command += ["-monitor", "none", "-serial", "none", "-kernel", str(program)]
    command += ["-semihosting-config", "enable=on,target=native"]
    _run(command, program.parent)


def run_slices(
    core: Core | None, program: Path, slices: NDArray[np.int8], layers: int
) -> list[HarnessResult]:
    """Run slices (N, X, Y, 4) and return a result each; without a core the program is a host's.

    `layers` is the number of layers that the program traces, or 0.
    """
    folder = program.parent
    (folder / "slices.bin").write_bytes(slices.tobytes())
    (folder / "results.bin").unlink(missing_ok=True)
    if core is None:
        _run([str(program)], folder)
    else:
        run_in_qemu(core, program)
    content = (folder / "results.bin").read_bytes()
    rows, columns = slices.shape[1:3]
    pixels = rows * columns
    parts = [pixels, 3 * pixels, 4 * layers, 12]
    if len(content) != len(slices) * sum(parts):
        raise GliosliceError(
            f"{program.name}: results of {len(content):,} bytes for {len(slices)} slices"
        )
    results = []
    for start in range(0, len(content), sum(parts)):
        ends = start + np.cumsum([0, *parts])
        labels, logits, checks, words = (content[begin:end] for begin, end in pairwise(ends))
        low, high, stack = (int(word) for word in np.frombuffer(words, "<u4"))
        results.append(
            HarnessResult(
                np.frombuffer(labels, np.uint8).reshape(rows, columns),
                np.frombuffer(logits, np.int8).reshape(rows, columns, 3),
                np.frombuffer(checks, "<u4"),
                low + (high << 32),
                stack,
            )
        )
    return results


def network_sizes(core: Core, kernels: str, tables: Path, form: Form) -> tuple[int, int]:
    """Return RAM and flash of the network alone, without harness, C library and stack."""
    options = [*_options(tables, form, trace=False), "-mthumb", *core.flags]
    options += [f"-DNETWORK_KERNELS={KERNELS[kernels]}", "-ffunction-sections", "-fdata-sections"]
    ram = flash = 0
    for source in sources(tables):
        target = tables / "part.o"
        _run([COMPILER, *options, "-c", str(source), "-o", str(target)])
        text, data, bss = _run(["arm-none-eabi-size", str(target)]).splitlines()[1].split()[:3]
        ram += int(data) + int(bss)
        flash += int(text) + int(data)
    return ram, flash


def measure(model: str, core: Core, kernels: str, form: Form) -> NetworkFigures:
    """Run the golden slices and return the figures.

    Raises GliosliceError if a logit or a label differs from the reference kernels.
    """
    file = shipped_folder(model) / f"{model}-int8.tflite"
    engine = Engine(file, reference=True, mirroring=False)
    slices = golden_slices(engine)
    with tempfile.TemporaryDirectory(prefix="glioslice-") as name:
        tables = Path(name)
        write_tables(file.read_bytes(), file.stem, tables)
        program = build_for_core(core, kernels, tables, form)
        results = run_slices(core, program, slices, 0)
        ram, flash = network_sizes(core, kernels, tables, form)
    for number, (image, result) in enumerate(zip(slices, results, strict=True)):
        logits = engine.invoke(image)
        labels = to_labels(engine.regions(logits))
        if not (np.array_equal(logits, result.logits) and np.array_equal(labels, result.labels)):
            raise GliosliceError(
                f"{model} on {core.name}: slice {number} differs from the reference"
            )
    instructions = max(result.instructions for result in results)
    stack = max(result.stack for result in results)
    return NetworkFigures(
        model, core.name, core.machine, kernels, form, instructions, ram, stack, flash
    )


def write_figures(path: Path, figures: Sequence[NetworkFigures]) -> None:
    """Write the figures as CSV."""
    text = io.StringIO()
    names = [field.name for field in fields(NetworkFigures)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in figures)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, text.getvalue().encode())


def read_figures(path: Path = FIGURES) -> list[NetworkFigures]:
    """Read the figures of `write_figures`."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            NetworkFigures(
                **{
                    name: int(value) if NetworkFigures.__annotations__[name] is int else value
                    for name, value in row.items()
                }  # type: ignore[arg-type]
            )
            for row in csv.DictReader(file)
        ]


def page_parts(figures: Sequence[NetworkFigures], arenas: dict[str, int]) -> dict[str, str]:
    """Return the tables of docs/firmware.md by name; `arenas` are TFLite Micro's, by model."""
    head = ("model", "form", "core", "kernels", "instructions per slice", "RAM", "stack", "flash")
    rows = [
        (
            f.model, f.form, f.core, f.kernels, f"{f.instructions / 1e6:.1f} M",
            f"{f.ram:,}", f"{f.stack:,}", f"{f.flash:,}",
        )
        for f in figures
    ]  # fmt: skip
    best = {(f.core, f.form): f for f in figures if f.model == "compact"}
    times = []
    for board, core, megahertz, least, most in ASSUMED:
        for form in ("fast", "small"):
            count = best[core, form].instructions / megahertz / 1000
            times.append(
                (
                    board, core, f"{megahertz} MHz", form, f"{least} to {most}",
                    f"{count * least:,.0f} to {count * most:,.0f}",
                )
            )  # fmt: skip
    comparison = []
    for model, arena in arenas.items():
        for form in ("fast", "small"):
            of_form = [f.ram for f in figures if (f.model, f.form) == (model, form)]
            if of_form:
                comparison.append((model, f"this network, {form}", f"{max(of_form):,}"))
        comparison.append((model, "TFLite Micro's arena", f"{arena:,}"))
    clock = ("board", "core", "clock", "form", "cycles per instruction", "ms per slice")
    return {
        "network": table(head, rows),
        "network_times": table(clock, times),
        "network_memory": table(("model", "program", "bytes of RAM"), comparison),
    }


def micro_arena(model: str) -> int:
    """Return the arena that TFLite Micro needs for a shipped model's int8 file."""
    file = shipped_folder(model) / f"{model}-int8.tflite"
    return int(micro.check(file.read_bytes(), file.stem).report["arena_bytes"])


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and measure."""
    parser = cli.parser(
        "Count instructions, RAM and flash of the firmware's network in QEMU.",
        "python benchmarks/firmware_network.py",
    )
    cli.run(measure_command, parser.parse_args(argv))


def measure_command(arguments: argparse.Namespace) -> None:
    """Measure all runs and write the figures and the page."""
    figures = []
    for model, core, kernels, form in RUNS:
        figures.append(measure(model, CORES[core], kernels, form))
        print(figures[-1], flush=True)
    write_figures(FIGURES, figures)
    fill(PAGE, page_parts(figures, {model: micro_arena(model) for model in SHIPPED_MODELS}))


def _run(command: Sequence[str], folder: Path | None = None) -> str:
    if shutil.which(command[0]) is None:
        raise GliosliceError(f"{command[0]} is missing; apt-get install {PACKAGES}")
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise GliosliceError(f"{Path(command[0]).name}: not finished within {TIMEOUT} s") from None
    if done.returncode:
        last = (done.stdout + done.stderr)[-2000:]
        raise GliosliceError(f"{Path(command[0]).name} failed with {done.returncode}: {last}")
    return done.stdout


if __name__ == "__main__":
    main()
