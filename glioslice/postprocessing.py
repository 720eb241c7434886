"""What a whole volume tells that no slice does: specks are no tumour, and slices are alike.

The network sees one slice at a time. Once all masks are there, a voxel can follow its neighbours
above and below, and parts too small to be what they are called can become what surrounds them.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from glioslice.labels import to_labels, to_regions

Region = NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """How much is cleaned; the numbers as they stand here clean nothing.

    Parts are what hangs together in 26 directions. A part of the whole tumour below `share` of the
    largest one vanishes, one of the tumour core below `core_ml` becomes edema, one of the enhancing
    tumour below `enhancing_ml` becomes core. With `smooth`, a voxel is first what two of three
    slices say: its own, the one above, the one below.
    """

    smooth: bool = False
    share: float = 0.0
    core_ml: float = 0.0
    enhancing_ml: float = 0.0


def cleaned(labels: NDArray[np.uint8], rules: Rules) -> NDArray[np.uint8]:
    """Return labels (X, Y, Z) of the kit, voxels of 1 mm, cleaned by `rules`. Needs scipy."""
    regions = to_regions(labels)
    if rules.smooth:
        regions = smoothed(regions)
    wt, tc, et = regions
    wt = large_parts(wt, share=rules.share)
    tc = large_parts(tc & wt, voxels=1000 * rules.core_ml)
    et = large_parts(et & tc, voxels=1000 * rules.enhancing_ml)
    return to_labels(np.stack([wt, tc, et]))


def smoothed(regions: Region) -> Region:
    """Return regions (3, X, Y, Z), each voxel as two of three slices have it; the ends stay."""
    below, own, above = regions[..., :-2], regions[..., 1:-1], regions[..., 2:]
    result = regions.copy()
    result[..., 1:-1] = (below & own) | (own & above) | (below & above)
    return result


def large_parts(region: Region, voxels: float = 0, share: float = 0) -> Region:
    """Return the parts of a region (X, Y, Z) of at least `voxels`, and `share` of the largest."""
    from scipy.ndimage import label

    if not voxels and not share:
        return region
    parts, _ = label(region, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0  # what is no part
    kept = sizes >= max(voxels, share * sizes.max(), 1)
    return cast(Region, kept[parts])
