"""Emulated boards for the tests of this folder; they are skipped where none can be emulated."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from device.deployment.release import fetch_wheels, only_process
from firmware_host import handshake, stream
from glioslice.phantom.head import make_phantom
from tests.board import emulation
from tests.board.emulation import ARM64, ARMHF, EmulatedBoard, Processor
from tests.board.pi import Pi
from tests.firmware_host.commands import write_slab

NewBoard = Callable[..., EmulatedBoard]
NewPi = Callable[..., Pi]


@pytest.fixture(scope="session")
def emulator() -> None:
    """Skip where no board can be emulated; in continuous integration that is a failure."""
    reason = emulation.missing()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def arm64(emulator: None) -> Path:
    """A root of Debian for 64-bit Arm."""
    emulation.register(ARM64)
    return emulation.make_root(ARM64)


@pytest.fixture(scope="session")
def armhf(emulator: None) -> Path:
    """A root of Debian for 32-bit Arm, with Debian's numpy and Pillow, which have no wheels."""
    emulation.register(ARMHF)
    return emulation.make_root(ARMHF, "python3-numpy", "python3-pil")


@pytest.fixture(scope="session")
def new_pi(emulator: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewPi]:
    """Return a function that makes an empty board with a running ssh server."""
    made: list[Pi] = []

    def make(
        *more: str,
        processor: Processor = ARM64,
        suite: str = "bookworm",
        size: str = "",
        cmdline: str = "",
    ) -> Pi:
        emulation.register(processor)
        folder = tmp_path_factory.mktemp("pi")
        root = emulation.make_root(processor, *more, suite=suite)
        board = EmulatedBoard(processor, root, folder / "board", size)
        if cmdline:
            board.layer.mkdir()
            (board.layer / "cmdline").write_text(cmdline)
        made.append(Pi(board, folder))
        made[-1].power_on()
        return made[-1]

    yield make
    for pi in made:
        pi.power_off()


@pytest.fixture(scope="session")
def site(arm64: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels that `deploy.py` sends to a 64-bit board, unpacked."""
    place = tmp_path_factory.mktemp("wheels") / "site"
    with only_process():
        emulation.install(fetch_wheels("aarch64", (3, 11), "litert"), place)
    return place


@pytest.fixture
def pi(arm64: Path, site: Path, tmp_path: Path) -> NewBoard:
    """Return a function that makes a board with the wheels in /opt/site."""

    def make(*binds: str) -> EmulatedBoard:
        return EmulatedBoard(ARM64, arm64, tmp_path / "board", binds=(f"{site}:/opt/site", *binds))

    return make


@pytest.fixture(scope="session")
def phantom() -> NDArray[np.float32]:
    """The phantom's images (4, X, Y, Z)."""
    return make_phantom(0).images


@pytest.fixture(scope="session")
def slab(phantom: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case of twenty slices through the phantom's tumour."""
    labels = make_phantom(0).labels
    middle = int(np.argmax((labels > 0).sum(axis=(0, 1))))
    folder = tmp_path_factory.mktemp("slab") / "Slab_1"
    return write_slab(folder, phantom[..., middle - 10 : middle + 10], "2018")


@pytest.fixture(scope="session")
def whole(phantom: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case of all the phantom's slices."""
    return write_slab(tmp_path_factory.mktemp("whole") / "Whole_1", phantom, "2018")


def stream_case(
    out: Path,
    case: Path,
    *options: str,
    images: str = "lossless",
    far_end: list[str] | None = None,
) -> bytes:
    """Return the mask of a case streamed over a link; write report.json beside it.

    Without `far_end` the device runs on this machine.
    """
    arguments = ["--input", str(case), "--output", str(out / "m.nii"), *options]
    arguments += ["--report", str(out / "report.json"), "--images", images]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(handshake, "SIMULATED_TIMEOUT", 600.0)  # QEMU may be slower than any Pi
        stream.main(arguments, (lambda _: far_end) if far_end else None)
    report = json.loads((out / "report.json").read_text())
    assert report["complete"] is True and report["masks"] == report["slices"] > 0
    return (out / "m.nii").read_bytes()
