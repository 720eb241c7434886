"""How good the files are: run by the engine of the board, against the expert and the network.

Whether a file is good enough to be a product.

Where those that judge have masks, its mean Dice may fall only a little below that of the fp32 file;
without masks, it must mostly agree with the network that it was made of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convert.artifacts import LIMIT
from convert.calibration import Subject
from convert.verify.layer_errors import Layer
from device.engine import Engine
from device.segment import segment
from glioslice.cli import track
from glioslice.errors import GliosliceError
from glioslice.metrics import region_dice
from glioslice.model_card import Card
from glioslice.preprocessing import brain_of
from training.network import Network, TorchNetwork


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


MIN_AGREEMENT = 0.995
"""A tumour is some 6 % of a brain: at this agreement one in twelve of its voxels may differ."""

CULPRITS = 3
"""Layers that a refusal names."""


@dataclass(frozen=True)
class Limits:
    """What a product must keep: mean Dice below fp32, agreement with its network, bytes."""

    max_drop: float = 0.005
    min_agreement: float = MIN_AGREEMENT
    max_bytes: int = LIMIT

    def __post_init__(self) -> None:
        """Raise GliosliceError if a limit is none."""
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
class Measure:
    """How a file stands: `by` "drop" its mean Dice below fp32, or "agreement" with its network."""

    by: str
    value: float
    limit: float

    @property
    def held(self) -> bool:
        """Whether the file may be a product."""
        return self.value <= self.limit if self.by == "drop" else self.value >= self.limit

    def __str__(self) -> str:
        """Return the figure and its limit in words."""
        if self.by == "drop":
            side = "below" if self.value >= 0 else "above"
            allowed = f"at most {self.limit:g} below is allowed"
            return f"mean Dice {abs(self.value):.4f} {side} fp32, {allowed}"
        return (
            f"agreement with the network {self.value:.4%}, at least {self.limit:.4g} is asked for"
        )


def measure(verdict: Verdict, fp32: Verdict, limits: Limits) -> Measure:
    """Return how a file stands beside the fp32 file of the same network."""
    if verdict.dice is None or fp32.dice is None:
        return Measure("agreement", verdict.agreement, limits.min_agreement)
    return Measure("drop", round(fp32.dice["mean"] - verdict.dice["mean"], 4), limits.max_drop)


def refusal(name: str, tried: Sequence[Measure], layers: Sequence[Layer]) -> str:
    """Return why an int8 file is no product, with the layers where most of the error enters."""
    best = min(tried, key=lambda of: of.value if of.by == "drop" else -of.value)
    said = f"{name}: {best}, on the best of {len(tried)} rungs"
    worst = sorted(layers, key=lambda layer: -layer.share)[:CULPRITS]
    named = ", ".join(f"{layer.name} ({layer.op}, {layer.share:.0%})" for layer in worst)
    return f"{said}; most of its error enters at {named}" if named else said
