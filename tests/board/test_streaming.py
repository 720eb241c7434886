"""The desk's real tool, and at the other end of a paced line the device on an emulated 64-bit Arm.

The masks must be those of x86, byte for byte. What runs on the board is its wheels, as deployment
sends them; QEMU keeps no time, so nothing here says how fast a board is.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from firmware_host import run, stream
from glioslice.wire.ports import Port, open_port
from tests.board.conftest import NewBoard

pytestmark = [pytest.mark.board, pytest.mark.slow]

LINE = "sim://?baud=921600"


class Flawed:
    """A port that once flips a bit of what is written and once loses a chunk of it."""

    FLIPPED, LOST = 30_000, 60_000

    def __init__(self, port: Port) -> None:
        self._port, self._written = port, 0
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)

    def write(self, data: bytes) -> None:
        begin, self._written = self._written, self._written + len(data)
        if begin <= self.FLIPPED < self._written:
            damaged = bytearray(data)
            damaged[self.FLIPPED - begin] ^= 0x10
            data = bytes(damaged)
            self.done.append("flipped")
        if begin <= self.LOST < self._written:
            at = self.LOST - begin
            data = data[:at] + data[at + 64 :]
            self.done.append("lost")
        self._port.write(data)


def streamed(
    out: Path,
    case: Path,
    *words: str,
    images: str = "lossless",
    far_end: list[str] | None = None,
) -> bytes:
    """Return the mask of a case that went over a line, and leave report.json beside it.

    Without `far_end` the device is this machine's.
    """
    given = ["--input", str(case), "--output", str(out / "m.nii"), *words]
    given += ["--report", str(out / "report.json"), "--images", images]
    stream.main(given, (lambda _: far_end) if far_end else None)
    report = json.loads((out / "report.json").read_text())
    assert report["complete"] is True and report["masks"] == report["slices"] > 0
    return (out / "m.nii").read_bytes()


def test_the_self_test_passes_with_the_masks_of_x86(pi: NewBoard) -> None:
    words = pi().running("python3", "-m", "device", "selftest")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ai-edge-litert 2.3.0 on aarch64, kernels XNNPACK" in done.stdout
    assert "XNNPACK: 5 of 5 slices, byte for byte" in done.stdout
    assert "reference: 1 of 1 slices, byte for byte" in done.stdout


@pytest.mark.parametrize("images", ["lossless", "lossy"])
def test_twenty_slices_are_served(images: str, pi: NewBoard, slab: Path, tmp_path: Path) -> None:
    far_end = pi().running("python3", "-m", "device", "--port", "{port}")
    mask = streamed(tmp_path, slab, "--port", LINE, images=images, far_end=far_end)
    assert json.loads((tmp_path / "report.json").read_text())["masks"] == 20
    assert mask == streamed(tmp_path / "x86", slab, "--port", LINE, images=images)


def test_a_whole_volume_is_played(pi: NewBoard, whole: Path, tmp_path: Path) -> None:
    board = pi(f"{whole}:/case")
    far_end = board.running("python3", "-m", "device", "--port", "{port}", "--input", "/case")
    mask = streamed(tmp_path, whole, "--port", LINE, "--play", far_end=far_end)
    assert json.loads((tmp_path / "report.json").read_text())["mode"] == "play"
    assert mask == streamed(tmp_path / "x86", whole, "--port", LINE, "--play")


def test_a_flipped_bit_a_lost_chunk_and_an_unplugged_cable_are_survived(
    pi: NewBoard, slab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    ports: list[Flawed] = []

    def flawed(*words: Any, **named: Any) -> Flawed:
        ports.append(Flawed(open_port(*words, **named)))
        return ports[-1]

    with monkeypatch.context() as patched:
        patched.setattr(run, "open_port", flawed)
        far_end = pi().running("python3", "-m", "device", "--port", "{port}")
        url = f"{LINE}&unplug=2s&after=3s"
        mask = streamed(tmp_path, slab, "--port", url, far_end=far_end)
    assert ports[0].done == ["flipped", "lost"]
    assert json.loads((tmp_path / "report.json").read_text())["retransmits"] >= 2
    said = capsys.readouterr().err
    assert "its cable was pulled out" in said and "the line is back" in said
    assert mask == streamed(tmp_path / "x86", slab, "--port", LINE)
