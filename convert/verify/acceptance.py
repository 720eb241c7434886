"""Evaluate files and decide whether they are good enough to be products.

Files are run by the engine of the board. Where the evaluation cases have masks, a product's mean
Dice may fall only a little below that of the fp32 file. Where they have none, its labels must agree
with those of the network that it was made of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.artifacts import SIZE_LIMIT
from convert.calibration import ConversionCase
from convert.verify.layer_errors import Layer
from device.engine import Engine
from device.segment import segment
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.metrics import region_dice
from glioslice.model_card import Card
from glioslice.preprocessing import brain_mask
from training.network import Network, TorchNetwork

MAX_NAMED = 3
"""Layers that a rejection names."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of a file.

    `dice` is that of WT, TC, ET (or of each output) vs. ground truth and their mean, None without
    masks. `agreement` is the share of voxels within the brain (or of pixels) whose label is that of
    the network itself, and `agreement_with_shipped` the share whose label is the shipped file's.
    """

    dice: dict[str, float] | None
    agreement: float
    agreement_with_shipped: float | None = None


@dataclass(frozen=True)
class Limits:
    """What a product must keep: mean Dice below fp32, agreement with its network, bytes.

    A tumour is about 6 % of a brain: at the default agreement of 0.995 one in twelve of its voxels
    may differ.
    """

    max_drop: float = 0.005
    min_agreement: float = 0.995
    max_bytes: int = SIZE_LIMIT

    def __post_init__(self) -> None:
        """Raise GliosliceError if a limit is out of its range."""
        if not 0 <= self.max_drop <= 1:
            raise GliosliceError(f"--max-drop {self.max_drop:g}: expected a Dice from 0 to 1")
        if not 0 <= self.min_agreement <= 1:
            raise GliosliceError(
                f"--min-agreement {self.min_agreement:g}: expected a share from 0 to 1"
            )
        if self.max_bytes < 1:
            raise GliosliceError(f"--max-bytes {self.max_bytes}: expected a number above 0")


STANDARD = Limits()


@dataclass(frozen=True)
class GateResult:
    """A file's figure and its limit.

    `by` is "drop", its mean Dice below fp32, or "agreement", with its network.
    """

    by: str
    value: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether the file may be a product."""
        return self.value <= self.limit if self.by == "drop" else self.value >= self.limit

    def __str__(self) -> str:
        """Return the figure and its limit as text."""
        if self.by == "drop":
            side = "below" if self.value >= 0 else "above"
            return (
                f"mean Dice {abs(self.value):.4f} {side} fp32, at most {self.limit:g} below allowed"
            )
        return f"agreement with the network {self.value:.4%}, at least {self.limit:.4g} required"


def apply_gate(evaluation: Evaluation, fp32: Evaluation, limits: Limits) -> GateResult:
    """Return how a file compares with the fp32 file of the same network."""
    if evaluation.dice is None or fp32.dice is None:
        return GateResult("agreement", evaluation.agreement, limits.min_agreement)
    drop = round(fp32.dice["mean"] - evaluation.dice["mean"], 4)
    return GateResult("drop", drop, limits.max_drop)


def explain_rejection(name: str, attempts: Sequence[GateResult], layers: Sequence[Layer]) -> str:
    """Return why an int8 file is not a product, with the layers that cause most of the error."""
    best = min(attempts, key=lambda of: of.value if of.by == "drop" else -of.value)
    text = f"{name}: {best}, in the best of {len(attempts)} attempts"
    worst = sorted(layers, key=lambda layer: -layer.share)[:MAX_NAMED]
    named = ", ".join(f"{layer.name} ({layer.op}, {layer.share:.0%})" for layer in worst)
    return f"{text}; most of its error arises at {named}" if named else text


def evaluate_files(
    files: Mapping[str, Path],
    references: Mapping[str, Path],
    network: Network,
    card: Card,
    cases: Sequence[ConversionCase],
) -> dict[str, Evaluation]:
    """Return the scores of `files` (name to path); `references` has some of the same names.

    Torch runs `network` as it was trained, with nothing folded. Raises GliosliceError if a file is
    not listed in the card beside it or the engine refuses it.
    """
    torch_network = TorchNetwork(network, card)
    engines = {name: Engine(path) for name, path in files.items()}
    others = {name: Engine(path) for name, path in references.items() if name in files}
    scores: dict[str, list[dict[str, float]]] = {name: [] for name in files}
    with_torch = {name: _Agreement() for name in files}
    with_reference = {name: _Agreement() for name in others}
    for case in track(cases, f"evaluating {card.name}"):
        images, truth = case.load()
        brain = brain_mask(images)
        expected = segment(images, torch_network).labels[brain]
        for name, engine in engines.items():
            labels = segment(images, engine).labels
            with_torch[name].add(labels[brain], expected)
            if truth is not None:
                scores[name].append(region_dice(labels, truth))
            if name in others:
                reference = segment(images, others[name]).labels
                with_reference[name].add(labels[brain], reference[brain])
    return {
        name: Evaluation(
            dice=_mean(scores[name]),
            agreement=with_torch[name].share,
            agreement_with_shipped=with_reference[name].share if name in others else None,
        )
        for name in files
    }


@dataclass
class _Agreement:
    """Counts equal labels."""

    equal: int = 0
    total: int = 0

    def add(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
        self.equal += int(np.count_nonzero(one == other))
        self.total += one.size

    @property
    def share(self) -> float:
        return round(self.equal / self.total, 6)


def _mean(scores: list[dict[str, float]]) -> dict[str, float] | None:
    if not scores:
        return None
    return {key: round(sum(s[key] for s in scores) / len(scores), 4) for key in scores[0]}
