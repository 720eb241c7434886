"""Which masks, cases and reports are shown together, and which are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from firmware_host.mask_files import mask_case
from firmware_host.viewer.finished_case import page_warnings, read_finished
from glioslice.cases import Case, read_case
from glioslice.errors import GliosliceError
from glioslice.labels import to_scheme
from glioslice.metrics import volumes_ml
from glioslice.nifti import write_mask
from tests.conftest import Write


def save_mask(path: Path, case: Case, labels: NDArray[np.uint8] | None = None) -> Path:
    labels = case.labels if labels is None else labels
    assert labels is not None
    write_mask(path, to_scheme(labels, case.scheme), case.space)
    return path


def report_of(case: Case, /, **changes: Any) -> dict[str, Any]:
    assert case.labels is not None
    return {
        "case": case.name, "labels": "brats2018", "volumes_ml": volumes_ml(case.labels),
        "shape": list(case.space.shape), "affine": case.space.affine.tolist(), "warnings": [],
    } | changes  # fmt: skip


def save_report(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_what_belongs_together_is_shown(write_case: Write, tmp_path: Path) -> None:
    folder = write_case()
    case = read_case(folder)
    report = save_report(tmp_path / "r.json", report_of(case))
    for name in ("Case_1-mask.nii.gz", "Case_1-mask.partial.nii.gz", "other-mask.nii.gz", "m.nii"):
        mask = save_mask(tmp_path / name, case)
        found = read_finished(mask, folder, [report], None)
        assert found.name == "Case_1" and found.case is not None
        assert page_warnings(found) == []
    # The ground truth itself, by its place and by its name, without a report.
    truth = folder / "Case_1_seg.nii.gz"
    assert read_finished(truth, folder, [], None).case is not None
    assert read_finished(truth, None, [], None).name == "Case_1"
    played = save_report(tmp_path / "p.json", report_of(case, case=None))
    assert read_finished(tmp_path / "m.nii", folder, [played], None).name == "Case_1"


@pytest.mark.parametrize(
    ("mask", "changes", "with_case", "expected"),
    [
        ("Case_2-mask.nii.gz", None, True, "by its name the mask of Case_2, not of Case_1"),
        ("Case_2_seg.nii.gz", {}, False, "by its name the mask of Case_2, not of Case_1"),
        ("m.nii.gz", {"case": "Case_2"}, True, "is the report of Case_2, not of Case_1"),
        ("m.nii.gz", {"shape": [28, 36, 21]}, True, "made in another space"),
        ("m.nii.gz", {"affine": np.eye(4).tolist()}, False, "made in another space"),
        ("m.nii.gz", {"affine": "x"}, False, "not as a run writes it"),
        ("m.nii.gz", {"volumes_ml": {"WT": 1.5, "TC": 0.5, "ET": 0.2}}, False, "WT has 1.5 mL"),
        ("m.nii.gz", {"volumes_ml": None}, False, "is not the report of a run"),
    ],
)
def test_what_does_not_is_refused(
    mask: str, changes: dict[str, Any] | None, with_case: bool, expected: str,
    write_case: Write, tmp_path: Path,
) -> None:  # fmt: skip
    folder = write_case()
    case = read_case(folder)
    path = save_mask(tmp_path / mask, case)
    reports = []
    if changes is not None:
        reports = [save_report(tmp_path / "r.json", report_of(case, **changes))]
    with pytest.raises(GliosliceError, match=expected):
        read_finished(path, folder if with_case else None, reports, None)


def test_reports_that_hold_no_numbers_are_refused(write_case: Write, tmp_path: Path) -> None:
    case = read_case(write_case())
    mask = save_mask(tmp_path / "m.nii.gz", case)
    with pytest.raises(GliosliceError, match=r"r\.html: the numbers are read from the JSON"):
        read_finished(mask, None, [tmp_path / "r.html"], None)
    report = save_report(tmp_path / "r.json", report_of(case))
    with pytest.raises(GliosliceError, match="a mask has one report"):
        read_finished(mask, None, [report, report], None)


def test_another_patients_mask_of_the_same_shape(write_case: Write, tmp_path: Path) -> None:
    one, other = write_case("Ada"), write_case("Ben")
    mask = save_mask(tmp_path / "Ada-mask.nii.gz", read_case(one))
    with pytest.raises(GliosliceError, match="by its name the mask of Ada, not of Ben"):
        read_finished(mask, other, [], None)
    renamed = Path(shutil.copy(mask, tmp_path / "seen.nii.gz"))  # no name says whose it is
    assert read_finished(renamed, other, [], None).case is not None


def test_a_mask_that_leaves_the_brain_is_a_warning(write_case: Write, tmp_path: Path) -> None:
    folder = write_case()
    case = read_case(folder)
    assert case.labels is not None
    moved = np.roll(case.labels, 8, axis=0)
    found = read_finished(save_mask(tmp_path / "m.nii.gz", case, moved), folder, [], None)
    [warning] = [line for line in page_warnings(found) if "outside the brain" in line]
    assert warning.startswith("0.5 of the mask's 1.6 mL")


def test_what_reading_assumed_is_a_warning(write_case: Write, tmp_path: Path) -> None:
    folder = write_case()
    mask = save_mask(tmp_path / "m.nii.gz", read_case(folder), read_case(folder).labels)
    shutil.copy(folder / "Case_1_t1.nii.gz", folder / "notes.nii.gz")
    found = read_finished(mask, folder, [], None)
    assert any("notes.nii.gz: not used" in line for line in page_warnings(found))


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("A-B-mask.nii.gz", "A-B"), ("A_seg.nii", "A"), ("A-seg.NII.GZ", "A"),
        ("A-mask.partial.nii.gz", "A"), ("mask.nii.gz", None), ("A.nii.gz", None),
    ],
)  # fmt: skip
def test_the_case_in_a_masks_name(name: str, case: str | None) -> None:
    assert mask_case(Path(name)) == case
