"""The firmware with the compact network: its masks are those of TFLite's reference kernels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from device.confidence import mask_confidence
from device.engine import Engine
from device.goldens import golden_slices
from glioslice.labels import to_labels
from tests.conftest import ROOT
from tests.firmware.boards import CHANGE, LOSSY, build, check_run, connect
from tests.firmware.library import FIRMWARE

pytestmark = pytest.mark.slow

MODEL = ROOT / "models" / "compact" / "compact-int8.tflite"
MAX_RAM = 224 * 1024


def make_tables(folder: Path) -> Path:
    """Write the tables of the compact network."""
    for script, source in (
        ("convert/targets/firmware.py", MODEL),
        ("tools/firmware_model.py", MODEL.parent),
    ):
        command = [sys.executable, script, str(source), "--out", str(folder)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0, result.stderr
    return folder


def test_golden_slices_through_a_damaged_line(tmp_path: Path) -> None:
    """On the way to the mask: VP8, network, labels, confidence, range coder, digest."""
    engine = Engine(MODEL, reference=True, mirroring=False)  # the firmware does not mirror

    def compute(image: NDArray[np.int8]) -> tuple[NDArray[np.uint8], int]:
        logits = engine.invoke(image)
        labels = np.ascontiguousarray(to_labels(engine.regions(logits)))
        return labels, mask_confidence(logits, engine.output.scale, engine.output.zero_point)

    board, line = "mps2-an500", "sim://?errors=1e-5&loss=0.002&latency=5ms"
    tables = make_tables(tmp_path / "tables")
    elf = build(tmp_path / "build", board, net=FIRMWARE / "net", tables=tables)
    size = subprocess.run(
        ["arm-none-eabi-size", str(elf)], capture_output=True, text=True, check=True
    ).stdout.split()
    data, bss = int(size[7]), int(size[8])
    assert data + bss <= MAX_RAM
    slices = np.stack(list(golden_slices(engine, ROOT / "models" / "golden-slices.npz")))
    with connect(board, elf, line) as connection:
        check_run(connection, slices, compute, LOSSY, CHANGE)
