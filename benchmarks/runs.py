"""The networks behind docs/accuracy.md: which are trained on what, and where each is kept.

A run is a network trained on three of four folds, in `benchmarks/folds/<run>/`: the card, the log,
the packed files, and `scores.csv` of the patients of the fourth. Of other seeds and rivals only
what the page needs is committed: the scores, and the rivals' cards.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from glioslice.errors import GliosliceError

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "benchmarks" / "folds"
FOLDS = (1, 2, 3, 4)
RECIPE = "recipe"
PRECISIONS = ("int8", "fp16", "fp32")

VARIANTS: dict[str, tuple[str, ...]] = {
    RECIPE: (),
    "seed-1": ("--seed", "1"),
    "seed-2": ("--seed", "2"),
}
"""What each adds to the words of `training/train.py`."""

RIVALS: dict[str, tuple[str, ...]] = {
    "benchmarks.rivals:MESHNET": ("--epochs", "11"),
    "benchmarks.rivals:PLAIN_UNET": ("--epochs", "12"),
}
"""Networks to compare with, on fold 1: twice the wall time of compact, and four times as much.

A step takes 6.1 and 12.5 times compact's on one core in bfloat16.
"""


@dataclass(frozen=True)
class Patient:
    """A row of `folds.csv`: `grade` is high, low or unknown."""

    case: str
    grade: str
    fold: int


@dataclass(frozen=True)
class Run:
    """One network: its size (or rival), the fold left out, and how it departs from the recipe."""

    size: str
    fold: int
    variant: str = RECIPE

    @property
    def name(self) -> str:
        """The folder's name, such as compact-1 or compact-1-seed-1."""
        plain = self.size.partition(":")[2].lower() or self.size
        ending = "" if self.variant == RECIPE else f"-{self.variant}"
        return f"{plain}-{self.fold}{ending}"

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return KEPT / self.name

    @property
    def precisions(self) -> tuple[str, ...]:
        """Of which files are scored: int8 alone where that is all that is compared."""
        whole = self.size not in RIVALS and self.variant == RECIPE
        return PRECISIONS if whole else PRECISIONS[:1]

    @property
    def packed(self) -> bool:
        """Whether all its files are here; of other seeds and rivals they are not committed."""
        return all(any(self.folder.glob(f"*-{one}.tflite")) for one in self.precisions)

    @property
    def words(self) -> tuple[str, ...]:
        """What it adds to the words of `training/train.py`."""
        return ("--size", self.size, *RIVALS.get(self.size, ()), *VARIANTS[self.variant])


PLAN = (
    *(Run(size, fold) for size in ("compact", "nano") for fold in FOLDS),
    *(Run("compact", fold, variant) for variant in VARIANTS if variant != RECIPE for fold in FOLDS),
    *(Run(rival, FOLDS[0]) for rival in RIVALS),
)
"""All runs, in the order in which they are worth their time."""


@cache
def patients() -> tuple[Patient, ...]:
    """Return the committed list of folds."""
    with (KEPT / "folds.csv").open(newline="") as file:
        return tuple(Patient(r["case"], r["grade"], int(r["fold"])) for r in csv.DictReader(file))


def left_out(fold: int) -> tuple[str, ...]:
    """Return the cases of a fold."""
    return tuple(p.case for p in patients() if p.fold == fold)


def named(name: str) -> Run:
    """Return the run of PLAN that is called so; raises GliosliceError if there is none."""
    for run in PLAN:
        if run.name == name:
            return run
    raise GliosliceError(f"no run '{name}'; there are {', '.join(r.name for r in PLAN)}")
