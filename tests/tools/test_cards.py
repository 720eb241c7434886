"""Cards quote figures only of networks that are like theirs."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ROOT
from benchmarks.folds import FOLDS_FOLDER, FoldRun
from benchmarks.scores import BOTH, RAW, RULES
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.model_card import CARD, SHIPPED_MODELS, read_card, shipped_folder
from glioslice.postprocessing import STANDARD_RULES
from tests.benchmarks.made_scores import score_of, write_run
from tests.conftest import PATIENTS
from tools.cards import (
    main,
    make_readme,
    masks_section,
    quote_folds,
    set_masks,
    unseen_dice,
    way_of,
)
from tools.figures import choice_table, shipped_table


def folds_of(folds_folder: Path) -> dict[str, Any]:
    """Four scored folds, and a card with the same configuration that held out nobody."""
    for case, (_, fold) in PATIENTS.items():
        run = FoldRun("compact", fold)
        run.folder.mkdir()
        shutil.copy(FOLDS_FOLDER / "compact-1" / CARD, run.folder)
        write_run(run, score_of(case, (0.9, 0.8, 0.1 * fold)))
    content = read_json(FOLDS_FOLDER / "compact-1" / CARD)
    content["files"] = {"compact-int8.tflite": {"precision": "int8"}}
    return content


def test_a_card_quotes_its_folds(folds_folder: Path) -> None:
    figures = quote_folds(folds_of(folds_folder))["compact-int8.tflite"]
    assert figures["patients"] == 4
    assert figures["mean"] == {"WT": 0.9, "TC": 0.8, "ET": 0.25, "mean": 0.65}
    assert figures["interval"]["WT"] == [0.9, 0.9]
    low, high = figures["interval"]["ET"]
    assert 0.1 <= low < 0.25 < high <= 0.4


def test_a_card_quotes_masks_that_are_made_like_its_own(folds_folder: Path) -> None:
    content = folds_of(folds_folder)
    set_masks(content["output"], "on", "standard")
    with pytest.raises(GliosliceError, match="its folds have not been scored"):
        quote_folds(content)
    for case, (_, fold) in PATIENTS.items():
        write_run(FoldRun("compact", fold), score_of(case, (0.95, 0.8, 0.5), masks=BOTH))
    figures = quote_folds(content)["compact-int8.tflite"]
    assert (figures["masks"], figures["mean"]["WT"]) == (BOTH, 0.95)
    set_masks(content["output"], "off", None)
    assert way_of(content["output"]) == RULES
    set_masks(content["output"], None, "none")
    assert way_of(content["output"]) == RAW


def test_how_masks_are_made_is_set_in_the_card(tmp_path: Path) -> None:
    for name in (CARD, "compact.safetensors"):
        shutil.copy(shipped_folder("compact") / name, tmp_path)
    before = read_json(tmp_path / CARD)
    main([str(tmp_path), "--mirroring", "on", "--rules", "standard"])
    card, after = read_card(tmp_path), read_json(tmp_path / CARD)
    assert card.mirroring and card.rules == STANDARD_RULES
    assert after["output"].pop("mirroring") and after["output"].pop("postprocessing")
    before["output"].pop("mirroring", None)
    before["output"].pop("postprocessing", None)
    assert after == before
    assert (
        "an enhancing tumour of fewer than 100 voxels" in masks_section(card.content["output"])[0]
    )


def test_another_configuration_is_not_quoted(folds_folder: Path) -> None:
    content = folds_of(folds_folder)
    content["training"]["epochs"] += 1
    with pytest.raises(GliosliceError, match="compact-1: was trained with epochs"):
        quote_folds(content)


def test_all_folds_must_be_scored(folds_folder: Path) -> None:
    content = folds_of(folds_folder)
    (FoldRun("compact", 3).folder / "scores.csv").unlink()
    with pytest.raises(GliosliceError, match="its folds have not been scored"):
        quote_folds(content)


@pytest.mark.parametrize("size", SHIPPED_MODELS)
def test_readable_cards_are_current(size: str) -> None:
    content = read_json(shipped_folder(size) / CARD)
    text = (shipped_folder(size) / "README.md").read_text(encoding="utf-8")
    assert text == make_readme(content)
    assert "medical device" in text
    for name, figures in unseen_dice(content).items():
        assert name in text
        assert figures["patients"] >= 7


def test_the_readme_is_current() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, made in {"shipped": shipped_table(), "choice": choice_table()}.items():
        assert f"<!-- figures: {name} -->\n{made}\n<!-- end of {name} -->" in page


@pytest.mark.parametrize("page", ["README.md", "docs/training.md"])
def test_pages_count_the_patients_as_the_cards_do(page: str) -> None:
    counts = set(re.findall(r"of (\d+)\s+more", (ROOT / page).read_text(encoding="utf-8")))
    assert len(counts) == 2
    for size in SHIPPED_MODELS:
        card = (shipped_folder(size) / "README.md").read_text(encoding="utf-8")
        assert all(f"of {count} patients" in card for count in counts), size
