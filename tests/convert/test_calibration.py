from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from convert import calibration as module
from convert.calibration import (
    EXTENDED_PER_CASE,
    MAX_EVALUATED,
    MAX_EXTENDED,
    MIN_IMAGES,
    USUAL_PER_CASE,
    ConversionCase,
    SampleImages,
    assign_roles,
    calibration_slices,
    extended_choice,
    extended_images,
    read_images,
    usual_choice,
    usual_images,
)
from glioslice.cases import case_digest, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.preprocessing import brain_mask, extract_slices, find_crop, z_scores
from tests.conftest import Write
from tests.convert.conftest import WINDOW

NOBODY: frozenset[str] = frozenset()


def names(chosen: tuple[ConversionCase, ...]) -> list[str]:
    return [one.name for one in chosen]


def phantom(seed: int, window: tuple[int, int], clip: float) -> ConversionCase:
    slices = np.zeros((2, *window, 4), np.float32)
    return ConversionCase(
        f"phantom-{seed}", "", True, slices, lambda: (np.zeros(0, np.float32), None)
    )


def test_without_a_card_every_fourth_case_evaluates(cases: Path) -> None:
    roles = assign_roles(cases, WINDOW, 5.0, NOBODY)
    assert names(roles.calibration) == ["case_0", "case_1", "case_2", "case_4"]
    assert names(roles.evaluation) == ["case_3"]
    assert roles.describe_evaluation() == {"what": "cases", "names": ["case_3"], "masks": True}


def test_training_cases_calibrate_and_all_others_evaluate(cases: Path) -> None:
    digests = [case_digest(read_case(files)) for files in find_cases(cases)]
    roles = assign_roles(cases, WINDOW, 5.0, frozenset(digests[1:3]))
    assert names(roles.calibration) == ["case_1", "case_2"]
    assert names(roles.evaluation) == ["case_0", "case_3", "case_4"]


def test_if_all_cases_were_trained_on_some_are_held_out(cases: Path) -> None:
    digests = frozenset(case_digest(read_case(files)) for files in find_cases(cases))
    roles = assign_roles(cases, WINDOW, 5.0, digests)
    assert names(roles.evaluation) == ["case_3"]
    assert "case_3" not in names(roles.calibration)


