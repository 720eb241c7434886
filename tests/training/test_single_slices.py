"""Single slices: cut to the window, unknown pixels ignored, patients sampled by grade."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glioslice.errors import GliosliceError
from training.config import TrainingConfig
from training.dataset import IGNORE
from training.single_slices import load_single_slices, sample_single_slices


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
    assert slices.images.shape == (4, 160, 192, 4)
    np.testing.assert_allclose(slices.images[1, 30:130, 36:156], 25 * 0.08, atol=2e-3)
    brain = slices.images.any(axis=-1)
    assert brain.sum() == 4 * 100 * 120  # 0 outside the brain
    assert (slices.labels[1, 60:80, 46:66] == 3).all()
    assert [len(indices) for indices in slices.patients] == [1, 2, 1]
    assert slices.grades == ("high", "low", "high")


def test_unknown_pixels_are_ignored(file: Path) -> None:
    slices = load_single_slices(file, set())
    assert (slices.labels[0, :50, 36:156] == IGNORE).all()
    assert set(np.unique(slices.labels[1:])) == {0, 3}
    config = TrainingConfig(centred=1.0, crop=64)
    images, labels, centres = sample_single_slices(
        slices, 50, config, torch.Generator().manual_seed(0)
    )
    assert images.dtype == torch.float16
    assert images.shape == (50, 160, 192, 4)
    # Crops are centred on tumour, never on ignored pixels.
    assert ((centres - torch.tensor([70.0, 56.0])).abs() <= 10 + 64 / 4).all()
    assert (labels == IGNORE).any()


def test_low_grade_share_and_jitter(file: Path) -> None:
    slices = load_single_slices(file, set())

    def sample(seed: int, **fields: float) -> tuple[torch.Tensor, ...]:
        config = TrainingConfig(**fields)  # type: ignore[arg-type]
        return sample_single_slices(slices, 60, config, torch.Generator().manual_seed(seed))

    images, *_ = sample(0, slice_jitter=0.15)
    level = images[:, 80, 96].float() / 2.0
    assert 0.05 < level.std() < 0.2
    assert not images[:, :30].any()
    plain, *_ = sample(0, slice_jitter=0.0)
    assert plain[:, 80, 96].unique().numel() == 1
    for one, again in zip(sample(3), sample(3), strict=True):
        assert torch.equal(one, again)


def test_held_out_patients_leave(file: Path) -> None:
    assert len(load_single_slices(file, {"B"}).patients) == 2
    with pytest.raises(GliosliceError, match="no slice is left"):
        load_single_slices(file, {"A", "B", "C"})


def test_invalid_files(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="no such file"):
        load_single_slices(tmp_path / "none.npz", set())
    np.savez(tmp_path / "other.npz", images=np.zeros(1))
    with pytest.raises(GliosliceError, match="not a file of single slices"):
        load_single_slices(tmp_path / "other.npz", set())
