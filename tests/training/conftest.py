"""Shared fixtures: a small file of lesion cubes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture
def cubes(tmp_path: Path) -> Path:
    """Three cubes of two patients; FLAIR is 1 + 10 times the label, the last rows are not valid."""
    labels = np.zeros((3, 32, 32, 32), np.uint8)
    labels[:, 8:24, 8:24, 4:20] = 2
    labels[:, 12:20, 12:20, 8:16] = 4
    labels[2, 12:20, 12:20, 8:16] = 1
    images = np.ones((3, 4, 32, 32, 32), np.int8)
    images[:, 0] += 10 * labels.astype(np.int8)
    valid = np.ones((3, 32, 32, 32), bool)
    valid[:, 28:] = False
    return save_cubes(tmp_path, images=images, labels=labels, valid=np.packbits(valid, axis=-1))


def save_cubes(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "cubes.npz", patient=np.array(["P1", "P1", "P2"]), **arrays)
    return folder / "cubes.npz"
