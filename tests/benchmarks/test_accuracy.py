"""The pages show the committed scores, and a network is never scored on its training set."""

import shutil
from pathlib import Path

import pytest

from benchmarks import accuracy
from benchmarks.accuracy import APPENDIX, PAGE, score_runs, write_page
from benchmarks.folds import FOLDS_FOLDER, FoldRun, held_out_cases
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json
from glioslice.model_card import CARD
from tests.conftest import Write

PICTURES = ("dice-by-patient.svg", "dice-by-bytes.svg")


def test_the_pages_show_the_committed_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (PAGE.name, APPENDIX):
        shutil.copy(PAGE.with_name(name), tmp_path)
    monkeypatch.setattr(accuracy, "PAGE", tmp_path / PAGE.name)
    write_page()
    for name in (PAGE.name, APPENDIX, *PICTURES):
        assert (tmp_path / name).read_bytes() == (PAGE.parent / name).read_bytes(), name


def test_a_patient_of_the_fold_must_be_there(write_case: Write, tmp_path: Path) -> None:
    write_case("Somebody")
    with pytest.raises(GliosliceError, match=f"lacks {held_out_cases(1)[0]} of fold 1"):
        score_runs([FoldRun("compact", 1)], tmp_path)


def test_a_patient_that_was_trained_on_is_not_scored(
    write_case: Write, folds_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The case is given to a network whose card lists it as a training case."""
    from glioslice.cases import case_digest, read_case

    shutil.copytree(FOLDS_FOLDER / "compact-1", folds_folder / "compact-1")
    data = tmp_path_factory.mktemp("data")
    seen = case_digest(read_case(write_case("a", folder=data)))
    card = read_json(folds_folder / "compact-1" / CARD)
    card["training"]["cases"][0]["digest"] = seen
    write_json(folds_folder / "compact-1" / CARD, card)
    with pytest.raises(GliosliceError, match="compact-1: was trained on a, "):
        score_runs([FoldRun("compact", 1)], data)
