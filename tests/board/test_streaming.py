"""The host's tool, and at the far end of a paced link the device on an emulated 64-bit Arm.

The masks must equal those of x86, byte for byte. The board runs the wheels that deployment sends.
QEMU does not emulate timing, so nothing here shows how fast a board is.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from firmware_host import run
from glioslice.wire.ports import Port, open_port
from tests.board.conftest import NewBoard, stream_case

pytestmark = [pytest.mark.board, pytest.mark.slow]

URL = "sim://?baud=921600"


class FaultyPort:
    """A port that flips one bit of the bytes written to it, and later loses a chunk."""

    FLIPPED, LOST = 30_000, 60_000

    def __init__(self, port: Port) -> None:
        self._port, self._written = port, 0
        self.faults: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def write(self, data: bytes) -> None:
        begin, self._written = self._written, self._written + len(data)
        if begin <= self.FLIPPED < self._written:
            damaged = bytearray(data)
            damaged[self.FLIPPED - begin] ^= 0x10
            data = bytes(damaged)
            self.faults.append("flipped")
        if begin <= self.LOST < self._written:
            at = self.LOST - begin
            data = data[:at] + data[at + 64 :]
            self.faults.append("lost")
        self._port.write(data)


def test_the_self_test_passes(pi: NewBoard) -> None:
    command = pi().site_command("python3", "-m", "device", "selftest")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ai-edge-litert 2.3.0 on aarch64, kernels XNNPACK" in done.stdout
    assert "XNNPACK: 5 of 5 slices, byte for byte" in done.stdout
    assert "reference: 1 of 1 slices, byte for byte" in done.stdout


@pytest.mark.parametrize("images", ["lossless", "lossy"])
def test_twenty_slices_are_served(images: str, pi: NewBoard, slab: Path, tmp_path: Path) -> None:
    far_end = pi().site_command("python3", "-m", "device", "--port", "{port}")
    mask = stream_case(tmp_path, slab, "--port", URL, images=images, far_end=far_end)
    assert json.loads((tmp_path / "report.json").read_text())["masks"] == 20
    assert mask == stream_case(tmp_path / "x86", slab, "--port", URL, images=images)


def test_a_whole_volume_is_played(pi: NewBoard, whole: Path, tmp_path: Path) -> None:
    board = pi(f"{whole}:/case")
    far_end = board.site_command("python3", "-m", "device", "--port", "{port}", "--input", "/case")
    mask = stream_case(tmp_path, whole, "--port", URL, "--play", far_end=far_end)
    assert json.loads((tmp_path / "report.json").read_text())["mode"] == "play"
    assert mask == stream_case(tmp_path / "x86", whole, "--port", URL, "--play")


def test_a_flipped_bit_a_lost_chunk_and_an_unplugged_cable_are_survived(
    pi: NewBoard, slab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ports: list[FaultyPort] = []

    def open_faulty(*arguments: Any, **options: Any) -> FaultyPort:
        ports.append(FaultyPort(open_port(*arguments, **options)))
        return ports[-1]

    with monkeypatch.context() as patched:
        patched.setattr(run, "open_port", open_faulty)
        far_end = pi().site_command("python3", "-m", "device", "--port", "{port}")
        url = f"{URL}&unplug=8s&after=3s"
        mask = stream_case(tmp_path, slab, "--port", url, far_end=far_end)
    assert ports[0].faults == ["flipped", "lost"]
    assert json.loads((tmp_path / "report.json").read_text())["retransmits"] >= 2
    assert "pulled out" in capsys.readouterr().err
    assert mask == stream_case(tmp_path / "x86", slab, "--port", URL)
