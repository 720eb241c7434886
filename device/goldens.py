"""Golden masks: what a model's int8 file makes of slices of the phantom, to test any board against.

`golden-slices.npz` in the folder above the model folders holds the slices, in the int8 input that
every network of glioslice takes. `goldens.json` in a model folder holds the file's SHA-256 and its
masks: those of the reference kernels, which are the same for all runtimes, and those of each
runtime whose own kernels give the same bytes on every machine. Each twice: as the network gives
them, and (", mirrored") with test-time augmentation by mirroring, whatever the card says.

    {"file": NAME, "sha256": HEX, "masks": {"reference": [MASK, ...], "RUNTIME, XNNPACK": [...]}}

MASK is the `runs` encoding of the wire's mask codecs, in base64. `tools/goldens.py` writes both.
Float files have no goldens, because their sums depend on the processor.
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
from glioslice.model_card import shipped_folder
from glioslice.wire.codecs import RUNS, CodecError, decode_mask, encode_mask

GOLDENS = "goldens.json"
SLICES = "golden-slices.npz"
MIRRORED = ", mirrored"
"""The end of the key of masks that were made with mirroring."""


@dataclass(frozen=True)
class Goldens:
    """Masks (N, X, Y) by the `golden_key` of the engine that made them.

    `file` and `sha256` bind them to a model file.
    """

    file: str
    sha256: str
    masks: Mapping[str, NDArray[np.uint8]]


def golden_key(engine: Engine) -> str:
    """Return the key under which goldens hold an engine's masks."""
    kernels = engine.kernels
    key = kernels if kernels == REFERENCE else f"{engine.runtime}, {kernels}"
    return f"{key}{MIRRORED}" if engine.mirroring else key


def compute_masks(engine: Engine, slices: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return the labels (N, X, Y) that the engine predicts for slices (N, X, Y, 4)."""
    return np.stack([to_labels(engine.regions(engine.logits(one))) for one in slices])


def read_slices(path: Path | None = None) -> tuple[NDArray[np.int8], float, int]:
    """Return the golden slices (N, X, Y, 4), and the scale and zero point of their quantization.

    They come from the wheel or the checkout, unless `path` names another file. Raises
    GliosliceError if they cannot be read.
    """
    path = path or shipped_folder("compact").parent / SLICES
    try:
        with np.load(path) as arrays:
            return arrays["slices"], float(arrays["scale"]), int(arrays["zero_point"])
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise GliosliceError(f"{path}: cannot be read ({error}); reinstall glioslice") from None


def golden_slices(engine: Engine, path: Path | None = None) -> NDArray[np.int8]:
    """Return the golden slices (N, X, Y, 4) for an engine.

    Raises GliosliceError if they cannot be read or the network's input is quantized differently.
    """
    slices, *quantization = read_slices(path)
    if quantization != [engine.input.scale, engine.input.zero_point]:
        raise GliosliceError(
            f"{SLICES}: scale and zero point {quantization} are not those of the network"
        )
    return slices


def read_goldens(folder: Path, window: tuple[int, int]) -> Goldens:
    """Return the goldens of a model folder whose network's window is (X, Y).

    Raises GliosliceError if there are none or they are malformed.
    """
    path = folder / GOLDENS
    if not path.is_file():
        raise GliosliceError(
            f"{path}: no such file; copy it beside the model, or make it with tools/goldens.py"
        )
    content = read_json(path)
    try:
        masks = {
            key: np.stack([decode_mask(RUNS, base64.b64decode(m), window) for m in encoded])
            for key, encoded in content["masks"].items()
        }
        return Goldens(str(content["file"]), str(content["sha256"]), masks)
    except (KeyError, TypeError, AttributeError, ValueError, Base64Error, CodecError) as error:
        raise GliosliceError(
            f"{path}: malformed ({error!r}); make it again with tools/goldens.py"
        ) from None


def write_goldens(folder: Path, goldens: Goldens) -> None:
    """Write the goldens of a model folder atomically."""
    masks: dict[str, Any] = {
        key: [base64.b64encode(encode_mask(RUNS, mask)).decode() for mask in made]
        for key, made in goldens.masks.items()
    }
    write_json(folder / GOLDENS, {"file": goldens.file, "sha256": goldens.sha256, "masks": masks})
