"""The firmware with the compact network: its masks are those of TFLite's reference kernels."""

import json
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import firmware_sizes as bench
from device.board import make_board
from device.confidence import mask_confidence
from device.engine import Engine
from device.goldens import golden_slices
from firmware_host import stream
from firmware_host.inputs import quantize_slices
from glioslice.cases import Case, phantom_case, read_case
from glioslice.labels import to_labels, to_scheme
from glioslice.model_card import shipped_folder
from glioslice.postprocessing import postprocess
from glioslice.preprocessing import restore_volume
from glioslice.wire.codecs import decode_image, encode_image
from tests.conftest import ROOT
from tests.firmware.boards import CHANGE, LOSSY, check_run, connect
from tests.firmware.library import FIRMWARE, TESTS, WARNINGS, compile_main
from tests.firmware_host.commands import STREAM, restore_signals, write_slab
from tools.firmware_demo import BAUD, qemu_command

pytestmark = pytest.mark.slow

MODEL = shipped_folder("compact") / "compact-int8.tflite"
MAIN = "mps2-an500"
MAX_RAM = 224_000
MAX_INSTRUCTIONS = {"M0+": 520e6, "M4": 130e6, "M7": 130e6, "M33": 130e6, "M55": 82e6}
MAX_STACK = 2048
"""Of the 2.5 KB that the linker scripts reserve."""


