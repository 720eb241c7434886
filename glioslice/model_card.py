"""Model folders: `card.json`, the float checkpoint and TFLite files, bound by their SHA-256.

Packing strips metadata from TFLite files, so everything but the network itself is in the card:

    name        "compact"
    network     widths, inputs, outputs, parameters, macs
    input       modalities, orientation, spacing_mm, window [x, y], clip, neighbours
    output      regions, thresholds (folded into the last bias), mirroring (true: a board averages
                each slice with its mirror image), postprocessing {smallest_part,
                smallest_enhancing} (`glioslice.postprocessing`); without them there is none
    files       {file name: {precision, bytes, sha256}}
    training    cases [{case, digest}], seed, epochs, ...
    held_out    the cases left out of training, with their Dice, where there are any

Training writes such a folder and conversion adds files to it. `models/` holds the shipped ones.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.files import read_json, sha256
from glioslice.labels import REGIONS
from glioslice.postprocessing import NO_RULES, PostprocessingRules

CARD = "card.json"

SHIPPED_MODELS = ("nano", "compact")

DEFAULT_MODEL = "compact"
"""The most accurate model of at most 60,000 bytes."""


@dataclass(frozen=True)
class Card:
    """The entries of a card that the code needs; `content` is the whole card.

    `trained_on` holds the digests (`glioslice.cases.case_digest`) of the training cases.
    `mirroring` and `rules` say how masks are made of the network's logits, and what is done to a
    whole volume of them.
    """

    name: str
    window: tuple[int, int]
    clip: float
    trained_on: frozenset[str]
    content: dict[str, Any]
    mirroring: bool = False
    rules: PostprocessingRules = NO_RULES


def read_card(folder: Path) -> Card:
    """Return the card of a model folder.

    Raises GliosliceError if it is missing or incomplete, or describes other inputs or outputs than
    those of glioslice.
    """
    path = folder / CARD
    content = read_json(path)
    try:
        inputs, outputs = content["input"], content["output"]
        card = Card(
            name=str(content["name"]),
            window=(int(inputs["window"][0]), int(inputs["window"][1])),
            clip=float(inputs["clip"]),
            trained_on=frozenset(str(c["digest"]) for c in content["training"]["cases"]),
            content=content,
            mirroring=_flag(outputs.get("mirroring", False)),
            rules=PostprocessingRules(**outputs.get("postprocessing", {})),
        )
        supported = (
            tuple(inputs["modalities"]) == MODALITIES
            and inputs["orientation"] == "LPS"
            and inputs["neighbours"] == 0
            and tuple(outputs["regions"]) == REGIONS
        )
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise GliosliceError(f"{path}: the entry {error} is missing or malformed") from None
    if not supported:
        raise GliosliceError(
            f"{path}: describes another input or output than {', '.join(MODALITIES)} in LPS "
            f"orientation without neighbouring slices, and {', '.join(REGIONS)}"
        )
    return card


def _flag(value: Any) -> bool:
    """Return a JSON boolean; raises ValueError for anything else."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r}, expected true or false,")
    return value


def read_verified_card(file: Path) -> Card:
    """Return the card beside a model file, after checking that it describes this very file.

    Raises GliosliceError if the file is missing, not listed in the card, or has another SHA-256.
    """
    if not file.is_file():
        raise GliosliceError(f"{file}: no such model file")
    if not (file.parent / CARD).is_file():
        raise GliosliceError(f"{file}: there is no {CARD} beside it, which describes its input")
    card = read_card(file.parent)
    entry = card.content.get("files", {}).get(file.name)
    if entry is None:
        raise GliosliceError(f"{file}: not listed in the {CARD} beside it")
    if entry.get("sha256") != sha256(file):
        raise GliosliceError(
            f"{file}: its SHA-256 differs from that in the {CARD} beside it: the file was changed "
            "or damaged, copy both again"
        )
    return card


def shipped_folder(name: str) -> Path:
    """Return the folder of a shipped model, in the installed package or in the checkout.

    Raises GliosliceError if it is in neither.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "models" / name, package.parent / "models" / name):
        if (folder / CARD).is_file():
            return folder
    raise GliosliceError(
        f"the shipped model '{name}' was not found; there are {', '.join(SHIPPED_MODELS)}"
    )


def find_model(value: str | Path | None = None) -> Path:
    """Return the TFLite file that a `--model` option means.

    Args:
        value: None for the default model, the name of a shipped model, a model folder, or a file.
            Of a folder the int8 file is taken, or its only TFLite file.

    Raises:
        GliosliceError: if there is no such model, or a folder has no TFLite file or several.
    """
    if value is None:
        value = DEFAULT_MODEL
    path = Path(value)
    if path.is_file():
        return path
    if str(value) in SHIPPED_MODELS:
        return _file_in(shipped_folder(str(value)))
    if path.is_dir():
        return _file_in(path)
    raise GliosliceError(
        f"there is no model '{value}'; give a .tflite file, a model folder, or one of "
        f"{', '.join(SHIPPED_MODELS)}"
    )


def _file_in(folder: Path) -> Path:
    files = sorted(folder.glob("*.tflite"))
    chosen = [file for file in files if file.stem.endswith("-int8")] or files
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(file.name for file in files) or "none"
    raise GliosliceError(f"{folder}: name one of its TFLite files (there are: {names})")
