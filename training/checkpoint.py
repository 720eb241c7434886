"""Checkpoints: safetensors beside a JSON card, and the state from which training goes on."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from glioslice.card import Card, read_card, read_card_of
from glioslice.errors import GliosliceError
from glioslice.files import whole
from training.network import Network, NetworkConfig, build

STATE = "state.safetensors"


def load_model(folder: Path) -> tuple[Network, Card]:
    """Return the float network of a model folder in evaluation mode, and its card.

    Raises GliosliceError if card or checkpoint are missing, do not belong together, or hold
    weights of another shape or not-a-number.
    """
    card = read_card(folder)
    return load_weights(folder / f"{card.name}.safetensors")


def load_weights(file: Path) -> tuple[Network, Card]:
    """Return the network of one checkpoint file, described by the card beside it."""
    card = read_card_of(file)
    shape = card.content["network"]
    config = NetworkConfig(
        tuple(shape["widths"]),
        int(shape["inputs"]),
        int(shape["outputs"]),
        str(shape.get("design", NetworkConfig.design)),
        str(shape.get("upsampling", NetworkConfig.upsampling)),
        int(shape.get("stem", NetworkConfig.stem)),
    )
    network = build(config).eval()
    weights = _load(file)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise GliosliceError(f"{file}: not the weights of {config.widths}: {first}") from None
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise GliosliceError(f"{file}: {name} holds NaN or infinite weights; train again")
    return network, card


def save_tensors(
    file: Path, tensors: dict[str, Tensor], note: dict[str, Any] | None = None
) -> None:
    """Write tensors (and a JSON note in the file's metadata), whole or not at all."""
    metadata = None if note is None else {"json": json.dumps(note)}
    with whole(file) as temporary:
        save_file(
            {k: t.detach().cpu().contiguous() for k, t in tensors.items()}, temporary, metadata
        )


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and note of the training state in `folder`.

    Raises GliosliceError if there is none or it is damaged.
    """
    file = folder / STATE
    if not file.is_file():
        raise GliosliceError(
            f"{folder}: nothing to resume, there is no {STATE}; leave out --resume"
        )
    tensors = _load(file)
    with safe_open(file, "pt") as opened:
        note = json.loads(opened.metadata()["json"])
    return tensors, note


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise GliosliceError(f"{file}: damaged or no safetensors file ({error})") from None
