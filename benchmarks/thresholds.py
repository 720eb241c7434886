"""Choose the probability from which a region counts, and measure it on patients without a part.

    python benchmarks/thresholds.py --data ../shared/data/brats    # benchmarks/folds/thresholds.csv
    python benchmarks/thresholds.py                                # docs/accuracy.md from that

How it is chosen: `benchmarks.choosing`. A card's thresholds are folded into the last bias when the
network is converted (`convert.export.with_thresholds`); here they are compared with the logits of
the int8 files, which were converted at 0.5.
"""

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from benchmarks.choosing import Choice
from device.engine import Engine, Tensor
from device.segment import slices_of
from glioslice.cases import Case
from glioslice.labels import to_labels
from glioslice.slices import paste


@dataclass(frozen=True)
class Thresholds:
    """The probability from which a voxel belongs to a region."""

    wt: float = 0.5
    tc: float = 0.5
    et: float = 0.5


LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7)
GRID = tuple(Thresholds(*one) for one in product(LEVELS, repeat=3))


def labelled(case: Case, engine: Engine) -> Iterator[tuple[Thresholds, NDArray[np.uint8]]]:
    """Yield the labels of a case by each set of thresholds."""
    slices, crop = slices_of(case.images, engine.card)
    codes = np.stack([engine.invoke(engine.prepare(one)) for one in slices])
    by_level = {level: above(codes, level, engine.output) for level in LEVELS}
    for thresholds in GRID:
        regions = [by_level[level][i] for i, level in enumerate(astuple(thresholds))]
        yield thresholds, paste(to_labels(np.stack(regions)), crop)


def above(codes: NDArray[np.int8], level: float, logits: Tensor) -> NDArray[np.bool_]:
    """Return WT, TC, ET (3, ...) of int8 logits (..., 3): where the sigmoid is above `level`."""
    bound = math.floor(math.log(level / (1 - level)) / logits.scale) + logits.zero_point
    return np.moveaxis(codes > np.int16(bound), -1, 0)


def said(thresholds: Thresholds) -> str:
    """Return thresholds in words."""
    return f"WT {thresholds.wt:g}, TC {thresholds.tc:g}, ET {thresholds.et:g}"


THRESHOLDS = Choice("thresholds", GRID, Thresholds(), said, "thresholds", "with them", labelled)


if __name__ == "__main__":
    THRESHOLDS.main("Choose the probability from which a region counts, and measure it.")
