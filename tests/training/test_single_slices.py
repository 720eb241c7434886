"""Single slices: cut to the window, unknown pixels ignored, patients left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glioslice.errors import GliosliceError
from training.dataset import IGNORE
from training.single_slices import load_single_slices


@pytest.fixture
def arrays() -> dict[str, Any]:
    """Four slices of three patients, one of low grade; the brain is 100 x 120 pixels."""
    images = np.full((4, 4, 240, 240), -128, np.int8)
    images[:, :, 30:130, 50:170] = 25
    labels = np.zeros((4, 240, 240), np.uint8)
    labels[:, 60:80, 60:80] = 4
    valid = np.ones((4, 240, 240), bool)
    valid[0, :50] = False
    return {
        "images": images, "labels": labels, "valid": np.packbits(valid, axis=-1),
        "patient": np.array(["A", "B", "B", "C"]),
        "grade": np.array(["high", "low", "low", "high"]),
    }  # fmt: skip


@pytest.fixture
def file(arrays: dict[str, Any], tmp_path: Path) -> Path:
    np.savez(tmp_path / "slices.npz", **arrays)
    return tmp_path / "slices.npz"


def test_slices_are_cut_to_the_window_around_the_brain(file: Path) -> None:
    slices = load_single_slices(file, set())
    assert [part.shape for part in slices.images] == [(n, 160, 192, 4) for n in (1, 2, 1)]
    np.testing.assert_allclose(slices.images[1][0, 30:130, 36:156], 25 * 0.08, atol=2e-3)
    for images, labels in zip(slices.images, slices.labels, strict=True):
        assert images.any(axis=-1).sum() == len(images) * 100 * 120  # 0 outside the brain
        assert (labels[:, 60:80, 46:66] == 3).all()
    assert slices.patients == ("A", "B", "C")
    assert slices.grades == ("high", "low", "high")


def test_unknown_pixels_are_ignored(file: Path) -> None:
    slices = load_single_slices(file, set())
    assert (slices.labels[0][0, :50, 36:156] == IGNORE).all()
    assert set(np.unique(np.concatenate(slices.labels[1:]))) == {0, 3}


def test_held_out_patients_leave(file: Path) -> None:
    assert load_single_slices(file, {"B"}).patients == ("A", "C")
    with pytest.raises(GliosliceError, match="no slice is left"):
        load_single_slices(file, {"A", "B", "C"})


def test_invalid_files(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="no such file"):
        load_single_slices(tmp_path / "none.npz", set())
    np.savez(tmp_path / "other.npz", images=np.zeros(1))
    with pytest.raises(GliosliceError, match="not a file of single slices"):
        load_single_slices(tmp_path / "other.npz", set())
