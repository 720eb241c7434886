"""Checkpoints: a model folder with weights and card, and the state that a run resumes from."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.files import atomic_path, sha256, write_json
from glioslice.labels import REGIONS
from glioslice.model_card import CARD, Card, read_card, read_verified_card
from glioslice.postprocessing import STANDARD_RULES
from glioslice.preprocessing import CLIP, WINDOW
from training.dataset import CaseSlices
from training.network import Network, NetworkConfig, build_network, count_macs, count_parameters

STATE = "state.safetensors"
INTENDED_USE = (
    "Research and teaching on skull-stripped, registered 1 mm MR of adult glioma (T1, T1ce, T2, "
    "FLAIR). Research software, not a medical device: not for diagnosis or treatment."
)
LICENCE = (
    "Weights: research use. They were trained on BraTS data, whose terms require non-commercial "
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
SINGLE_SLICE_CREDIT = (
    'M. Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13:4128, '
    "2022."
)
"""Two patients of the single slices are theirs."""


THRESHOLDS = {"WT": 0.4, "TC": 0.4, "ET": 0.5}
"""Probability from which a pixel belongs to a region; conversion folds them into the last bias.

Networks are unsure at the edges of WT and TC rather than wrong, so a little less than 0.5 gains:
docs/accuracy-appendix.md.
"""


def load_model(folder: Path) -> tuple[Network, Card]:
    """Return the float network of a model folder, in evaluation mode, and its card.

    Raises GliosliceError if card or checkpoint are missing or do not match, or if weights have the
    wrong shape or are not finite.
    """
    card = read_card(folder)
    return load_checkpoint(folder / f"{card.name}.safetensors")


def load_checkpoint(file: Path) -> tuple[Network, Card]:
    """Return the network of a checkpoint file and the card beside it; raises like `load_model`."""
    card = read_verified_card(file)
    entry = card.content["network"]
    config = NetworkConfig(
        tuple(entry["widths"]),
        int(entry["inputs"]),
        int(entry["outputs"]),
        str(entry.get("design", NetworkConfig.design)),
        str(entry.get("upsampling", NetworkConfig.upsampling)),
        int(entry.get("stem", NetworkConfig.stem)),
    )
    network = build_network(config).eval()
    weights = _load(file)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise GliosliceError(
            f"{file}: not the weights of a network of widths {config.widths}: {first}"
        ) from None
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise GliosliceError(f"{file}: {name} holds NaN or infinite weights; train it again")
    return network, card


def save_tensors(
    file: Path, tensors: dict[str, Tensor], note: dict[str, Any] | None = None
) -> None:
    """Write tensors, and `note` as JSON in the metadata; the file is replaced atomically."""
    metadata = None if note is None else {"json": json.dumps(note)}
    with atomic_path(file) as temporary:
        save_file(
            {k: t.detach().cpu().contiguous() for k, t in tensors.items()}, temporary, metadata
        )


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the note of the training state in `folder`.

    Raises GliosliceError if the state is missing or damaged.
    """
    file = folder / STATE
    if not file.is_file():
        raise GliosliceError(f"{folder}: nothing to resume, {STATE} is missing; omit --resume")
    tensors = _load(file)
    with safe_open(file, "pt") as opened:
        note = json.loads(opened.metadata()["json"])
    return tensors, note


def _load(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise GliosliceError(f"{file}: damaged or not a safetensors file ({error})") from None


def make_card(
    network: Network,
    size: str,
    settings: dict[str, Any],
    held_out: list[CaseSlices],
    inherited: list[dict[str, str]],
) -> dict[str, Any]:
    """Return the card of a run, without its files.

    `inherited` are the cases that the fine-tuned model or the teachers were trained on: the new
    network counts them as seen too.
    """
    own = {case["digest"] for case in settings["cases"]}
    others = {case["digest"]: case for case in inherited if case["digest"] not in own}
    cases = settings["cases"] + list(others.values())
    config = network.config
    return {
        "name": size,
        "intended_use": INTENDED_USE,
        "licence": LICENCE,
        "credits": [*CREDITS, *([SINGLE_SLICE_CREDIT] if settings.get("single_slices") else [])],
        "network": {
            "design": config.design,
            "upsampling": config.upsampling,
            "stem": config.stem,
            "widths": list(config.widths),
            "inputs": config.inputs,
            "outputs": config.outputs,
            "parameters": count_parameters(network),
            "macs": count_macs(network, WINDOW),
        },
        "input": {
            "modalities": list(MODALITIES),
            "orientation": "LPS",
            "spacing_mm": 1.0,
            "window": list(WINDOW),
            "clip": CLIP,
            "neighbours": 0,
        },
        "output": {
            "regions": list(REGIONS),
            "thresholds": dict(THRESHOLDS),
            "mirroring": False,
            "postprocessing": asdict(STANDARD_RULES),
        },
        "training": settings | {"cases": cases},
        "held_out": {"cases": [{"case": c.case, "digest": c.digest} for c in held_out]},
        "files": {},
    }


def write_model(folder: Path, network: Network, card: dict[str, Any]) -> None:
    """Write the checkpoint, then the card with its SHA-256."""
    file = folder / f"{card['name']}.safetensors"
    save_tensors(file, dict(network.state_dict()))
    entry = {"precision": "float32", "bytes": file.stat().st_size, "sha256": sha256(file)}
    write_json(folder / CARD, card | {"files": {file.name: entry}})
