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
"""Slices with a lower byte are marked; `benchmarks/confidence.py` chose it in cross-validation."""


def summarize_confidence(masks: MaskVolume, volumetry: Volumetry) -> dict[str, Any]:
    """Return `mean`, the mean byte weighted by mask voxels; None where it is unknown.

    `unsure` lists the Z of the slices whose byte is lower than `below`.
    """
    by_index = {index: int(masks.quality[index]) for index in list(volumetry.slices)}
    known = {index: byte for index, byte in by_index.items() if byte != UNKNOWN}
    voxels = {index: volumetry.slices[index].voxels[0] for index in known}
    total = sum(voxels.values())
    weighted = sum(voxels[index] * byte for index, byte in known.items())
    unsure = sorted(index for index, byte in known.items() if byte < UNSURE_BELOW)
    return {
        "mean": round(weighted / total, 1) if total else None,
        "below": UNSURE_BELOW,
        "unsure": [masks.crop.z[0] + index for index in unsure],
    }


def unsure_summary(quality: Mapping[str, Any]) -> str | None:
    """Return a line that names the unsure slices; None if there are none."""
    unsure = quality["unsure"]
    if not unsure:
        return None
    slices = "slice" if len(unsure) == 1 else "slices"
    return f"the network is unsure of {len(unsure)} {slices}: Z {format_ranges(unsure)}"


def format_ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as ranges: `3 to 5, 9`."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        follows = spans and number == spans[-1][1] + 1
        spans[-1 if follows else len(spans) :] = [(spans[-1][0] if follows else number, number)]
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in spans)
