"""Volumes and diameters of each region, slice by slice as masks arrive."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from firmware_host.mask_volume import MaskVolume
from glioslice.labels import REGIONS, to_regions
from glioslice.wire.messages import UNKNOWN

MAX_OUTSIDE = 0.01
"""Share of a mask that may lie outside the brain: a border that is a voxel too wide has less."""


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

    `quality` is the board's confidence byte (firmware_host.confidence), empty where unknown.
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
