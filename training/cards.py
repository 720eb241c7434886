"""The card of a trained network, and the model folder that it describes."""

from pathlib import Path
from typing import Any

from glioslice.card import CARD
from glioslice.cases import MODALITIES
from glioslice.files import sha256, write_json
from glioslice.labels import REGIONS
from glioslice.slices import CLIP, WINDOW
from training.checkpoint import save_tensors
from training.dataset import Slices
from training.network import Network, macs, parameters

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
