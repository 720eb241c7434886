"""What the masks of a run hold, slice by slice: voxels and diameters of each region."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label

from firmware_host.mask_volume import Run
from glioslice.labels import REGIONS, to_regions
from glioslice.wire.messages import UNKNOWN


@dataclass(frozen=True)
class Row:
    """One slice: voxels of 1 mm and largest diameters in mm of WT, TC, ET."""

    voxels: tuple[int, ...]
    diameters_mm: tuple[float, ...]


class Tally:
    """The rows of the slices so far, by their index, and what they come to."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self._times: dict[int, float] = {}

    def catch_up(self, run: Run) -> "Tally":
        """Take in the masks of a run that are not yet here; return itself."""
        times = dict(run.times)
        for index in self.rows.keys() - times.keys():  # the board has begun again
            del self.rows[index]
        for index, time in times.items():
            if index not in self.rows or self._times.get(index) is not time:
                self._times[index] = time
                self.add(index, run.mask(index))
        return self

    def add(self, index: int, labels: NDArray[np.uint8]) -> None:
        """Take in the kit's labels (X, Y) of slice `index`."""
        regions = to_regions(labels)
        voxels = tuple(int(region.sum()) for region in regions)
        self.rows[index] = Row(voxels, tuple(diameter_mm(region) for region in regions))

    def volumes_ml(self) -> dict[str, float]:
        """Return the volume of WT, TC, ET in millilitres."""
        sums = [sum(row.voxels[place] for row in self.rows.values()) for place in range(3)]
        return {region: total / 1000 for region, total in zip(REGIONS, sums, strict=True)}

    def diameters_mm(self) -> dict[str, float]:
        """Return the largest axial diameter of WT, TC, ET in mm: that of the slice with most."""
        return {
            region: round(max((r.diameters_mm[place] for r in self.rows.values()), default=0.0), 1)
            for place, region in enumerate(REGIONS)
        }


def diameter_mm(region: NDArray[np.bool_]) -> float:
    """Return the largest diameter of a region (X, Y) of one slice in mm, 0 for an empty one.

    From the centre of one pixel to that of the farthest one of the same part, plus the side of a
    pixel, 1 mm. Pixels that touch, also at a corner, are of one part: a speck elsewhere in the
    slice makes no lesion longer.
    """
    parts, _ = label(region, np.ones((3, 3)))
    boxes = find_objects(parts)
    return max((extent(parts[box] == n) for n, box in enumerate(boxes, 1)), default=0.0)


def extent(part: NDArray[np.bool_]) -> float:
    """Return the diameter in mm of one part, which reaches into every line of its array."""
    lines = np.arange(len(part))
    first, last = part.argmax(axis=1), part.shape[1] - 1 - part[:, ::-1].argmax(axis=1)
    ends = np.stack([np.tile(lines, 2), np.concatenate([first, last])], axis=1)
    apart = ends[:, None] - ends[None]
    return float(np.sqrt((apart**2).sum(axis=2).max())) + 1.0


def csv_of(run: Run, tally: Tally) -> str:
    """Return a line for each slice of the run; without numbers where no mask arrived.

    `quality` is the board's byte (firmware_host.confidence), empty where it does not know. `z`
    counts from the lowest slice of the volume, 0 up, towards the head.
    """
    names = [f"{r}_{what}" for what in ("ml", "mm") for r in REGIONS]
    lines = [",".join(("z", "state", *names, "device_ms", "quality"))]
    for index in range(run.slices):
        row = tally.rows.get(index)
        state = "failed" if index in run.failed else "mask" if row else "missing"
        cells = [""] * (len(names) + 2)
        if row:
            cells = [f"{n / 1000:.3f}" for n in row.voxels]
            cells += [f"{mm:.1f}" for mm in row.diameters_mm] + [f"{run.times[index]:.3f}"]
            cells.append("" if run.quality[index] == UNKNOWN else str(run.quality[index]))
        lines.append(",".join((str(run.crop.z[0] + index), state, *cells)))
    return "\n".join(lines) + "\n"
