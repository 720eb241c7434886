"""Golden masks: what a model's int8 file makes of slices of the phantom, to hold any board against.

`golden-slices.npz` above the model folders holds the slices as every int8 network of the kit takes
them, `goldens.json` of a folder the file's SHA-256 and the masks, for the reference kernels of all
runtimes and for each runtime whose own kernels give the same bytes on every machine:

    {"file": NAME, "sha256": HEX, "masks": {"reference": [MASK, ...], "RUNTIME, XNNPACK": [...]}}

with MASK a mask of the wire's codec `runs` in base64. `tools/goldens.py` writes both. Float
files have none: their sums depend on the processor.
"""

import base64
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from device.engine import REFERENCE, Engine
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json
from glioslice.labels import to_labels
from glioslice.model_card import shipped
from glioslice.wire.codecs import RUNS, CodecError, decode_mask, encode_mask

GOLDENS = "goldens.json"
SLICES = "golden-slices.npz"


@dataclass(frozen=True)
class Goldens:
    """Masks (N, X, Y) by what made them, `source_of` its engine; `file` and `sha256` bind them."""

    file: str
    sha256: str
    masks: Mapping[str, NDArray[np.uint8]]


def source_of(engine: Engine) -> str:
    """Return under which name goldens hold the masks of an engine."""
    return engine.kernels if engine.kernels == REFERENCE else f"{engine.runtime}, {engine.kernels}"


def found(engine: Engine, slices: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return the labels (N, X, Y) that the engine finds in slices (N, X, Y, 4)."""
    return np.stack([to_labels(engine.regions(engine.invoke(one))) for one in slices])


def read_slices(path: Path | None = None) -> tuple[NDArray[np.int8], float, int]:
    """Return the golden slices (N, X, Y, 4), and scale and zero point of their steps.

    Those of the wheel or the checkout, unless `path` names others. Raises GliosliceError if they
    cannot be read.
    """
    path = path or shipped("compact").parent / SLICES
    try:
        with np.load(path) as held:
            return held["slices"], float(held["scale"]), int(held["zero_point"])
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise GliosliceError(f"{path}: cannot be read ({error}); install the kit again") from None


def golden_slices(engine: Engine, path: Path | None = None) -> NDArray[np.int8]:
    """Return the golden slices (N, X, Y, 4) as an engine's network takes them.

    Raises GliosliceError if they cannot be read or the network takes its input in other steps.
    """
    slices, *steps = read_slices(path)
    if steps != [engine.input.scale, engine.input.zero_point]:
        raise GliosliceError(f"{SLICES}: its steps {steps} are not those of the network")
    return slices


def read_goldens(folder: Path, window: tuple[int, int]) -> Goldens:
    """Return the goldens of a model folder whose network's window is (X, Y).

    Raises GliosliceError if there are none or they are malformed.
    """
    path = folder / GOLDENS
    if not path.is_file():
        raise GliosliceError(
            f"{path}: no such file; tools/goldens.py makes it, copy it to its model"
        )
    content = read_json(path)
    try:
        masks = {
            source: np.stack([decode_mask(RUNS, base64.b64decode(m), window) for m in coded])
            for source, coded in content["masks"].items()
        }
        return Goldens(str(content["file"]), str(content["sha256"]), masks)
    except (KeyError, TypeError, AttributeError, ValueError, Base64Error, CodecError) as error:
        raise GliosliceError(
            f"{path}: malformed ({error!r}); tools/goldens.py writes it anew"
        ) from None


def write_goldens(folder: Path, goldens: Goldens) -> None:
    """Write the goldens of a model folder, whole or not at all."""
    masks: dict[str, Any] = {
        source: [base64.b64encode(encode_mask(RUNS, mask)).decode() for mask in made]
        for source, made in goldens.masks.items()
    }
    write_json(folder / GOLDENS, {"file": goldens.file, "sha256": goldens.sha256, "masks": masks})
