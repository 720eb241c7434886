"""Choose how a volume is cleaned, and measure it on patients who had no part in the choice.

    python benchmarks/cleanup.py --data ../shared/data/brats    # benchmarks/folds/cleanup.csv
    python benchmarks/cleanup.py                                # docs/accuracy.md from what is kept

How it is chosen: `benchmarks.choosing`.
"""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from benchmarks.choosing import Choice, around
from device.engine import Engine
from device.segment import segment
from glioslice.cases import Case
from glioslice.cleanup import Rules, cleaned

GRID = tuple(
    Rules(*one)
    for one in product((False, True), (0.0, 0.1), (0.0, 0.1, 0.3, 0.5), (0.0, 0.05, 0.1, 0.2))
)


def labelled(case: Case, engine: Engine) -> Iterator[tuple[Rules, NDArray[np.uint8]]]:
    """Yield the labels of a case, cleaned by each set of rules."""
    labels = segment(case.images, engine).labels
    box = around(labels)
    for rules in GRID:
        clean = np.zeros_like(labels)
        clean[box] = cleaned(labels[box], rules)
        yield rules, clean


def said(rules: Rules) -> str:
    """Return rules in words."""
    words = ["smooth"] if rules.smooth else []
    words += [f"WT {rules.share:.0%} of the largest"] if rules.share else []
    words += [f"TC {rules.core_ml:g} mL"] if rules.core_ml else []
    words += [f"ET {rules.enhancing_ml:g} mL"] if rules.enhancing_ml else []
    return ", ".join(words) or "none"


CLEANUP = Choice("cleanup", GRID, Rules(), said, "rules", "cleaned", labelled)


if __name__ == "__main__":
    CLEANUP.main("Choose how a volume is cleaned, and measure it.")
