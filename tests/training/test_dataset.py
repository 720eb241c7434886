"""Cases are split by patient, cached, and sampled reproducibly."""

from pathlib import Path

import numpy as np
import pytest
import torch

from glioslice.cases import find_cases
from glioslice.errors import GliosliceError
from tests.conftest import BRATS_2023, Write
from training.config import TrainingConfig
from training.dataset import (
    load_slices,
    load_split,
    patient_name,
    random_patient,
    read_grades,
    sample_slices,
    split_cases,
    with_grades,
)


def test_visits_of_a_patient_are_never_split(write_case: Write, tmp_path: Path) -> None:
    for name in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"):
        write_case(name, BRATS_2023, 3)
    cases = find_cases(tmp_path)
    for seed in range(6):
        kept, out = split_cases(cases, "1", seed)
        assert {patient_name(c.name) for c in kept}.isdisjoint(patient_name(c.name) for c in out)
        assert len(kept) + len(out) == 3
    kept, out = split_cases(cases, "BraTS-GLI-00001-001", 0)
    assert [c.name for c in kept] == ["BraTS-GLI-00002-000"]
    with pytest.raises(GliosliceError, match="not in the data: nobody"):
        split_cases(cases, "nobody", 0)
    with pytest.raises(GliosliceError, match="none of 2 patients"):
        split_cases(cases, "2", 0)


def test_slices_are_cached(write_case: Write, tmp_path: Path) -> None:
    [files] = find_cases(write_case())
    slices = load_slices(files, tmp_path / "cache")
    assert slices.images.shape == (14, 160, 192, 4)
    assert slices.with_tumour.tolist() == list(range(2, 12))
    again = load_slices(files, tmp_path / "cache")
    np.testing.assert_array_equal(again.images, slices.images)
    assert again.digest == slices.digest


def test_changed_files_invalidate_the_cache(write_case: Write, tmp_path: Path) -> None:
    folder = write_case()
    [files] = find_cases(folder)
    before = load_slices(files, tmp_path / "cache")
    (folder / "Case_1_t1.nii.gz").write_bytes((folder / "Case_1_t2.nii.gz").read_bytes())
    after = load_slices(files, tmp_path / "cache")
    assert before.digest != after.digest
    np.testing.assert_array_equal(after.images[..., 1], after.images[..., 3])


def test_a_case_without_mask_cannot_train(write_case: Write, tmp_path: Path) -> None:
    folder = write_case()
    (folder / "Case_1_seg.nii.gz").unlink()
    with pytest.raises(GliosliceError, match="Case_1: has no ground truth"):
        load_split(folder, "0", 0, tmp_path / "cache")


@pytest.mark.slow
def test_sampling_is_reproducible_and_favours_tumour(write_case: Write, tmp_path: Path) -> None:
    cases, _ = load_split(write_case(), "0", 0, tmp_path / "cache")

    def sample(seed: int) -> tuple[torch.Tensor, ...]:
        return sample_slices(
            cases, 200, TrainingConfig(resampled=0.5), torch.Generator().manual_seed(seed)
        )

    first, again, other = sample(1), sample(1), sample(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    share = first[1].flatten(1).any(dim=1).float().mean()
    expected = TrainingConfig.tumour + (1 - TrainingConfig.tumour) * 10 / 14
    assert abs(float(share) - expected) < 0.06


def test_crops_are_inside_the_window_on_tumour(write_case: Write, tmp_path: Path) -> None:
    cases, _ = load_split(write_case(), "0", 0, tmp_path / "cache")
    on_tumour = TrainingConfig(crop=64, centred=1.0)
    _, labels, centres = sample_slices(cases, 100, on_tumour, torch.Generator().manual_seed(0))
    low, high = centres - 31.5, centres + 31.5
    assert (low >= 0).all()
    assert (high <= torch.tensor([159, 191])).all()
    for mask, (top, left) in zip(labels, low.round().int().tolist(), strict=True):
        assert not mask.any() or mask[top : top + 64, left : left + 64].any()
    assert centres.std(dim=0).min() > 3  # not always the same place
    anywhere = TrainingConfig(crop=64, centred=0.0)
    _, _, wide = sample_slices(cases, 100, anywhere, torch.Generator().manual_seed(0))
    assert (wide.std(dim=0) > 1.5 * centres.std(dim=0)).all()


def test_low_grade_patients_have_their_share_of_the_draws() -> None:
    grades = ["high"] * 7 + ["low"] * 2 + ["unknown"]
    generator = torch.Generator().manual_seed(0)
    drawn = [random_patient(grades, 1 / 3, generator) for _ in range(3000)]
    low = [index for index in drawn if index in (7, 8)]
    assert len(low) / 3000 == pytest.approx(1 / 3, abs=0.03)
    assert set(drawn) == set(range(10))
    assert drawn.count(7) / len(low) == pytest.approx(1 / 2, abs=0.06)
    uniform = [random_patient(grades, 0.0, generator) for _ in range(3000)]
    assert sum(index in (7, 8) for index in uniform) / 3000 == pytest.approx(0.2, abs=0.03)
    assert {random_patient(["high"] * 3, 1 / 3, generator) for _ in range(50)} == {0, 1, 2}
    assert {random_patient(["low"] * 3, 1 / 3, generator) for _ in range(50)} == {0, 1, 2}


def test_grades_come_from_the_table(write_case: Write, tmp_path: Path) -> None:
    cases, _ = load_split(write_case(), "0", 0, tmp_path / "cache")
    table = tmp_path / "patients.csv"
    table.write_text("case,grade\nCase_1,low\n")
    assert with_grades(cases, read_grades(table))[0].grade == "low"
    table.write_text("case\nCase_1\n")
    assert with_grades(cases, read_grades(table))[0].grade == "unknown"
    with pytest.raises(GliosliceError, match="no such file"):
        read_grades(tmp_path / "none.csv")


def test_resampled_slices_keep_their_labels(write_case: Write, tmp_path: Path) -> None:
    cases, _ = load_split(write_case(), "0", 0, tmp_path / "cache")
    config = TrainingConfig(resampled=1.0, thick=1.0)
    images, labels, _ = sample_slices(cases, 20, config, torch.Generator().manual_seed(0))
    slice_of = {mask.tobytes(): z for z, mask in enumerate(cases[0].labels)}
    original = cases[0].images[[slice_of[mask.numpy().tobytes()] for mask in labels]]
    assert not torch.equal(images, torch.from_numpy(original))
