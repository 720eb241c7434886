"""The page is what the committed scores say, and scoring refuses what would flatter."""

import shutil
from pathlib import Path

import pytest

from benchmarks import accuracy
from benchmarks.accuracy import PAGE, score, write
from benchmarks.folds import KEPT, Run, left_out
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json
from glioslice.model_card import CARD
from tests.conftest import Write

PICTURES = ("dice-by-patient.svg", "dice-by-bytes.svg")


def test_the_page_is_what_the_committed_scores_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(PAGE, tmp_path)
    monkeypatch.setattr(accuracy, "PAGE", tmp_path / PAGE.name)
    write()
    for name in (PAGE.name, *PICTURES):
        assert (tmp_path / name).read_bytes() == (PAGE.parent / name).read_bytes(), name


def test_a_patient_of_the_fold_must_be_there(write_case: Write, tmp_path: Path) -> None:
    write_case("Somebody")
    with pytest.raises(GliosliceError, match=f"lacks {left_out(1)[0]} of fold 1"):
        score([Run("compact", 1)], tmp_path)


def test_a_patient_that_was_trained_on_is_not_scored(
    write_case: Write, kept: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The case is given to a network whose card says that it has seen it."""
    from glioslice.cases import digest, find_case, read_case

    shutil.copytree(KEPT / "compact-1", kept / "compact-1")
    data = tmp_path_factory.mktemp("data")
    seen = digest(read_case(find_case(write_case("a", folder=data))))
    card = read_json(kept / "compact-1" / CARD)
    card["training"]["cases"][0]["digest"] = seen
    write_json(kept / "compact-1" / CARD, card)
    with pytest.raises(GliosliceError, match="compact-1: was trained on a, of its own fold"):
        score([Run("compact", 1)], data)
