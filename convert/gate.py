"""Whether a file is good enough to be a product.

Where those that judge have masks, its mean Dice may fall only a little below that of the fp32 file;
without masks, it must mostly agree with the network that it was made of.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from convert.judging import Verdict
from convert.layers import Layer
from convert.products import LIMIT
from glioslice.errors import GliosliceError

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
