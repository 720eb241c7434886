"""How confident the board is in its masks, and which slices a person should look at.

The confidence byte comes from the device (`device.confidence`): how far the logits along a mask's
border are from the threshold, 0 to 254. docs/confidence.md compares it with Dice.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from firmware_host.mask_volume import MaskVolume
from firmware_host.volumetry import Volumetry
from glioslice.wire.messages import UNKNOWN

UNSURE_BELOW = 146
"""Slices with a lower byte are doubtful; `benchmarks/confidence.py` measured the limit."""

MOST_MARKED = 5
"""Slices that are marked at most: of good cases too, half of the slices are doubtful."""


def summarize_confidence(masks: MaskVolume, volumetry: Volumetry) -> dict[str, Any]:
    """Return `mean`, the mean byte weighted by mask voxels; None where it is unknown.

    `unsure` lists the numbers of the slices to look at, the worst first (see `worst_slices`);
    `below` is the byte under which a slice is doubtful.
    """
    by_index = {index: int(masks.quality[index]) for index in list(volumetry.slices)}
    known = {index: byte for index, byte in by_index.items() if byte != UNKNOWN}
    voxels = {index: volumetry.slices[index].voxels[0] for index in by_index}
    total = sum(voxels[index] for index in known)
    weighted = sum(voxels[index] * byte for index, byte in known.items())
    return {
        "mean": round(weighted / total, 1) if total else None,
        "below": UNSURE_BELOW,
        "unsure": [masks.number(index) for index in worst_slices(known, voxels)],
    }


def worst_slices(bytes_: Mapping[int, int], pixels: Mapping[int, int]) -> list[int]:
    """Return the doubtful slices within or beside tumour, at most MOST_MARKED, the worst first.

    Both mappings go by slice: the confidence byte, and the tumour's pixels. The worst have most
    doubt times width: (255 - byte) times the root of the pixels in the slice or one
    beside it, whichever has more. By the byte alone the smallest specks would come first.
    """
    doubt = {}
    for index, byte in bytes_.items():
        most = max(pixels.get(index + step, 0) for step in (-1, 0, 1))
        if byte < UNSURE_BELOW and most:
            doubt[index] = (UNKNOWN - byte) * most**0.5
    return sorted(doubt, key=lambda index: (-doubt[index], index))[:MOST_MARKED]


def unsure_summary(quality: Mapping[str, Any]) -> str | None:
    """Return a sentence that names the slices to look at; None if there are none."""
    unsure = quality["unsure"]
    if not unsure:
        return None
    numbers = ", ".join(map(str, unsure))
    if len(unsure) == 1:
        return f"The network is least sure of slice {numbers}."
    return f"The network is least sure of the slices {numbers}, the worst first."


def format_numbers(numbers: Sequence[int]) -> str:
    """Return slices as people read them: `slice 3`, `slices 3, 9`."""
    return f"slice{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
