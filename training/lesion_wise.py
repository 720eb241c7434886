"""Lesion-wise scores by the official package of the BraTS challenges, `brats-evaluation`.

Each connected part of a region is a lesion. The package pairs those of prediction and ground truth
and reports mean Dice and HD95 of the pairs, and how many lesions were found, missed or invented.
Its label numbers are ours. It is an extra of its own (AGPL-3.0), and nothing else here needs it.
"""

import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.errors import GliosliceError
from glioslice.labels import REGIONS

Labels = NDArray[np.uint8]
RegionScores = dict[str, dict[str, float | None]]
"""For WT, TC and ET: dice and hd95 (mm), None where there is no pair; found, missed, invented; and
volume_dice, the package's own Dice of the whole region, None where both are empty."""

FIELDS = {
    "dice": "sq_dsc", "hd95": "sq_hd95", "found": "tp", "missed": "fn", "invented": "fp",
    "volume_dice": "global_bin_dsc",
}  # fmt: skip
"""What panoptica calls them."""


def lesion_wise_scorer() -> Callable[[Labels, Labels], RegionScores]:
    """Return a function that scores predicted labels (X, Y, Z) against true ones, at 1 mm.

    Raises GliosliceError if the package is not installed.
    """
    try:
        with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
            import brats_evaluation
            from panoptica import Panoptica_Evaluator
            from panoptica.utils.citation_reminder import disable_citation_reminder

            disable_citation_reminder()  # docs/accuracy.md cites it
            config = str(brats_evaluation.config_path("gli"))
            evaluator: Any = Panoptica_Evaluator.load_from_config(config)
    except ImportError as error:
        raise GliosliceError(
            f"--lesion-wise needs the package brats-evaluation ({error}): pip install "
            "'glioslice[brats]'"
        ) from None

    def score(labels: Labels, truth: Labels) -> RegionScores:
        with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
            results = evaluator.evaluate(labels, truth)
            of = {region: results[region.lower()].to_dict(True) for region in REGIONS}
        return {
            region: {name: _number(of[region].get(key)) for name, key in FIELDS.items()}
            for region in REGIONS
        }

    return score


def _number(value: Any) -> float | None:
    """Return a finite number; nan and inf, which JSON lacks, mean that there is no pair."""
    return float(value) if value is not None and isfinite(value) else None


def format_lesion_wise(scores: RegionScores) -> str:
    """Return the scores of a case as one line for each region."""
    return "\n".join(
        f"  {region} lesion-wise: Dice {_text(of['dice'], 3)}, HD95 {_text(of['hd95'], 1)} mm; "
        f"{of['found']:.0f} found, {of['missed']:.0f} missed, {of['invented']:.0f} invented"
        for region, of in scores.items()
    )


def _text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
