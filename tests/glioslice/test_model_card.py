"""A card describes exactly one file and is refused where it does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256, write_json
from glioslice.model_card import read_card, read_card_of, shipped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "m.tflite"
    model.write_bytes(b"weights")
    write_json(
        tmp_path / "card.json",
        {
            "name": "m",
            "input": {
                "modalities": ["flair", "t1", "t1ce", "t2"],
                "orientation": "LPS",
                "window": [160, 192],
                "clip": 5.0,
                "neighbours": 0,
            },
            "output": {"regions": ["WT", "TC", "ET"]},
            "training": {"cases": [{"case": "a", "digest": "d"}]},
            "files": {"m.tflite": {"sha256": sha256(model)}},
        },
    )
    return tmp_path


def test_a_card_and_its_file(folder: Path) -> None:
    card = read_card_of(folder / "m.tflite")
    assert (card.name, card.window, card.clip) == ("m", (160, 192), 5.0)
    assert card.trained_on == {"d"}


def test_a_changed_file_is_refused(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(b"weightz")
    with pytest.raises(GliosliceError, match=r"m\.tflite: its SHA-256 is not"):
        read_card_of(folder / "m.tflite")


def test_a_file_that_is_not_listed_or_not_there_is_refused(folder: Path) -> None:
    (folder / "other.tflite").write_bytes(b"weights")
    with pytest.raises(GliosliceError, match="does not list"):
        read_card_of(folder / "other.tflite")
    with pytest.raises(GliosliceError, match="no such model file"):
        read_card_of(folder / "none.tflite")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("input", {}, "missing or malformed"),
        ("training", {"cases": [{}]}, "missing or malformed"),
        ("output", {"regions": ["ET"]}, "the card says otherwise"),
    ],
)
def test_a_card_of_something_else_is_refused(
    folder: Path, key: str, value: Any, message: str
) -> None:
    write_json(folder / "card.json", read_json(folder / "card.json") | {key: value})
    with pytest.raises(GliosliceError, match=message):
        read_card(folder)


def test_a_network_that_wants_neighbours_is_refused(folder: Path) -> None:
    content = json.loads((folder / "card.json").read_text())
    content["input"]["neighbours"] = 1
    write_json(folder / "card.json", content)
    with pytest.raises(GliosliceError, match="neighbouring"):
        read_card(folder)


def test_an_unknown_shipped_model_is_named() -> None:
    with pytest.raises(GliosliceError, match="'huge'"):
        shipped("huge")
