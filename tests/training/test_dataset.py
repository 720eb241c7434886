"""Cases are split by patient and cached; grades come from a table.

Slices in memory: sampled by seed, grade and tumour, cropped inside the window, resampled.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glioslice.cases import find_cases
from glioslice.errors import GliosliceError
from tests.conftest import BRATS_2023, Write
from training.config import TrainingConfig
from training.dataset import (
    IGNORE,
    STEP,
    SlicePool,
    load_phantoms,
    load_slices,
    load_split,
    make_pool,
    patient_name,
    pool_of_cases,
    random_patient,
    read_grades,
    resample_volumes,
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
    assert np.flatnonzero(slices.labels.any(axis=(1, 2))).tolist() == list(range(2, 12))
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


def test_grades_come_from_the_table(write_case: Write, tmp_path: Path) -> None:
    cases, _ = load_split(write_case(), "0", 0, tmp_path / "cache")
    table = tmp_path / "patients.csv"
    table.write_text("case,grade\nCase_1,low\n")
    assert with_grades(cases, read_grades(table))[0].grade == "low"
    table.write_text("case\nCase_1\n")
    assert with_grades(cases, read_grades(table))[0].grade == "unknown"
    with pytest.raises(GliosliceError, match="no such file"):
        read_grades(tmp_path / "none.csv")


@pytest.mark.slow
def test_phantoms_are_cached_and_mostly_healthy(tmp_path: Path) -> None:
    phantoms = load_phantoms(2, tmp_path)
    assert [p.case for p in phantoms] == ["phantom-9100", "phantom-9101-healthy"]
    assert [bool(p.labels.any()) for p in phantoms] == [True, False]
    assert all(p.images.shape[1:] == (160, 192, 4) and p.images.any() for p in phantoms)
    again = load_phantoms(2, tmp_path)
    np.testing.assert_array_equal(again[1].images, phantoms[1].images)


CPU = torch.device("cpu")


@pytest.fixture
def pool(write_case: Write, tmp_path: Path) -> SlicePool:
    """One case of 14 slices, ten of them with tumour."""
    cases, _ = load_split(write_case(), "0", 0, tmp_path / "cache")
    return pool_of_cases(cases, CPU, resampled=True)


def small_volume(mean: float, tumour: int) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
    """Return five slices of a brain of `mean`, and labels: slices 1 and 2 hold `tumour`."""
    images = np.zeros((5, 160, 192, 4), np.float16)
    images[:, 40:120, 40:150] = mean
    labels = np.zeros((5, 160, 192), np.uint8)
    labels[1:3, 60:70, 60:70] = tumour
    return images, labels


def test_sampling_is_reproducible_and_favours_tumour(pool: SlicePool) -> None:
    def sample(seed: int) -> tuple[torch.Tensor, ...]:
        config = TrainingConfig(resampled=0.5)
        return sample_slices(pool, 200, config, torch.Generator().manual_seed(seed))

    first, again, other = sample(1), sample(1), sample(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    share = first[1].flatten(1).any(dim=1).float().mean()
    expected = TrainingConfig.tumour + (1 - TrainingConfig.tumour) * 10 / 14
    assert abs(float(share) - expected) < 0.06


def test_crops_are_inside_the_window_on_tumour(pool: SlicePool) -> None:
    on_tumour = TrainingConfig(crop=64, centred=1.0)
    _, labels, centres = sample_slices(pool, 100, on_tumour, torch.Generator().manual_seed(0))
    low, high = centres - 31.5, centres + 31.5
    assert (low >= 0).all()
    assert (high <= torch.tensor([159, 191])).all()
    for mask, (top, left) in zip(labels, low.round().int().tolist(), strict=True):
        assert not mask.any() or mask[top : top + 64, left : left + 64].any()
    assert centres.std(dim=0).min() > 3  # not always the same place
    anywhere = TrainingConfig(crop=64, centred=0.0)
    _, _, wide = sample_slices(pool, 100, anywhere, torch.Generator().manual_seed(0))
    assert (wide.std(dim=0) > 1.5 * centres.std(dim=0)).all()


def test_low_grade_patients_have_their_share_of_the_draws() -> None:
    grades = ["high"] * 7 + ["low"] * 2 + ["unknown"]
    uniform = np.random.default_rng(0).random((3000, 2))
    drawn = [random_patient(grades, 1 / 3, *pair) for pair in uniform]
    low = [index for index in drawn if index in (7, 8)]
    assert len(low) / 3000 == pytest.approx(1 / 3, abs=0.03)
    assert set(drawn) == set(range(10))
    assert drawn.count(7) / len(low) == pytest.approx(1 / 2, abs=0.06)
    equal = [random_patient(grades, 0.0, *pair) for pair in uniform]
    assert sum(index in (7, 8) for index in equal) / 3000 == pytest.approx(0.2, abs=0.03)
    assert {random_patient(["high"] * 3, 1 / 3, *pair) for pair in uniform} == {0, 1, 2}
    assert {random_patient(["low"] * 3, 1 / 3, *pair) for pair in uniform} == {0, 1, 2}


def test_values_are_int8_steps_and_labels_stay(pool: SlicePool) -> None:
    config = TrainingConfig(resampled=0.0)
    images, labels, _ = sample_slices(pool, 20, config, torch.Generator().manual_seed(0))
    assert images.shape == (20, 4, 160, 192)
    torch.testing.assert_close(images / STEP, (images / STEP).round(), atol=1e-3, rtol=0)
    pairs = {
        (image.numpy().tobytes(), mask.numpy().tobytes())
        for image, mask in zip(pool.images, pool.labels, strict=True)
    }
    steps = (images / STEP).round().to(torch.int8).permute(0, 2, 3, 1).contiguous()
    for image, mask in zip(steps, labels, strict=True):
        assert (image.numpy().tobytes(), mask.numpy().tobytes()) in pairs


def test_resampled_slices_are_used_and_made_anew(pool: SlicePool) -> None:
    config = TrainingConfig(resampled=1.0, thick=1.0)
    assert pool.resampled is not None
    assert torch.equal(pool.resampled, pool.images)
    resample_volumes(pool, config, torch.Generator().manual_seed(0))
    first = pool.resampled.clone()
    assert not torch.equal(first, pool.images)
    images, _, _ = sample_slices(pool, 5, config, torch.Generator().manual_seed(0))
    made = {slice_.float().mul(STEP).numpy().tobytes() for slice_ in first}
    assert all(i.permute(1, 2, 0).contiguous().numpy().tobytes() in made for i in images)
    resample_volumes(pool, config, torch.Generator().manual_seed(1))
    assert not torch.equal(pool.resampled, first)


def test_patients_without_tumour_and_ignored_pixels() -> None:
    volumes = [small_volume(1, 0), small_volume(2, IGNORE), small_volume(3, 2)]
    pool = make_pool([v[0] for v in volumes], [v[1] for v in volumes], ["high"] * 3, CPU)
    assert [len(indices) for indices in pool.with_tumour] == [0, 0, 2]
    config = TrainingConfig(tumour=1.0, centred=1.0, crop=64)
    drawn, masks, centres = sample_slices(pool, 200, config, torch.Generator().manual_seed(0))
    level = drawn.amax((1, 2, 3)).round()
    assert set(level.tolist()) == {1, 2, 3}
    assert (masks[level == 3] == 2).flatten(1).any(1).all()
    near = (centres[level == 3] - torch.tensor([64.5, 64.5])).abs()
    assert near.max() <= 5 + 64 / 4


def test_jitter_changes_level_and_spread_but_not_the_background() -> None:
    images, labels = small_volume(1, 2)
    config = TrainingConfig()

    def levels(jitter: float) -> torch.Tensor:
        pool = make_pool([images], [labels], ["low"], CPU, jitter=jitter)
        drawn, _, _ = sample_slices(pool, 60, config, torch.Generator().manual_seed(0))
        assert not drawn[:, :, :40].any()
        return drawn[:, :, 80, 80]

    assert levels(0.0).std() == pytest.approx(0, abs=1e-4)
    changed = levels(0.15)
    assert 0.05 < changed.std() < 0.15 * 2
    assert changed.std(dim=1).min() > 0  # each modality by itself
