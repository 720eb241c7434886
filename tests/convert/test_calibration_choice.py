import numpy as np
from numpy.typing import NDArray

from convert.calibration import MORE_PER_CASE, SLICES_PER_CASE, better, usual
from tests.convert.conftest import WINDOW


def volume(depth: int = 60) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A head whose slices 50 to 55 are bright and whose tumour lies in slices 10 to 29."""
    images = np.random.default_rng(0).uniform(100, 200, (4, 20, 30, depth)).astype(np.float32)
    labels = np.zeros(images.shape[1:], np.uint8)
    if depth > 50:
        images[:, 5:9, 5:9, 50:56] = 2000
        labels[8:12, 8:12, 10:30] = 2
    return images, labels


def where(slices: NDArray[np.float32], images: NDArray[np.float32]) -> list[int]:
    """The numbers of slices in their volume, told by a voxel."""
    every = np.asarray(usual_all(images))
    return [int(np.flatnonzero((every == one).all(axis=(1, 2, 3)))[0]) for one in slices]


def usual_all(images: NDArray[np.float32]) -> NDArray[np.float32]:
    from glioslice.preprocessing import brain_of, crop_of, cut, z_scores

    brain = brain_of(images)
    return cut(z_scores(images, brain, 5.0), crop_of(brain, WINDOW))


def test_the_usual_slices_may_miss_the_bright_ones_and_the_better_do_not() -> None:
    images, labels = volume()
    few = where(usual((images, labels), WINDOW, 5.0), images)
    many = where(better((images, labels), WINDOW, 5.0), images)
    assert (len(few), len(many)) == (SLICES_PER_CASE, MORE_PER_CASE)
    assert not {*range(50, 56)} <= {*few}
    assert {*range(50, 56)} <= {*many}
    assert many == sorted(set(many))
    assert sum(10 <= z < 30 for z in many) >= MORE_PER_CASE // 2


def test_without_masks_and_with_few_slices_there_is_still_a_choice() -> None:
    images, _ = volume(10)
    assert len(better((images, None), WINDOW, 5.0)) == 10
    images, _ = volume(60)
    assert len(better((images, None), WINDOW, 5.0)) == MORE_PER_CASE
