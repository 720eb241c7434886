"""The networks behind docs/accuracy.md: which are trained on what, and where each is kept.

A run is a network trained on three of four folds, in `benchmarks/folds/<run>/`: the card, the log,
the packed files, and `scores.csv` of the patients of the fourth.
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

FULL = ("--size", "benchmarks.rivals:FULL")
FIRST_FORM = ("--size", "benchmarks.rivals:NEAREST", "--set", "tumour=0.75", "--set", "centred=1")

VARIANTS: dict[str, tuple[str, ...]] = {
    RECIPE: (),
    "seed-1": ("--seed", "1"),
    "seed-2": ("--seed", "2"),
    "full-resolution": FULL,
    "first-form": FIRST_FORM,
    "first-form-faint": (*FIRST_FORM, "--set", "fade=0.5"),
    "transplanted": ("--set", "transplant=0.4"),
    "restyled": ("--set", "restyle=0.5"),
    "six-levels": ("--size", "benchmarks.rivals:SIX"),
    "taught": tuple(
        word
        for seed in ("", "-seed-1", "-seed-2")
        for word in ("--teacher", f"build/folds/compact-{{fold}}{seed}")
    ),
}
"""What each adds to the words of `training/train.py`."""

ONCE = ("seed-1", "seed-2", "full-resolution", "first-form")
"""What is shipped, by other seeds, and what was `compact` once: every file is kept and scored."""

ON_ALL = (*ONCE, "six-levels", "taught")
"""Trained on every fold."""

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
        """The folder's name, such as compact-1 or compact-1-no-cubes."""
        plain = self.size.partition(":")[2].lower() or self.size
        ending = "" if self.variant == RECIPE else f"-{self.variant}"
        return f"{plain}-{self.fold}{ending}"

    @property
    def folder(self) -> Path:
        """Where its files are kept."""
        return KEPT / self.name

    @property
    def precisions(self) -> tuple[str, ...]:
        """Of which files are kept and scored: int8 alone where that is all that is compared."""
        whole = self.size not in RIVALS and self.variant in (RECIPE, *ONCE)
        return PRECISIONS if whole else PRECISIONS[:1]

    @property
    def words(self) -> tuple[str, ...]:
        """What it adds to the words of `training/train.py`."""
        words = ("--size", self.size, *RIVALS.get(self.size, ()), *VARIANTS[self.variant])
        return tuple(word.format(fold=self.fold) for word in words)


PLAN = (
    *(Run(size, fold) for size in ("compact", "nano") for fold in FOLDS),
    *(
        Run("compact", fold, variant)
        for variant in VARIANTS
        for fold in (FOLDS if variant in ON_ALL else FOLDS[:2])
        if variant != RECIPE
    ),
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
