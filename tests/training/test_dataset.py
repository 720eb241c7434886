"""Cases are split by patient, prepared once, and drawn the same by the same seed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from glioslice.cases import find_cases
from glioslice.errors import GliosliceError
from tests.conftest import BRATS_2023, Write
from training.config import Recipe
from training.dataset import draw_slices, load_split, patient_of, prepare, split


def test_a_patients_visits_stay_together(write_case: Write, tmp_path: Path) -> None:
    for name in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"):
        write_case(name, BRATS_2023, 3)
    cases = find_cases(tmp_path)
    for seed in range(6):
        kept, out = split(cases, "1", seed)
        assert {patient_of(c.name) for c in kept}.isdisjoint(patient_of(c.name) for c in out)
        assert len(kept) + len(out) == 3
    kept, out = split(cases, "BraTS-GLI-00001-001", 0)
    assert [c.name for c in kept] == ["BraTS-GLI-00002-000"]
    with pytest.raises(GliosliceError, match="no such case in the data: nobody"):
        split(cases, "nobody", 0)
    with pytest.raises(GliosliceError, match="no patient of 2 is left"):
        split(cases, "2", 0)


def test_prepared_slices(write_case: Write, tmp_path: Path) -> None:
    [files] = find_cases(write_case())
    slices = prepare(files, tmp_path / "cache")
    assert slices.images.shape == (14, 160, 192, 4)
    assert slices.with_tumour.tolist() == list(range(2, 12))
    again = prepare(files, tmp_path / "cache")
    np.testing.assert_array_equal(again.images, slices.images)
    assert again.digest == slices.digest


def test_changed_files_are_prepared_anew(write_case: Write, tmp_path: Path) -> None:
    folder = write_case()
    [files] = find_cases(folder)
    before = prepare(files, tmp_path / "cache")
    (folder / "Case_1_t1.nii.gz").write_bytes((folder / "Case_1_t2.nii.gz").read_bytes())
    after = prepare(files, tmp_path / "cache")
    assert before.digest != after.digest
    np.testing.assert_array_equal(after.images[..., 1], after.images[..., 3])


def test_a_case_without_mask_cannot_train(write_case: Write, tmp_path: Path) -> None:
    folder = write_case()
    (folder / "Case_1_seg.nii.gz").unlink()
    with pytest.raises(GliosliceError, match="Case_1: no expert mask"):
        load_split(folder, "0", 0, tmp_path / "cache")


def test_slices_follow_their_seed_and_favour_tumour(write_case: Write, tmp_path: Path) -> None:
    cases, _ = load_split(write_case(), "0", 0, tmp_path / "cache")

    def draw(seed: int) -> tuple[torch.Tensor, ...]:
        return draw_slices(cases, 200, Recipe(), torch.Generator().manual_seed(seed))

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    share = first[1].flatten(1).any(dim=1).float().mean()
    expected = Recipe.tumour + (1 - Recipe.tumour) * 10 / 14
    assert abs(float(share) - expected) < 0.06


def test_crops_lie_in_the_window_and_on_the_tumour(write_case: Write, tmp_path: Path) -> None:
    cases, _ = load_split(write_case(), "0", 0, tmp_path / "cache")
    near = Recipe(crop=64, centred=1.0)
    _, labels, centres = draw_slices(cases, 100, near, torch.Generator().manual_seed(0))
    low, high = centres - 31.5, centres + 31.5
    assert (low >= 0).all()
    assert (high <= torch.tensor([159, 191])).all()
    for mask, (top, left) in zip(labels, low.round().int().tolist(), strict=True):
        assert not mask.any() or mask[top : top + 64, left : left + 64].any()
    assert centres.std(dim=0).min() > 3  # not always the same place
    anywhere = Recipe(crop=64, centred=0.0)
    _, _, wide = draw_slices(cases, 100, anywhere, torch.Generator().manual_seed(0))
    assert (wide.std(dim=0) > 1.5 * centres.std(dim=0)).all()
