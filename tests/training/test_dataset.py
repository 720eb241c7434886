"""Cases are split by patient and cached; grades come from a table."""

from pathlib import Path

import numpy as np
import pytest

from glioslice.cases import find_cases
from glioslice.errors import GliosliceError
from tests.conftest import BRATS_2023, Write
from training.dataset import (
    load_phantoms,
    load_slices,
    load_split,
    patient_name,
    read_grades,
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
