from pathlib import Path

import numpy as np
import pytest

from convert import calibration as module
from convert.calibration import Subject, calibration, cast
from glioslice.cases import digest, find_cases, read_case
from glioslice.errors import GliosliceError
from tests.conftest import Write
from tests.convert.conftest import WINDOW

NOBODY: frozenset[str] = frozenset()


def names(subjects: tuple[Subject, ...]) -> list[str]:
    return [subject.name for subject in subjects]


def phantom(seed: int, window: tuple[int, int], clip: float) -> Subject:
    slices = np.zeros((2, *window, 4), np.float32)
    return Subject(f"phantom-{seed}", "", True, slices, lambda: (np.zeros(0, np.float32), None))


def test_without_a_card_every_fourth_case_is_for_judging(cases: Path) -> None:
    roles = cast(cases, WINDOW, 5.0, NOBODY)
    assert names(roles.calibrated) == ["case_0", "case_1", "case_2", "case_4"]
    assert names(roles.judged) == ["case_3"]
    assert roles.judged_on == {"what": "cases", "names": ["case_3"], "masks": True}


def test_those_trained_on_calibrate_and_all_others_judge(cases: Path) -> None:
    digests = [digest(read_case(files)) for files in find_cases(cases)]
    roles = cast(cases, WINDOW, 5.0, frozenset(digests[1:3]))
    assert names(roles.calibrated) == ["case_1", "case_2"]
    assert names(roles.judged) == ["case_0", "case_3", "case_4"]


def test_where_all_were_trained_on_some_are_kept_for_judging(cases: Path) -> None:
    digests = frozenset(digest(read_case(files)) for files in find_cases(cases))
    roles = cast(cases, WINDOW, 5.0, digests)
    assert names(roles.judged) == ["case_3"]
    assert "case_3" not in names(roles.calibrated)


def test_a_single_case_calibrates_and_phantoms_judge(
    write_case: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_phantom", phantom)
    module._phantoms.cache_clear()
    roles = cast(write_case("only").parent, WINDOW, 5.0, NOBODY)
    module._phantoms.cache_clear()
    assert names(roles.calibrated) == ["only"]
    assert roles.judged_on["what"] == "phantoms"


def test_cases_without_masks_judge_only_where_none_has_one(
    write_case: Write, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (write_case(name) / f"{name}_seg.nii.gz").unlink()
    roles = cast(tmp_path, WINDOW, 5.0, NOBODY)
    assert roles.judged_on == {"what": "cases", "names": ["b"], "masks": False}


def test_slices_show_tumour_and_none(cases: Path) -> None:
    [first] = [s for s in cast(cases, WINDOW, 5.0, NOBODY).calibrated if s.name == "case_0"]
    assert first.slices.shape == (8, *WINDOW, 4)
    assert first.slices.dtype == np.float32
    _, labels = first.load()
    assert labels is not None
    tumour = labels.any(axis=(0, 1))
    assert 0 < tumour.sum() < 12  # of twelve slices with brain some have it and some have not
    bright = (first.slices > 1.5).mean(axis=(1, 2, 3)) > 0.02
    assert 3 <= bright.sum() <= 5


def test_the_input_range_is_the_clip_range_whatever_the_cases(cases: Path) -> None:
    subjects = cast(cases, WINDOW, 5.0, NOBODY).calibrated
    slices = calibration(subjects, 5.0)
    assert (slices.min(), slices.max()) == (-5.0, 5.0)
    assert np.count_nonzero(np.abs(slices) == 5) == 2
    again = calibration(subjects, 5.0)
    np.testing.assert_array_equal(slices, again)
    assert np.count_nonzero(subjects[0].slices[0, 0, 0]) == 0  # the subject's own are untouched


def test_phantoms_that_judge_have_a_tumour() -> None:
    judging = list(module.PHANTOMS)[module.HOLD_OUT_EVERY - 1 :: module.HOLD_OUT_EVERY]
    assert judging
    assert all(seed % module.HOLD_OUT_EVERY for seed in judging)


def test_a_case_larger_than_the_window_is_named(cases: Path) -> None:
    with pytest.raises(GliosliceError, match=r"case_0.*larger than the window"):
        cast(cases, (16, 16), 5.0, NOBODY)
