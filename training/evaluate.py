"""Score a model file on cases with expert masks.

    python training/evaluate.py --model models/compact/compact-int8.tflite --data DIR

A case that the model was trained on, told by the digest of its images, is shown as seen and left
out of the mean, which is null if none is left. `--json` holds: model, mean {WT, TC, ET, mean},
cases [{case, seen, dice {WT, TC, ET, mean}}]; dice is null where there is no expert mask.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device.engine import Engine
from device.segment import Network, segment
from glioslice import cli
from glioslice.cases import Case, digest, find_cases, read_case
from glioslice.errors import GliosliceError
from glioslice.files import write_json
from glioslice.labels import to_scheme
from glioslice.metrics import region_dice
from glioslice.model_card import Card
from glioslice.nifti import write_mask

Scores = dict[str, float]


def main() -> None:
    """Read the command line and evaluate."""
    parser = cli.parser(
        "Score a model file on cases with expert masks.",
        "python training/evaluate.py --model models/compact/compact-int8.tflite --data DIR",
    )
    parser.add_argument("--model", type=Path, required=True, help=".safetensors or .tflite")
    parser.add_argument("--data", type=Path, required=True, help="a case, or a folder of cases")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="write each mask as NIfTI here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scores here")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Score as the command line says."""
    network = load_network(arguments.model)
    rows = []
    print(f"{'case':30} {'WT':>6} {'TC':>6} {'ET':>6} {'mean':>6}")
    for files in find_cases(arguments.data):
        case = read_case(files)
        labels = segment(case.images, network).labels
        if arguments.masks:
            mask = to_scheme(labels, case.scheme)
            write_mask(arguments.masks / f"{case.name}.nii.gz", mask, case.space)
        rows.append(row := score(case, labels, network.card))
        print(line(row), flush=True)
    mean = mean_of(rows)
    if mean is None:
        print("no mean: none of the cases has a mask and was not seen in training")
    else:
        print(line({"case": "mean of unseen cases", "seen": False, "dice": mean}))
    if arguments.json:
        write_json(arguments.json, {"model": arguments.model.name, "cases": rows, "mean": mean})


def load_network(model: Path) -> Network:
    """Return what runs the file.

    Raises GliosliceError if it is neither a checkpoint nor a TFLite file, or is refused.
    """
    if model.suffix == ".tflite":
        return Engine(model)
    if model.suffix == ".safetensors":
        try:  # here alone, so that a TFLite file can be scored where torch is not installed
            from training.checkpoint import load_weights
            from training.network import TorchNetwork
        except ImportError:
            raise GliosliceError(
                f"{model}: a checkpoint needs torch; run make test first"
            ) from None
        return TorchNetwork(*load_weights(model))
    raise GliosliceError(f"{model}: a .safetensors or .tflite file was expected")


def score(case: Case, labels: NDArray[np.uint8], card: Card) -> dict[str, Any]:
    """Return the case's row; `dice` is None where there is no expert mask."""
    dice = None if case.labels is None else region_dice(labels, case.labels)
    return {"case": case.name, "seen": digest(case) in card.trained_on, "dice": dice}


def mean_of(rows: list[dict[str, Any]]) -> Scores | None:
    """Return the mean over the scored cases that were not seen, None where there is none."""
    scored = [row["dice"] for row in rows if row["dice"] is not None and not row["seen"]]
    if not scored:
        return None
    return {name: sum(d[name] for d in scored) / len(scored) for name in scored[0]}


def line(row: dict[str, Any]) -> str:
    """Return a row of the table for people."""
    if row["dice"] is None:
        return f"{row['case']:30} {'not scored: no expert mask':27}"
    numbers = " ".join(f"{value:6.3f}" for value in row["dice"].values())
    return f"{row['case']:30} {numbers}{'  seen in training' if row['seen'] else ''}"


if __name__ == "__main__":
    main()
