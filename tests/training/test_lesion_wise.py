"""The official package's scores: its volume Dice is ours, and its lesions are counted."""

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.labels import CORE, EDEMA, ENHANCING, REGIONS
from glioslice.metrics import region_dice
from training.lesion_wise import format_lesion_wise, lesion_wise_scorer

pytestmark = pytest.mark.slow  # the package takes seconds to import


def head(seed: int) -> NDArray[np.uint8]:
    """Nested boxes at random places, which overlap those of other seeds in part."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 44, 36), np.uint8)
    for label, size in ((EDEMA, 16), (CORE, 10), (ENHANCING, 5)):
        x, y, z = rng.integers(8, 14, 3)
        labels[x : x + size, y : y + size, z : z + size] = label
    return labels


def test_our_volume_dice_is_the_official_one() -> None:
    score = lesion_wise_scorer()
    seen: list[float] = []
    for seed in range(4):
        labels, truth = head(2 * seed), head(2 * seed + 1)
        official, ours = score(labels, truth), region_dice(labels, truth)
        for region in REGIONS:
            assert official[region]["volume_dice"] == pytest.approx(ours[region], abs=1e-12)
        seen += ours.values()
    assert sum(0 < dice < 1 for dice in seen) > 6  # most overlap in part
    empty = np.zeros_like(head(0))
    assert {of["volume_dice"] for of in score(empty, head(0)).values()} == {0}
    assert {of["volume_dice"] for of in score(empty, empty).values()} == {None}  # ours: 1


def test_lesions_are_found_missed_or_invented() -> None:
    truth = np.zeros((40, 44, 36), np.uint8)
    truth[5:15, 5:15, 5:15] = EDEMA
    truth[25:30, 25:30, 25:30] = EDEMA
    labels = np.zeros_like(truth)
    labels[5:15, 5:15, 7:15] = EDEMA
    labels[30:34, 5:9, 5:9] = EDEMA
    labels[36:38, 40:42, 30:32] = EDEMA
    scores = lesion_wise_scorer()(labels, truth)
    whole = scores["WT"]
    assert (whole["found"], whole["missed"], whole["invented"]) == (1, 1, 2)
    assert whole["dice"] == pytest.approx(2 * 800 / 1800)  # of the pair alone
    assert whole["hd95"] == pytest.approx(2)
    assert "1 found, 1 missed, 2 invented" in format_lesion_wise(scores)
    assert "ET lesion-wise: Dice -, HD95 - mm; 0 found" in format_lesion_wise(scores)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "brats_evaluation", None)  # importing it fails
    with pytest.raises(GliosliceError, match=r"pip install 'glioslice\[brats\]'"):
        lesion_wise_scorer()