def test_a_single_case_calibrates_and_phantoms_evaluate(
    write_case: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_phantom", phantom)
    module._phantoms.cache_clear()
    roles = assign_roles(write_case("only").parent, WINDOW, 5.0, NOBODY)
    module._phantoms.cache_clear()
    assert names(roles.calibration) == ["only"]
    assert roles.describe_evaluation()["what"] == "phantoms"


def test_cases_without_masks_evaluate_only_if_none_has_one(
    write_case: Write, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        (write_case(name) / f"{name}_seg.nii.gz").unlink()
    roles = assign_roles(tmp_path, WINDOW, 5.0, NOBODY)
    assert roles.describe_evaluation() == {"what": "cases", "names": ["b"], "masks": False}


def test_slices_show_tumour_and_none(cases: Path) -> None:
    [first] = [
        s for s in assign_roles(cases, WINDOW, 5.0, NOBODY).calibration if s.name == "case_0"
    ]
    assert first.slices.shape == (8, *WINDOW, 4)
    assert first.slices.dtype == np.float32
    _, labels = first.load()
    assert labels is not None
    tumour = labels.any(axis=(0, 1))
    assert 0 < tumour.sum() < 12  # of twelve slices with brain some have it and some have not
    bright = (first.slices > 1.5).mean(axis=(1, 2, 3)) > 0.02
    assert 3 <= bright.sum() <= 5


def test_the_input_range_is_the_clip_range_whatever_the_cases(cases: Path) -> None:
    chosen = assign_roles(cases, WINDOW, 5.0, NOBODY).calibration
    slices = calibration_slices(chosen, 5.0)
    assert (slices.min(), slices.max()) == (-5.0, 5.0)
    assert np.count_nonzero(np.abs(slices) == 5) == 2
    again = calibration_slices(chosen, 5.0)
    np.testing.assert_array_equal(slices, again)
    assert np.count_nonzero(chosen[0].slices[0, 0, 0]) == 0  # the case's own are untouched


def test_a_case_larger_than_the_window_is_named(cases: Path) -> None:
    with pytest.raises(GliosliceError, match=r"case_0.*larger than the window"):
        assign_roles(cases, (16, 16), 5.0, NOBODY)


def volume(depth: int = 60) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A head whose slices 50 to 55 are bright and whose tumour lies in slices 10 to 29."""
    images = np.random.default_rng(0).uniform(100, 200, (4, 20, 30, depth)).astype(np.float32)
    labels = np.zeros(images.shape[1:], np.uint8)
    if depth > 50:
        images[:, 5:9, 5:9, 50:56] = 2000
        labels[8:12, 8:12, 10:30] = 2
    return images, labels


def where(slices: NDArray[np.float32], images: NDArray[np.float32]) -> list[int]:
    """The indices of slices in their volume."""
    every = all_slices(images)
    return [int(np.flatnonzero((every == one).all(axis=(1, 2, 3)))[0]) for one in slices]


def all_slices(images: NDArray[np.float32]) -> NDArray[np.float32]:
    brain = brain_mask(images)
    return extract_slices(z_scores(images, brain, 5.0), find_crop(brain, WINDOW))


def test_the_extended_choice_holds_the_bright_slices() -> None:
    images, labels = volume()
    few = where(usual_choice((images, labels), WINDOW, 5.0), images)
    many = where(extended_choice((images, labels), WINDOW, 5.0), images)
    assert (len(few), len(many)) == (USUAL_PER_CASE, EXTENDED_PER_CASE)
    assert not {*range(50, 56)} <= {*few}
    assert {*range(50, 56)} <= {*many}
    assert many == sorted(set(many))
    assert sum(10 <= z < 30 for z in many) >= EXTENDED_PER_CASE // 2


def test_the_extended_choice_without_masks_and_with_few_slices() -> None:
    images, _ = volume(10)
    assert len(extended_choice((images, None), WINDOW, 5.0)) == 10
    images, _ = volume(60)
    assert len(extended_choice((images, None), WINDOW, 5.0)) == EXTENDED_PER_CASE


def numbered(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Images (count, 1, 2, 2) that hold their number."""
    return np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2), np.float32)


def test_no_image_both_calibrates_and_evaluates() -> None:
    for count in (8, 9, 10, 11, 500):
        samples = SampleImages("x", numbered(count), None)
        calibration = set(samples.calibration[:, 0, 0, 0].astype(int))
        evaluation = set(samples.evaluation_indices.tolist())
        assert not calibration & evaluation
        assert max(calibration) < min(evaluation)
        assert len(evaluation) >= 2
        assert len(calibration) >= 6
        if count < 4 * MAX_EVALUATED:
            assert len(calibration | evaluation) == count
    assert len(evaluation) == MAX_EVALUATED


def test_the_usual_images_are_few_and_the_extended_hold_the_brightest() -> None:
    images = np.moveaxis(numbered(1000), 1, -1)
    assert len(usual_images(images[:6])) == 6
    assert len(usual_images(images[:12])) == MIN_IMAGES
    assert len(usual_images(images[:300])) == 100
    np.testing.assert_array_equal(extended_images(images[:300]), images[:300])
    chosen = set(extended_images(images)[:, 0, 0, 0].astype(int))
    assert len(chosen) == MAX_EXTENDED
    assert chosen >= set(range(1000 - MAX_EXTENDED // 2, 1000))
    assert min(chosen) == 0


def test_arrays_are_read(tmp_path: Path) -> None:
    images = numbered(8).astype(np.float64)
    np.save(tmp_path / "a.npy", images)
    plain = read_images(tmp_path / "a.npy")
    assert plain.images.dtype == np.float32
    assert plain.shape == (1, 2, 2)
    assert plain.masks is None
    np.savez(tmp_path / "a.npz", images=images, masks=np.ones((8, 3, 2, 2), np.uint8))
    masks = read_images(tmp_path / "a.npz").masks
    assert masks is not None
    assert masks.dtype == bool
