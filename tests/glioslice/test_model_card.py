"""Cards are bound to their files, and `--model` values to files."""

import json
from pathlib import Path
from typing import Any

import pytest

from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256, write_json
from glioslice.model_card import find_model, read_card, read_verified_card, shipped_folder
from glioslice.postprocessing import PostprocessingRules

WITH: dict[str, Any] = {"regions": ["WT", "TC", "ET"]}


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
    card = read_verified_card(folder / "m.tflite")
    assert (card.name, card.window, card.clip) == ("m", (160, 192), 5.0)
    assert card.trained_on == {"d"}


def test_how_masks_are_made(folder: Path) -> None:
    card = read_card(folder)
    assert not card.mirroring and not card.rules
    output = WITH | {"mirroring": True, "postprocessing": {"smallest_enhancing": 100}}
    write_json(folder / "card.json", read_json(folder / "card.json") | {"output": output})
    card = read_card(folder)
    assert card.mirroring and card.rules == PostprocessingRules(0.0, 100)


def test_a_changed_file_is_refused(folder: Path) -> None:
    (folder / "m.tflite").write_bytes(b"weightz")
    with pytest.raises(GliosliceError, match=r"m\.tflite: its SHA-256"):
        read_verified_card(folder / "m.tflite")


def test_a_file_that_is_missing_or_not_listed_is_refused(folder: Path) -> None:
    (folder / "other.tflite").write_bytes(b"weights")
    with pytest.raises(GliosliceError, match="not listed"):
        read_verified_card(folder / "other.tflite")
    with pytest.raises(GliosliceError, match="no such model file"):
        read_verified_card(folder / "none.tflite")
    (folder / "card.json").unlink()
    with pytest.raises(GliosliceError, match=r"m\.tflite: there is no card\.json beside it"):
        read_verified_card(folder / "m.tflite")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("input", {}, "missing or malformed"),
        ("training", {"cases": [{}]}, "missing or malformed"),
        ("output", {"regions": ["ET"]}, "another input or output"),
        ("output", WITH | {"mirroring": "yes"}, "'yes', expected true or false, is .* malformed"),
        ("output", WITH | {"postprocessing": {"smallest": 1}}, "smallest"),
        ("output", WITH | {"postprocessing": {"smallest_part": 2}}, "a share from 0 to 1"),
        ("output", WITH | {"postprocessing": {"smallest_part": "a"}}, "malformed"),
        ("output", WITH | {"postprocessing": [1]}, "malformed"),
    ],
)
def test_an_unsupported_card_is_refused(folder: Path, key: str, value: Any, message: str) -> None:
    write_json(folder / "card.json", read_json(folder / "card.json") | {key: value})
    with pytest.raises(GliosliceError, match=message):
        read_card(folder)


def test_a_network_with_neighbouring_slices_is_refused(folder: Path) -> None:
    content = json.loads((folder / "card.json").read_text())
    content["input"]["neighbours"] = 1
    write_json(folder / "card.json", content)
    with pytest.raises(GliosliceError, match="neighbouring"):
        read_card(folder)


def test_an_unknown_shipped_model_is_named() -> None:
    with pytest.raises(GliosliceError, match="'huge'"):
        shipped_folder("huge")


def test_the_default_model_and_the_shipped_ones() -> None:
    assert find_model() == find_model(None) == find_model("compact")
    assert find_model("nano").name == "nano-int8.tflite"  # of two TFLite files
    assert find_model(shipped_folder("nano")) == find_model("nano")


def test_a_model_file_or_folder(folder: Path) -> None:
    file = folder / "m.tflite"
    assert find_model(file) == find_model(str(file)) == file
    assert find_model(folder) == file  # its only one
    (folder / "x.tflite").write_bytes(b"")
    with pytest.raises(GliosliceError, match=r"m\.tflite, x\.tflite"):
        find_model(folder)
    (folder / "m-int8.tflite").write_bytes(b"")
    assert find_model(folder).name == "m-int8.tflite"


def test_an_unknown_model_is_refused_with_the_choices(tmp_path: Path) -> None:
    for value in ("huge", tmp_path / "none.tflite"):
        with pytest.raises(GliosliceError, match="nano, compact"):
            find_model(value)
    with pytest.raises(GliosliceError, match="none"):
        find_model(tmp_path)
