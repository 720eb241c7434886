"""Cards quote figures only of networks that are like theirs."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.folds import KEPT, ROOT, Run
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import CARD, SHIPPED, shipped
from tests.benchmarks.conftest import GRADES, score_of, write
from tools.cards import quoted, readable, unseen
from tools.figures import shipped_table


def folds_of(kept: Path) -> dict[str, Any]:
    """Four scored folds, and a card of the same recipe that held nobody out."""
    for case, (_, fold) in GRADES.items():
        run = Run("compact", fold)
        run.folder.mkdir()
        shutil.copy(KEPT / "compact-1" / CARD, run.folder)
        write(run, score_of(case, (0.9, 0.8, 0.1 * fold)))
    content = read_json(KEPT / "compact-1" / CARD)
    content["files"] = {"compact-int8.tflite": {"precision": "int8"}}
    return content


def test_a_card_quotes_its_folds(kept: Path) -> None:
    figures = quoted(folds_of(kept))["compact-int8.tflite"]
    assert figures["patients"] == 4
    assert figures["mean"] == {"WT": 0.9, "TC": 0.8, "ET": 0.25, "mean": 0.65}
    assert figures["interval"]["WT"] == [0.9, 0.9]
    low, high = figures["interval"]["ET"]
    assert 0.1 <= low < 0.25 < high <= 0.4


def test_another_recipe_is_not_quoted(kept: Path) -> None:
    content = folds_of(kept)
    content["training"]["epochs"] += 1
    with pytest.raises(GliosliceError, match="compact-1: was trained with epochs"):
        quoted(content)


def test_all_folds_must_be_scored(kept: Path) -> None:
    content = folds_of(kept)
    (Run("compact", 3).folder / "scores.csv").unlink()
    with pytest.raises(GliosliceError, match="its folds have not been scored"):
        quoted(content)


@pytest.mark.parametrize("size", SHIPPED)
def test_readable_cards_are_current(size: str) -> None:
    content = read_json(shipped(size) / CARD)
    text = (shipped(size) / "README.md").read_text(encoding="utf-8")
    assert text == readable(content)
    assert "no medical device" in text
    for name, figures in unseen(content).items():
        assert name in text
        assert figures["patients"] >= 7


def test_the_readme_is_current() -> None:
    assert shipped_table() in (ROOT / "README.md").read_text(encoding="utf-8")
