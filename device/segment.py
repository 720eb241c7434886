"""Volume to masks without a wire: the one inference path of the kit.

    python -m device.segment                       # the phantom, by the shipped compact model
    python -m device.segment --input CASE --out DIR

Evaluation, conversion's judgement and benchmarks call `segment`, so what is judged is what runs.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from device.engine import Engine
from glioslice import cli
from glioslice.cases import Case, find_case, phantom_case, read_case
from glioslice.cli import track
from glioslice.labels import to_labels, to_scheme
from glioslice.metrics import region_dice, volumes_ml
from glioslice.model_card import Card, default_model
from glioslice.montage import write_montage
from glioslice.nifti import write_mask
from glioslice.preprocessing import Crop, brain_of, crop_of, cut, paste, z_scores
from glioslice.summary import dice_line, summary_lines


class Network(Protocol):
    """Whatever turns a slice into regions: the engine, or torch under evaluation."""

    @property
    def card(self) -> Card:
        """The card that describes its input."""

    def run(self, z_scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Return WT, TC, ET (3, X, Y) of a slice (X, Y, 4) of z-scores."""


@dataclass(frozen=True)
class Segmentation:
    """Labels (X, Y, Z) of the kit, in LPS, and the milliseconds that each slice took."""

    labels: NDArray[np.uint8]
    milliseconds: tuple[float, ...]


def slices_of(images: NDArray[np.float32], card: Card) -> tuple[NDArray[np.float32], Crop]:
    """Return images (4, X, Y, Z) as z-scores (Z', X, Y, 4) of the slices with brain, and where.

    Raises GliosliceError if there is no brain or it does not fit the window.
    """
    brain = brain_of(images)
    crop = crop_of(brain, card.window)
    return cut(z_scores(images, brain, card.clip), crop), crop


def segment(images: NDArray[np.float32], network: Network, progress: str = "") -> Segmentation:
    """Segment images (4, X, Y, Z) slice by slice; `progress` names the work on stderr.

    Raises what `slices_of` raises.
    """
    slices, crop = slices_of(images, network.card)
    masks = np.empty(slices.shape[:3], np.uint8)
    milliseconds = []
    for z in track(range(len(slices)), progress) if progress else range(len(slices)):
        began = time.perf_counter()
        masks[z] = to_labels(network.run(slices[z]))
        milliseconds.append((time.perf_counter() - began) * 1000)
    return Segmentation(paste(masks, crop), tuple(milliseconds))


def main() -> None:
    """Segment a case or the phantom, and leave mask, montage and summary."""
    parser = cli.parser(
        "Segment one case on this machine, without a line.",
        "python -m device.segment --input CASE --out build/case",
    )
    parser.add_argument("--input", type=Path, metavar="CASE", help="default: the phantom")
    parser.add_argument("--model", type=Path, help="a .tflite file with its card; default: compact")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="default: demo/")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--delegate", help="an accelerator's library, such as libedgetpu.so.1")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    model = arguments.model or default_model()
    case = read_case(find_case(arguments.input)) if arguments.input else phantom_case(0)
    engine = Engine(model, threads=arguments.threads, delegate=arguments.delegate)
    result = segment(case.images, engine, progress=f"segmenting {case.name}")
    write_outputs(arguments.out, case, result)
    print(f"{model.name} ({model.stat().st_size:,} bytes) on {engine.runtime}")
    if case.labels is not None:
        scores = region_dice(result.labels, case.labels)
        print(dice_line(scores))
    for line in summary_lines(
        len(result.milliseconds), result.milliseconds, volumes_ml(result.labels)
    ):
        print(line)


def write_outputs(folder: Path, case: Case, result: Segmentation) -> None:
    """Write mask and montage into `folder`, each whole or not at all."""
    mask, montage = folder / "mask.nii.gz", folder / "montage.png"
    write_mask(mask, to_scheme(result.labels, case.scheme), case.space)
    write_montage(montage, case.images, result.labels)
    print(f"mask: {mask} ({case.scheme.edition} labels)\nmontage: {montage}")


if __name__ == "__main__":
    main()
