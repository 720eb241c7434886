"""Post-processing of a whole volume of masks: smoothing across slices, removal of small components.

The network sees one slice at a time. Once all masks of a volume are known, a voxel can be compared
with its neighbours above and below, and components too small to be plausible can be removed.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from glioslice.labels import to_labels, to_regions

Region = NDArray[np.bool_]


@dataclass(frozen=True)
class PostprocessingRules:
    """The limits of post-processing; the defaults change nothing.

    With `smooth`, each voxel first becomes the majority of three slices: its own and its two
    neighbours. Components are 26-connected. A component of the whole tumour smaller than `share` of
    the largest one becomes background, one of the tumour core below `core_ml` becomes edema, one of
    the enhancing tumour below `enhancing_ml` becomes core.
    """

    smooth: bool = False
    share: float = 0.0
    core_ml: float = 0.0
    enhancing_ml: float = 0.0


def postprocess(labels: NDArray[np.uint8], rules: PostprocessingRules) -> NDArray[np.uint8]:
    """Apply `rules` to labels (X, Y, Z) with voxels of 1 mm. Needs scipy."""
    regions = to_regions(labels)
    if rules.smooth:
        regions = smooth_across_slices(regions)
    wt, tc, et = regions
    wt = keep_large_components(wt, share=rules.share)
    tc = keep_large_components(tc & wt, voxels=1000 * rules.core_ml)
    et = keep_large_components(et & tc, voxels=1000 * rules.enhancing_ml)
    return to_labels(np.stack([wt, tc, et]))


def smooth_across_slices(regions: Region) -> Region:
    """Set each voxel of (3, X, Y, Z) to the majority of three slices; end slices are unchanged."""
    below, own, above = regions[..., :-2], regions[..., 1:-1], regions[..., 2:]
    result = regions.copy()
    result[..., 1:-1] = (below & own) | (own & above) | (below & above)
    return result


def keep_large_components(region: Region, voxels: float = 0, share: float = 0) -> Region:
    """Keep the components of (X, Y, Z) of at least `voxels`, and `share` of the largest."""
    from scipy.ndimage import label

    if not voxels and not share:
        return region
    components, _ = label(region, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())
    sizes[0] = 0  # the background
    kept = sizes >= max(voxels, share * sizes.max(), 1)
    return cast(Region, kept[components])
