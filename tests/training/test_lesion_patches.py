"""Canvases of lesion cubes: whose they are, what they show, what is left out of the loss."""

from pathlib import Path

import numpy as np
import pytest
import torch

from glioslice.errors import GliosliceError
from tests.training.conftest import save_cubes
from training.lesion_patches import canvases, lesion_patients, load_lesions
from training.loss import IGNORE

CPU = torch.device("cpu")


def test_slices_with_tumour_by_patient(cubes: Path) -> None:
    lesions = load_lesions(cubes, set())
    assert {name: len(slices) for name, slices in lesions.patients.items()} == {"P1": 32, "P2": 16}
    assert set(np.unique(lesions.labels)) == {0, 1, 2, 3, IGNORE}
    assert (lesions.labels[:, 28:] == IGNORE).all()
    np.testing.assert_array_equal(lesions.labels[10, 12:20, 12:20], 3)


def test_a_patient_leaves_with_its_cubes(cubes: Path) -> None:
    lesions = load_lesions(cubes, {"P1"})
    assert list(lesions.patients) == ["P2"]
    _, labels = canvases(lesions, 8, 128, torch.Generator().manual_seed(0), CPU)
    assert set(labels.unique().tolist()) <= {0, 1, 2, IGNORE}  # P2 has no enhancing tumour
    with pytest.raises(GliosliceError, match="no cube is left"):
        load_lesions(cubes, {"P1", "P2"})


def test_a_canvas_shows_what_its_labels_say(cubes: Path) -> None:
    lesions = load_lesions(cubes, set())
    images, labels = canvases(lesions, 16, 128, torch.Generator().manual_seed(1), CPU)
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
    again, _ = canvases(lesions, 16, 128, torch.Generator().manual_seed(1), CPU)
    assert torch.equal(images, again)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(GliosliceError, match=r"none\.npz: no such file"):
        load_lesions(tmp_path / "none.npz", set())
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(GliosliceError, match="not a file of lesion cubes"):
        load_lesions(tmp_path / "text.npz", set())
    with pytest.raises(GliosliceError, match="not a file of lesion cubes"):
        load_lesions(save_cubes(tmp_path, images=np.zeros(1)), set())


def test_whose_cubes_they_are(tmp_path: Path) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("case,lesion_patient\na,P1\nb,\n")
    assert lesion_patients(table) == {"a": "P1"}
    table.write_text("case\na\n")
    with pytest.raises(GliosliceError, match="lacks the column 'lesion_patient'"):
        lesion_patients(table)
    with pytest.raises(GliosliceError, match="no such file"):
        lesion_patients(tmp_path / "none.csv")
