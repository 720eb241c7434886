from pathlib import Path

import numpy as np

from convert.external_model import FEWEST, MOST, MOST_JUDGED, Examples, better, read_examples, usual


def numbered(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Images (count, 1, 2, 2) that hold their number."""
    return np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 2), np.float32)


def test_no_image_both_calibrates_and_judges() -> None:
    for count in (8, 9, 10, 11, 500):
        examples = Examples("x", numbered(count), None)
        calibrating = set(examples.calibrating[:, 0, 0, 0].astype(int))
        judging = set(examples.judging.tolist())
        assert not calibrating & judging
        assert max(calibrating) < min(judging)
        assert len(judging) >= 2
        assert len(calibrating) >= 6
        if count < 4 * MOST_JUDGED:
            assert len(calibrating | judging) == count
    assert len(judging) == MOST_JUDGED


def test_the_usual_are_few_and_more_hold_the_brightest() -> None:
    images = np.moveaxis(numbered(1000), 1, -1)
    assert len(usual(images[:6])) == 6
    assert len(usual(images[:12])) == FEWEST
    assert len(usual(images[:300])) == 100
    np.testing.assert_array_equal(better(images[:300]), images[:300])
    chosen = set(better(images)[:, 0, 0, 0].astype(int))
    assert len(chosen) == MOST
    assert chosen >= set(range(1000 - MOST // 2, 1000))
    assert min(chosen) == 0


def test_arrays_are_read_as_they_are_meant(tmp_path: Path) -> None:
    images = numbered(8).astype(np.float64)
    np.save(tmp_path / "a.npy", images)
    plain = read_examples(tmp_path / "a.npy")
    assert plain.images.dtype == np.float32
    assert plain.shape == (1, 2, 2)
    assert plain.masks is None
    np.savez(tmp_path / "a.npz", images=images, masks=np.ones((8, 3, 2, 2), np.uint8))
    masks = read_examples(tmp_path / "a.npz").masks
    assert masks is not None
    assert masks.dtype == bool
