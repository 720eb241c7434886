"""Volumes and diameters of each region, slice by slice as masks arrive, and the slices to look at.

How confident the board is in a mask is a byte (`device.confidence`): how far the logits along the
mask's border are from the threshold, 0 to 254. docs/confidence.md compares it with Dice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from firmware_host.mask_volume import MaskVolume
from glioslice.labels import REGIONS, to_regions
from glioslice.wire.messages import UNKNOWN

MAX_OUTSIDE = 0.01
"""Share of a mask that may lie outside the brain: a border that is a voxel too wide has less."""

UNSURE_BELOW = 146
"""Slices with a lower byte are doubtful; `benchmarks/confidence.py` measured the limit."""

MOST_MARKED = 5
"""Slices that are marked at most: of good cases too, half of the slices are doubtful."""


@dataclass(frozen=True)
class SliceMeasures:
    """One slice: voxels of 1 mm and largest diameters in mm of WT, TC, ET."""

    voxels: tuple[int, ...]
    diameters_mm: tuple[float, ...]


class Volumetry:
    """The measures of all slices so far, by slice index, and their totals."""

    def __init__(self) -> None:
        self.slices: dict[int, SliceMeasures] = {}
        self._measured: dict[int, float] = {}

    def update(self, masks: MaskVolume) -> "Volumetry":
        """Measure the masks that are new since the last call; return itself."""
        times = dict(masks.milliseconds)
        for index in self.slices.keys() - times.keys():  # the board started from the beginning
            del self.slices[index]
        for index, time in times.items():
            if index not in self.slices or self._measured.get(index) is not time:
                self._measured[index] = time
                self.add(index, masks.mask(index))
        return self

    def add(self, index: int, labels: NDArray[np.uint8]) -> None:
        """Measure the labels (X, Y) of slice `index`."""
        regions = to_regions(labels)
        voxels = tuple(int(region.sum()) for region in regions)
        diameters = tuple(diameter_mm(region) for region in regions)
        self.slices[index] = SliceMeasures(voxels, diameters)

    def volumes_ml(self) -> dict[str, float]:
        """Return the volume of WT, TC, ET in millilitres."""
        sums = [sum(one.voxels[place] for one in self.slices.values()) for place in range(3)]
        return {region: total / 1000 for region, total in zip(REGIONS, sums, strict=True)}

    def diameters_mm(self) -> dict[str, float]:
        """Return the maximum axial diameter of WT, TC, ET in mm, over all slices."""
        measured = self.slices.values()
        return {
            region: round(max((one.diameters_mm[place] for one in measured), default=0.0), 1)
            for place, region in enumerate(REGIONS)
        }


def diameter_mm(region: NDArray[np.bool_]) -> float:
    """Return the largest diameter of a region (X, Y) in one slice, in mm; 0 if it is empty.

    It is the largest distance between two pixel centres of one connected component, plus one
    pixel (1 mm). Components are 8-connected, so a distant speck does not lengthen a lesion.
    """
    components, _ = label(region, np.ones((3, 3)))
    boxes = find_objects(components)
    return max(
        (_component_diameter(components[box] == n) for n, box in enumerate(boxes, 1)), default=0.0
    )


def _component_diameter(component: NDArray[np.bool_]) -> float:
    """Return the diameter in mm of one component, which has a pixel in each row of its array."""
    rows = np.arange(len(component))
    first = component.argmax(axis=1)
    last = component.shape[1] - 1 - component[:, ::-1].argmax(axis=1)
    ends = np.stack([np.tile(rows, 2), np.concatenate([first, last])], axis=1)
    distances = ends[:, None] - ends[None]
    return float(np.sqrt((distances**2).sum(axis=2).max())) + 1.0


def outside_brain_warning(labels: NDArray[np.uint8], brain: NDArray[np.bool_]) -> str | None:
    """Return a warning if a mask (X, Y, Z) leaves the brain, None if it does not."""
    voxels, outside = np.count_nonzero(labels), np.count_nonzero((labels != 0) > brain)
    if outside <= MAX_OUTSIDE * voxels:
        return None
    return (
        f"{outside / 1000:.1f} of the mask's {voxels / 1000:.1f} mL lie outside the brain, where "
        "all images are 0. Check that mask and images belong together."
    )


def slices_csv(masks: MaskVolume, volumetry: Volumetry) -> str:
    """Return a CSV row for each slice; without numbers where no mask was received.

    `quality` is the board's confidence byte, empty where unknown.
    `slice` counts the slices of the volume from 1 at the feet.
    """
    names = [f"{r}_{what}" for what in ("ml", "mm") for r in REGIONS]
    lines = [",".join(("slice", "state", *names, "device_ms", "quality"))]
    for index in range(masks.slice_count):
        measures = volumetry.slices.get(index)
        state = "failed" if index in masks.failed else "mask" if measures else "missing"
        cells = [""] * (len(names) + 2)
        if measures:
            cells = [f"{n / 1000:.3f}" for n in measures.voxels]
            cells += [f"{mm:.1f}" for mm in measures.diameters_mm]
            cells.append(f"{masks.milliseconds[index]:.3f}")
            cells.append("" if masks.quality[index] == UNKNOWN else str(masks.quality[index]))
        lines.append(",".join((str(masks.number(index)), state, *cells)))
    return "\n".join(lines) + "\n"


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
