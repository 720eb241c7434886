"""What tests share: small made-up cases on disk, and the real patients where they are at hand."""

import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("GLIOSLICE_DATA", ROOT.parent / "shared" / "data")) / "brats"

BRATS_2018 = {"flair": "_flair", "t1": "_t1", "t1ce": "_t1ce", "t2": "_t2", "seg": "_seg"}
BRATS_2023 = {"flair": "-t2f", "t1": "-t1n", "t1ce": "-t1c", "t2": "-t2w", "seg": "-seg"}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

Write = Callable[..., Path]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", metavar="SSH", help="a board, such as ssh://pi@raspberrypi.local")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not REAL.is_dir():
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(pytest.mark.skip(reason=f"no real patients in {REAL}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not REAL.is_dir():
        terminalreporter.section("NOT TESTED ON REAL PATIENTS", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"{REAL} is missing; GLIOSLICE_DATA names the folder that holds brats/"
        )


@pytest.fixture(scope="session")
def real_cases() -> Path:
    """The folder of real patients; use it only in tests marked `real`."""
    return REAL


@pytest.fixture
def volumes() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A block of brain with a tumour of nested boxes: images (4, X, Y, Z), labels of the kit."""
    images = np.zeros((4, 28, 36, 20), np.float32)
    noise = np.random.default_rng(7).uniform(50, 900, (4, 20, 26, 14))
    images[:, 4:24, 5:31, 3:17] = noise.astype(np.float32)
    labels = np.zeros(images.shape[1:], np.uint8)
    labels[8:20, 9:22, 5:15] = 2
    labels[10:18, 11:19, 7:13] = 3
    labels[12:16, 13:21, 9:11] = 1  # reaches out of the enhancing rim
    return images, labels


def save(path: Path, array: NDArray[np.generic], affine: NDArray[np.float64] = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.fixture
def write_case(tmp_path: Path, volumes: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> Write:
    """Write the volumes as a BraTS case and return its folder."""

    def write(
        name: str = "Case_1",
        suffixes: dict[str, str] = BRATS_2018,
        enhancing: int = 4,
        affine: NDArray[np.float64] = LPS,
        ending: str = ".nii.gz",
        folder: Path = tmp_path,
    ) -> Path:
        images, labels = volumes
        for modality, image in zip(("flair", "t1", "t1ce", "t2"), images, strict=True):
            save(folder / name / f"{name}{suffixes[modality]}{ending}", image, affine)
        mask = np.where(labels == 3, np.uint8(enhancing), labels)
        save(folder / name / f"{name}{suffixes['seg']}{ending}", mask, affine)
        return folder / name

    return write
