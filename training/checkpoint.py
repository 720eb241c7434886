"""Checkpoints: safetensors beside a JSON card, and the state from which training goes on.

The card of a trained network, and the model folder that it describes.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.files import sha256, whole, write_json
from glioslice.labels import REGIONS
from glioslice.model_card import CARD, Card, read_card, read_card_of
from glioslice.preprocessing import CLIP, WINDOW
from training.dataset import Slices
from training.network import Network, NetworkConfig, build, macs, parameters

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


INTENDED_USE = (
    "Research and teaching on skull-stripped, registered 1 mm MR of adult glioma (T1, T1ce, T2, "
    "FLAIR). Research software, no medical device: not for diagnosis or treatment."
)
LICENCE = (
    "Weights: research use. They were learnt from BraTS data, whose terms ask for non-commercial "
    "research and the credits below. Code: Apache-2.0."
)
CREDITS = (
    'B. H. Menze et al., "The Multimodal Brain Tumor Image Segmentation Benchmark (BRATS)", '
    "IEEE TMI 34(10), 2015.",
    'S. Bakas et al., "Advancing The Cancer Genome Atlas glioma MRI collections with expert '
    'segmentation labels and radiomic features", Scientific Data 4:170117, 2017.',
    'S. Bakas et al., "Identifying the Best Machine Learning Algorithms for Brain Tumor '
    'Segmentation...", arXiv:1811.02629.',
    'U. Baid et al., "The RSNA-ASNR-MICCAI BraTS 2021 Benchmark on Brain Tumor Segmentation and '
    'Radiogenomic Classification", arXiv:2107.02314.',
)


def trained_card(
    network: Network,
    size: str,
    settings: dict[str, Any],
    held_out: list[Slices],
    before: list[dict[str, str]],
) -> dict[str, Any]:
    """Return the card of a run, but for its files.

    `before` are the cases that a fine-tuned model or teachers have seen: they stay seen.
    """
    seen = {case["digest"]: case for case in before}
    mine = {case["digest"] for case in settings["cases"]}
    cases = settings["cases"] + [case for digest, case in seen.items() if digest not in mine]
    config = network.config
    return {
        "name": size,
        "intended_use": INTENDED_USE,
        "licence": LICENCE,
        "credits": list(CREDITS),
        "network": {
            "design": config.design,
            "upsampling": config.upsampling,
            "stem": config.stem,
            "widths": list(config.widths),
            "inputs": config.inputs,
            "outputs": config.outputs,
            "parameters": parameters(network),
            "macs": macs(network, WINDOW),
        },
        "input": {
            "modalities": list(MODALITIES),
            "orientation": "LPS",
            "spacing_mm": 1.0,
            "window": list(WINDOW),
            "clip": CLIP,
            "neighbours": 0,
        },
        "output": {"regions": list(REGIONS), "thresholds": dict.fromkeys(REGIONS, 0.5)},
        "training": settings | {"cases": cases},
        "held_out": {"cases": [{"case": c.case, "digest": c.digest} for c in held_out]},
        "files": {},
    }


def write_model(folder: Path, network: Network, card: dict[str, Any]) -> None:
    """Write the checkpoint, then the card that binds it."""
    file = folder / f"{card['name']}.safetensors"
    save_tensors(file, dict(network.state_dict()))
    entry = {"precision": "float32", "bytes": file.stat().st_size, "sha256": sha256(file)}
    write_json(folder / CARD, card | {"files": {file.name: entry}})
