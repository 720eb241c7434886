"""How good the files are: run by the engine of the board, against the expert and the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.calibration import Subject
from device.engine import Engine
from device.segment import segment
from glioslice.card import Card
from glioslice.metrics import region_dice
from glioslice.progress import track
from glioslice.slices import brain_of
from training.network import Network
from training.torch_network import TorchNetwork


@dataclass(frozen=True)
class Verdict:
    """`dice` of WT, TC, ET (or each output) and their mean, over masks; None where there are none.

    `agreement` is the share of voxels within the brain (or of pixels) that bear the label that the
    network itself gives them, and `agreement_with_shipped` the share that bear the shipped file's.
    """

    dice: dict[str, float] | None
    agreement: float
    agreement_with_shipped: float | None = None


@dataclass
class _Count:
    equal: int = 0
    of: int = 0

    def add(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
        self.equal += int(np.count_nonzero(one == other))
        self.of += one.size


def judge(
    files: Mapping[str, Path],
    shipped: Mapping[str, Path],
    network: Network,
    card: Card,
    subjects: Sequence[Subject],
) -> dict[str, Verdict]:
    """Return what each of `files` (name to path) is worth; `shipped` has the same names, or some.

    Torch runs `network` as it was trained, with nothing folded. Raises GliosliceError if a file is
    not bound by the card beside it or the engine refuses it.
    """
    reference = TorchNetwork(network, card)
    engines = {name: Engine(path) for name, path in files.items()}
    others = {name: Engine(path) for name, path in shipped.items() if name in files}
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in files}
    to_torch = {name: _Count() for name in files}
    to_shipped = {name: _Count() for name in others}
    for subject in track(subjects, f"judging {card.name}"):
        images, expert = subject.load()
        brain = brain_of(images)
        wanted = segment(images, reference).labels[brain]
        for name, engine in engines.items():
            labels = segment(images, engine).labels
            to_torch[name].add(labels[brain], wanted)
            if expert is not None:
                scores[name].append(region_dice(labels, expert))
            if name in others:
                theirs = segment(images, others[name]).labels
                to_shipped[name].add(labels[brain], theirs[brain])
    return {
        name: Verdict(
            dice=_mean(scores[name]),
            agreement=round(to_torch[name].equal / to_torch[name].of, 6),
            agreement_with_shipped=(
                round(to_shipped[name].equal / to_shipped[name].of, 6) if name in others else None
            ),
        )
        for name in files
    }


def _mean(scores: list[dict[str, float]]) -> dict[str, float] | None:
    if not scores:
        return None
    return {key: round(sum(s[key] for s in scores) / len(scores), 4) for key in scores[0]}
