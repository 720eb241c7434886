"""Thresholds on int8 logits mean what they mean on probabilities."""

import numpy as np

from benchmarks.thresholds import GRID, LEVELS, above
from device.engine import Tensor


def test_a_code_counts_where_its_probability_is_above_the_level() -> None:
    logits = Tensor(0, (1, 16, 16, 3), np.dtype(np.int8), 0.07, 31)
    codes = np.arange(-128, 128, dtype=np.int8).reshape(-1, 1).repeat(3, axis=1)
    chance = 1 / (1 + np.exp(-(codes.astype(np.float64) - 31) * 0.07))
    for level in LEVELS:
        assert (above(codes, level, logits) == (chance > level).T).all(), level
        assert 0 < above(codes, level, logits).sum() < codes.size


def test_the_first_thresholds_hold_what_all_others_hold() -> None:
    assert all((one.wt, one.tc, one.et) >= (GRID[0].wt, GRID[0].tc, GRID[0].et) for one in GRID)
    assert min(LEVELS) == GRID[0].wt == GRID[0].tc == GRID[0].et
