"""Emulated boards for the tests of this folder, or the reason why this machine has none."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from device.deployment.payload import fetched
from glioslice.phantom.head import make_phantom
from tests.board import emulation
from tests.board.emulation import ARM64, ARMHF, Board, Processor
from tests.board.pi import Pi
from tests.firmware_host.test_end_to_end import write_slab

NewBoard = Callable[..., Board]
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
    return emulation.made_root(ARM64)


@pytest.fixture(scope="session")
def armhf(emulator: None) -> Path:
    """A root of Debian for 32-bit Arm, with what has no wheels there as packages of Debian."""
    emulation.register(ARMHF)
    return emulation.made_root(ARMHF, "python3-numpy", "python3-pil")


@pytest.fixture(scope="session")
def new_pi(emulator: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewPi]:
    """Return a function that makes a bare board with an ssh server and lets it answer."""
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
        root = emulation.made_root(processor, *more, suite=suite)
        board = Board(processor, root, folder / "board", size)
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
    """The board's wheels, unpacked: what `deploy.py` sends to a 64-bit board."""
    place = tmp_path_factory.mktemp("wheels") / "site"
    emulation.install(fetched("aarch64", (3, 11), "litert"), place)
    return place


@pytest.fixture
def pi(arm64: Path, site: Path, tmp_path: Path) -> NewBoard:
    """Return a function that makes a board which has the wheels in /opt/site."""

    def make(*binds: str) -> Board:
        return Board(ARM64, arm64, tmp_path / "board", binds=(f"{site}:/opt/site", *binds))

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
