"""Simulated faults give the right warning; phantoms and real patients give none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from glioslice.cases import case_digest, find_cases, phantom_case, read_case
from glioslice.model_card import read_card, shipped_folder
from glioslice.phantom.head import SEEDS, make_phantom
from glioslice.preprocessing import brain_mask
from glioslice.sanity_checks import TRAINED_ON, find_warnings, mask_warnings, measure_shape
from tests.conftest import Write

Images = NDArray[np.float32]
FLAIR, T1, T1CE, T2 = range(4)


@pytest.fixture(scope="module")
def head() -> Images:
    """A phantom, to be copied before it is changed."""
    images = phantom_case(3).images
    images.setflags(write=False)
    return images


def test_a_model_that_was_trained_on_the_case(write_case: Write) -> None:
    case, card = read_case(write_case()), read_card(shipped_folder("nano"))
    usual = mask_warnings(case, card)
    content = {"training": {"cases": [{"case": case.name, "digest": case_digest(case)}]}}
    trained = replace(card, content=content, trained_on=frozenset({case_digest(case)}))
    assert mask_warnings(case, trained) == [*usual, TRAINED_ON]
    another = replace(case, volumes=case.images + 1)
    assert TRAINED_ON not in [*usual, *mask_warnings(another, trained)]


def only_warning(images: Images) -> str:
    [warning] = find_warnings(images)
    return warning


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS[:3])
@pytest.mark.parametrize("tumour", [True, False])
def test_phantoms_give_no_warning(seed: int, tumour: bool) -> None:
    assert find_warnings(make_phantom(seed, tumour=tumour).images) == []


@pytest.mark.slow
def test_a_phantom_gives_no_warning(head: Images) -> None:
    assert find_warnings(head) == []


@pytest.mark.real
@pytest.mark.slow
def test_real_patients_give_no_warning(real_cases: Path) -> None:
    warnings = {
        files.name: find_warnings(read_case(files).images) for files in find_cases(real_cases)
    }
    assert {name: found for name, found in warnings.items() if found} == {}
    assert len(warnings) >= 39


@pytest.mark.slow
@pytest.mark.parametrize(("place", "title"), list(enumerate(("FLAIR", "T1", "T1ce", "T2"))))
@pytest.mark.parametrize("value", [0, 700])
def test_a_missing_modality(head: Images, place: int, title: str, value: int) -> None:
    images = head.copy()
    images[place, brain_mask(head)] = value
    assert only_warning(images).startswith(f"{title} is {value} in 100% of the brain")


@pytest.mark.slow
def test_an_incomplete_modality(head: Images) -> None:
    images = head.copy()
    images[FLAIR, :, :, 70:] = 0
    assert "FLAIR is 0 in" in only_warning(images)


@pytest.mark.slow
def test_a_copied_modality(head: Images) -> None:
    images = head.copy()
    images[T1] = 0.4 * images[T1CE] + 3 * brain_mask(head)  # another scale, another level
    assert "T1 and T1ce are nearly the same image (correlation 1.000)" in only_warning(images)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        (T1, T1CE, "brightest parts of T1 stand out"),
        (T1, T2, "T2 resembles T1ce more than T1 does"),
        (T1CE, T2, "T2 resembles T1 more than T1ce does"),
        (FLAIR, T2, "T2 resembles T1ce more than FLAIR does"),
    ],
)
def test_swapped_modalities(head: Images, one: int, other: int, reason: str) -> None:
    images = head.copy()
    images[[one, other]] = head[[other, one]]
    warning = only_warning(images)
    assert "may be swapped" in warning and reason in warning


@pytest.mark.slow
def test_a_scalp_around_the_brain(head: Images) -> None:
    brain = brain_mask(head)
    gap = binary_dilation(brain, iterations=4)
    images = head.copy()
    images[:, binary_dilation(gap, iterations=3) & ~gap] = 400
    warning = only_warning(images)
    assert "do not look skull-stripped" in warning


@pytest.mark.slow
def test_a_body_instead_of_a_brain() -> None:
    x, y, z = np.mgrid[:240, :240, :155]
    body = ((x - 120) ** 2 + (y - 120) ** 2 < 78**2) & (z > 10) & (z < 145)
    noise = np.random.default_rng(0).normal(500, 60, (4, *body.shape))
    warning = only_warning((noise * body).astype(np.float32))
    assert "79% of its bounding box" in warning and "another part of the body" in warning
    assert "2,5" in warning and "mL" in warning


@pytest.mark.slow
def test_part_of_a_brain(head: Images) -> None:
    assert "mm feet to head" in only_warning(head[..., :75])


def test_empty_images() -> None:
    assert "every voxel" in only_warning(np.zeros((4, 5, 6, 7), np.float32)).lower()


def test_enclosed_voxels() -> None:
    images = np.ones((4, 9, 9, 9), np.float32)
    images[:, 3:6, 3:6, 3:6] = 0  # a hole
    images[:, 4, 4, 6:] = 0  # open at the top, so not enclosed
    seen = measure_shape(brain_mask(images))
    assert seen.enclosed == pytest.approx((27 - 3) / (729 - 30))
    assert seen.sides == (9, 9, 9)


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        array_shapes(min_dims=3, max_dims=3, max_side=6).map(lambda shape: (4, *shape)),
        elements=st.floats(-(2.0**99), 2.0**99, width=32),
    )
)
def test_warnings_are_single_sentences_for_any_images(images: Images) -> None:
    with np.errstate(all="raise"):
        for warning in find_warnings(images):
            assert (
                (warning[0].isupper() or warning[0].isdigit())
                and warning.endswith(".")
                and "\n" not in warning
            )