@cache
def engine() -> Engine:
    return Engine(MODEL, reference=True, mirroring=False)  # the firmware does not mirror


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench.make_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def elf(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bench.build_board(MAIN, tmp_path_factory.mktemp("build"), tables)


@pytest.fixture
def monitor() -> Iterator[Path]:
    """The socket of a monitor, whose path must be short."""
    with tempfile.TemporaryDirectory(prefix="glioslice-") as folder:
        yield Path(folder) / "monitor"


def compute(image: NDArray[np.int8]) -> tuple[NDArray[np.uint8], int]:
    """Return labels and confidence of the reference kernels."""
    logits = engine().invoke(image)
    labels = np.ascontiguousarray(to_labels(engine().regions(logits)))
    return labels, mask_confidence(logits, engine().output.scale, engine().output.zero_point)


def slices() -> NDArray[np.int8]:
    """Return the golden slices, and one of noise that the image codec leaves something of."""
    coarse = np.random.default_rng(3).integers(-128, 128, (20, 24, 4))
    noise = np.kron(coarse, np.ones((8, 8, 1))).astype(np.int8)
    golden = golden_slices(engine(), ROOT / "models" / "golden-slices.npz")
    return np.stack([*golden, noise])


@pytest.mark.parametrize("board", bench.BOARDS)
def test_golden_and_random_slices(board: str, tables: Path, tmp_path: Path, monitor: Path) -> None:
    """On the way to the mask: VP8, network, labels, confidence, range coder, digest."""
    built = bench.build_board(board, tmp_path, tables)
    core = bench.BOARDS[board]
    flash, ram = bench.linked(built)
    size = next(one for one in bench.read_sizes() if one.board == f"{board}, {core}")
    assert 200_000 < ram <= MAX_RAM and flash <= 130_000
    assert abs(flash - size.flash) <= 0.02 * flash and ram == size.ram
    address = f"unix:{monitor},server=on,wait=off"
    with connect(board, built, "sim://", address, *bench.COUNTED) as connection:
        micros = check_run(connection, slices(), compute, LOSSY, CHANGE)
        stack = bench.used_stack(built, monitor)
    [run] = [one for one in bench.read_costs() if one.board == board]
    assert 400 < stack <= MAX_STACK
    golden = 1000 * max(micros[:-1])
    assert 50e6 < golden <= MAX_INSTRUCTIONS[core]
    assert abs(golden - run.instructions) <= 0.03 * run.instructions


def test_the_parts_fit_their_goals(tables: Path, tmp_path: Path) -> None:
    for board in sorted(bench.PARTS):
        out = tmp_path / board
        bench.build_board(board, out, tables)
        measured = bench.measure_parts(board, board, out, tables, tmp_path / "probe.c")
        parts = {one.part: one for one in measured}
        link, images = parts[bench.LINK], parts[bench.IMAGES]
        assert 2000 < link.flash <= 8000 and 500 < link.ram <= 4000
        assert 4000 < images.flash <= 12_000 and 3000 < images.ram <= 12_000


@pytest.mark.parametrize(
    ("flags", "why"),
    [("", "this form needs 282528 bytes of RAM"), ("-DNETWORK_SMALL=1", "form small does not")],
)
def test_nano_is_refused_with_the_reason(flags: str, why: str, tmp_path: Path) -> None:
    """It fits in the form small alone, which has no place for the slice."""
    tables = bench.make_tables(tmp_path / "tables", shipped_folder("nano"))
    command = ["make", "-s", f"BOARD={MAIN}", f"OUT={tmp_path}", f"TABLES={tables}"]
    done = subprocess.run(
        [*command, f"EXTRA={flags}"], cwd=FIRMWARE, capture_output=True, text=True, timeout=600
    )
    assert done.returncode != 0 and why in done.stderr


def segmented(case: Case) -> NDArray[np.uint8]:
    """Return the mask in the case's orientation that the reference kernels give lossy slices."""
    crop, sent = quantize_slices(case.images, make_board(engine(), MODEL).hello)
    came = [decode_image(LOSSY, encode_image(LOSSY, one), one.shape) for one in sent]
    masks = np.stack([to_labels(engine().regions(engine().invoke(one))) for one in came])
    labels = postprocess(restore_volume(masks, crop), engine().card.rules).labels
    assert set(np.unique(labels)) >= {0, 2}  # a tumour
    return np.asarray(case.space.from_lps(to_scheme(labels, case.scheme)))


def check_mask(folder: Path, wanted: NDArray[np.uint8]) -> None:
    report = json.loads((folder / "r.json").read_text())
    assert report["complete"] and report["model"]["kernels"] == "reference"
    assert report["masks"] == report["slices"] and report["lossless"] is False
    mask = np.asarray(nib.Nifti1Image.from_filename(folder / "m.nii.gz").dataobj)
    np.testing.assert_array_equal(mask, wanted)


def options(port: str, case: Path, folder: Path) -> list[str]:
    """Return what stream.py is given."""
    made = ["--port", port, "--baud", str(BAUD), "--input", str(case), "--force"]
    return [*made, "--output", str(folder / "m.nii.gz"), "--report", str(folder / "r.json")]


@pytest.fixture(scope="module")
def phantom() -> Case:
    return phantom_case(0)


@pytest.fixture(scope="module")
def slab(phantom: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case of eight slices through the phantom's tumour."""
    assert phantom.labels is not None
    middle = int(np.argmax((phantom.labels > 0).sum(axis=(0, 1))))
    images = phantom.images[..., middle - 4 : middle + 4]
    return write_slab(tmp_path_factory.mktemp("cases") / "Slab_1", images, "2023")


@pytest.fixture(scope="module")
def wanted(slab: Path) -> NDArray[np.uint8]:
    return segmented(read_case(slab))


def test_the_host_tool_through_bit_errors_loss_and_an_unplugged_cable(
    elf: Path, slab: Path, wanted: NDArray[np.uint8], tmp_path: Path
) -> None:
    line = "sim://?errors=1e-5&loss=0.002&latency=2ms&unplug=1.5s&after=4s"
    stream.main(options(line, slab, tmp_path), lambda *_: qemu_command(MAIN, elf))
    check_mask(tmp_path, wanted)
    assert json.loads((tmp_path / "r.json").read_text())["retransmits"] > 0


@pytest.fixture
def machine(elf: Path, monitor: Path) -> Iterator[str]:
    """A board that keeps running behind a socket, whatever its host does; its port."""
    serial = "tcp:127.0.0.1:0,server=on,wait=off"
    command = qemu_command(MAIN, elf, serial, f"unix:{monitor},server=on,wait=off")
    with subprocess.Popen(command) as process:
        try:
            yield f"socket://{serial_address(process, monitor)}"
        finally:
            process.kill()


def serial_address(process: subprocess.Popen[bytes], monitor: Path) -> str:
    """Return where QEMU, which chose the port itself, listens for a host by now."""
    while True:
        assert process.poll() is None
        try:
            listed = bench.command_monitor(monitor, "info chardev")
            break
        except (FileNotFoundError, ConnectionRefusedError):  # it is starting
            time.sleep(0.05)
    found = re.search(r"tcp:(127\.0\.0\.1:\d+),server", listed)
    assert found, listed
    return found[1]


def start_host(port: str, case: Path, folder: Path, masks: int) -> subprocess.Popen[str]:
    """Start stream.py and return it once so many masks have arrived."""
    host = subprocess.Popen(
        [*STREAM, *options(port, case, folder)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=restore_signals,
    )
    assert host.stderr
    for line in host.stderr:
        if f": {masks} of 8" in line:
            break
    return host


def test_a_killed_host_and_a_reset_board(
    machine: str, monitor: Path, slab: Path, wanted: NDArray[np.uint8], tmp_path: Path
) -> None:
    """The second host begins its run again; the reset board gets the missing slices."""
    killed = start_host(machine, slab, tmp_path, 2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    host = start_host(machine, slab, tmp_path, 2)
    assert host.poll() is None
    bench.command_monitor(monitor, "system_reset")
    assert host.stderr
    log = host.stderr.read()
    assert host.wait(120.0) == 0, log
    check_mask(tmp_path, wanted)


@pytest.fixture(scope="module")
def process(tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same C as a program of this machine, because QEMU takes minutes for a whole volume."""
    built = tmp_path_factory.mktemp("process") / "host_board"
    folders = [FIRMWARE / name for name in ("wire", "server", "net", "boards")]
    options = [*WARNINGS, "-O2", *(f"-I{folder}" for folder in (*folders, tables))]
    options.append(f'-DMASK_TABLES="{ROOT / "glioslice" / "wire" / "mask_tables.bin"}"')
    sources = [p for folder in folders[:3] for p in folder.iterdir() if p.suffix in (".c", ".S")]
    sources += [tables / "network_tables.c", TESTS / "host_board.c"]
    files = [*sorted(sources), compile_main(built.with_name("main.o"), options)]
    command = ["gcc", *options, *map(str, files), "-o", str(built)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return built


def stream_to_process(process: Path, case: list[str], folder: Path) -> None:
    line = "sim://?errors=1e-6&loss=0.0005"
    given = ["--port", line, "--baud", str(BAUD), *case, "--force"]
    given += ["--output", str(folder / "m.nii.gz"), "--report", str(folder / "r.json")]
    stream.main(given, lambda *_: [str(process), "{port}"])


def test_a_whole_phantom(process: Path, phantom: Case, tmp_path: Path) -> None:
    stream_to_process(process, [], tmp_path)
    check_mask(tmp_path, segmented(phantom))


@pytest.mark.real
def test_a_real_patient(process: Path, real_cases: Path, tmp_path: Path) -> None:
    case = real_cases / "Brats18_2013_11_1"
    stream_to_process(process, ["--input", str(case)], tmp_path)
    check_mask(tmp_path, segmented(read_case(case)))
