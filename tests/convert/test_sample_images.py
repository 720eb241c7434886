from pathlib import Path

import numpy as np

from convert.sample_images import (
    MAX_EVALUATED,
    MAX_EXTENDED,
    MIN_IMAGES,
    SampleImages,
    extended_images,
    read_images,
    usual_images,
)


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
