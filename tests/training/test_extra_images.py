"""Canvases of lesion cubes: their patients, content and ignored pixels.

Single slices: cut to the window, unknown pixels ignored, patients left out.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from glioslice.errors import GliosliceError
from tests.training.conftest import save_cubes
from training.dataset import IGNORE
from training.extra_images import (
    load_lesion_cubes,
    load_single_slices,
    make_canvases,
    read_lesion_patients,
)

CPU = torch.device("cpu")


def test_slices_with_tumour_by_patient(cubes: Path) -> None:
    lesions = load_lesion_cubes(cubes, set())
    assert {name: len(slices) for name, slices in lesions.patients.items()} == {"P1": 32, "P2": 16}
    assert set(np.unique(lesions.labels)) == {0, 1, 2, 3, IGNORE}
    assert (lesions.labels[:, 28:] == IGNORE).all()
    np.testing.assert_array_equal(lesions.labels[10, 12:20, 12:20], 3)


def test_held_out_patients_leave_with_their_cubes(cubes: Path) -> None:
    lesions = load_lesion_cubes(cubes, {"P1"})
    assert list(lesions.patients) == ["P2"]
    _, labels = make_canvases(lesions, 8, 128, torch.Generator().manual_seed(0), CPU)
    assert set(labels.unique().tolist()) <= {0, 1, 2, IGNORE}  # P2 has no enhancing tumour
    with pytest.raises(GliosliceError, match="no cube is left"):
        load_lesion_cubes(cubes, {"P1", "P2"})


def test_labels_match_the_images_of_a_canvas(cubes: Path) -> None:
    lesions = load_lesion_cubes(cubes, set())
    images, labels = make_canvases(lesions, 16, 128, torch.Generator().manual_seed(1), CPU)
    assert images.shape == (16, 4, 128, 128)
    assert (labels[:, 62:66] == IGNORE).all()  # between patches
    assert (labels[:, :, 62:66] == IGNORE).all()
    known = labels != IGNORE
    assert 0.4 < known.float().mean() < 0.9
    assert (images[:, 1][known] > 0).float().mean() > 0.99
    edema = images[:, 0][labels == 2].median()
    assert edema == pytest.approx(0.08 * (1 + 10 * 2), rel=0.05)
    quadrants = labels[0].unfold(0, 64, 64).unfold(1, 64, 64).reshape(4, 64, 64)
    assert all((quadrant == 2).any() for quadrant in quadrants)
    again, _ = make_canvases(lesions, 16, 128, torch.Generator().manual_seed(1), CPU)
    assert torch.equal(images, again)


def test_invalid_files_of_cubes(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match=r"none\.npz: no such file"):
        load_lesion_cubes(tmp_path / "none.npz", set())
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(GliosliceError, match="not a file of lesion cubes"):
        load_lesion_cubes(tmp_path / "text.npz", set())
    with pytest.raises(GliosliceError, match="not a file of lesion cubes"):
        load_lesion_cubes(save_cubes(tmp_path, images=np.zeros(1)), set())


def test_table_of_lesion_patients(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,lesion_patient\na,P1\nb,\n")
    assert read_lesion_patients(table) == {"a": "P1"}
    table.write_text("case\na\n")
    with pytest.raises(GliosliceError, match="column 'lesion_patient' is missing"):
        read_lesion_patients(table)
    with pytest.raises(GliosliceError, match="no such file"):
        read_lesion_patients(tmp_path / "none.csv")


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


def test_invalid_files_of_slices(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match="no such file"):
        load_single_slices(tmp_path / "none.npz", set())
    np.savez(tmp_path / "other.npz", images=np.zeros(1))
    with pytest.raises(GliosliceError, match="not a file of single slices"):
        load_single_slices(tmp_path / "other.npz", set())
