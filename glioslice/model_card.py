"""A model folder: `card.json`, the float checkpoint and the TFLite files, bound by their SHA-256.

Packing strips a file's metadata, so everything but the network itself stands in the card:

    name        "compact"
    network     widths, inputs, outputs, parameters, macs
    input       modalities, orientation, spacing_mm, window [x, y], clip, neighbours
    output      regions, thresholds (folded into the last bias)
    files       {file name: {precision, bytes, sha256}}
    training    cases [{case, digest}], seed, epochs, ...
    held_out    the cases left out of training, with their Dice, where there are any

Training writes such a folder, conversion adds to it, `models/` ships two.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256
from glioslice.labels import REGIONS

CARD = "card.json"

SHIPPED = ("nano", "compact")


@dataclass(frozen=True)
class Card:
    """What the code needs of a card; `content` is the whole of it.

    `trained_on` holds the digests (`glioslice.cases.digest`) of the cases seen in training.
    """

    name: str
    window: tuple[int, int]
    clip: float
    trained_on: frozenset[str]
    content: dict[str, Any]


def read_card(folder: Path) -> Card:
    """Return the card of a model folder.

    Raises GliosliceError if it is missing, incomplete, or describes an input that is not ours.
    """
    path = folder / CARD
    content = read_json(path)
    try:
        given, wanted = content["input"], content["output"]
        card = Card(
            name=str(content["name"]),
            window=(int(given["window"][0]), int(given["window"][1])),
            clip=float(given["clip"]),
            trained_on=frozenset(str(c["digest"]) for c in content["training"]["cases"]),
            content=content,
        )
        ours = (
            tuple(given["modalities"]) == MODALITIES
            and given["orientation"] == "LPS"
            and given["neighbours"] == 0
            and tuple(wanted["regions"]) == REGIONS
        )
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise GliosliceError(f"{path}: the entry {error} is missing or malformed") from None
    if not ours:
        raise GliosliceError(
            f"{path}: this version reads {', '.join(MODALITIES)} in LPS order without neighbouring "
            f"slices and {', '.join(REGIONS)} out; the card says otherwise"
        )
    return card


def read_card_of(file: Path) -> Card:
    """Return the card beside a model file, once it is sure that it describes this very file.

    Raises GliosliceError if the file is missing, not listed in the card, or of another SHA-256.
    """
    if not file.is_file():
        raise GliosliceError(f"{file}: no such model file")
    card = read_card(file.parent)
    entry = card.content.get("files", {}).get(file.name)
    if entry is None:
        raise GliosliceError(f"{file}: {CARD} beside it does not list this file")
    if entry.get("sha256") != sha256(file):
        raise GliosliceError(
            f"{file}: its SHA-256 is not the one in {CARD} beside it: the file was changed or "
            "damaged, copy both again"
        )
    return card


def shipped(name: str) -> Path:
    """Return the folder of one of SHIPPED: of the wheel or of the checkout.

    Raises GliosliceError if it is in neither.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "models" / name, here.parent / "models" / name):
        if (folder / CARD).is_file():
            return folder
    raise GliosliceError(
        f"no shipped model '{name}' was found; the shipped ones are {', '.join(SHIPPED)}"
    )


def default_model() -> Path:
    """Return the file that runs where none is named: compact in int8, the best masks that fit."""
    return shipped("compact") / "compact-int8.tflite"
