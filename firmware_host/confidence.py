"""How sure the board is of its masks, and which slices the desk marks for eyes.

The byte is the device's (`device.confidence`): how far the logits along the masks' borders are from
the threshold, 0 to 254. docs/confidence.md holds it against Dice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from firmware_host.mask_volume import Run
from firmware_host.volumetry import Tally
from glioslice.wire.messages import UNKNOWN

DOUBTFUL = 146
"""A slice whose byte is lower is marked: `benchmarks/confidence.py` chose it on the four folds."""


def quality_of(run: Run, tally: Tally) -> dict[str, Any]:
    """Return `mean`, the mean byte weighted by the masks' voxels; None where no mask says it.

    `unsure` are the slices, counted as Z in the volume, whose byte is under `below`.
    """
    bytes_by_index = {index: int(run.quality[index]) for index in list(tally.rows)}
    known = {index: byte for index, byte in bytes_by_index.items() if byte != UNKNOWN}
    voxels = sum(tally.rows[index].voxels[0] for index in known)
    total = sum(tally.rows[index].voxels[0] * byte for index, byte in known.items())
    unsure = sorted(index for index, byte in known.items() if byte < DOUBTFUL)
    return {
        "mean": round(total / voxels, 1) if voxels else None,
        "below": DOUBTFUL,
        "unsure": [run.crop.z[0] + index for index in unsure],
    }


def unsure_line(quality: Mapping[str, Any]) -> str | None:
    """Return which slices are marked, for people; None where none is."""
    marked = quality["unsure"]
    if not marked:
        return None
    slices = "slice" if len(marked) == 1 else "slices"
    return f"the network is unsure of {len(marked)} {slices}: Z {ranges(marked)}"


def ranges(numbers: Sequence[int]) -> str:
    """Return rising numbers in a few words: 3 to 5, 9."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        follows = spans and number == spans[-1][1] + 1
        spans[-1 if follows else len(spans) :] = [(spans[-1][0] if follows else number, number)]
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans)
