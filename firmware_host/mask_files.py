"""Mask files in any label scheme: encode a mask, and recognize the scheme of a given file.

brats2018   one volume of 1 core, 2 edema, 4 enhancing
brats2023   1, 2, 3
msd         2, 1, 3
regions     four dimensions, the last WT, TC, ET, each 0 or 1
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glioslice.dataset_layouts import recognise
from glioslice.errors import GliosliceError
from glioslice.labels import (
    BRATS_2018,
    BRATS_2023,
    DECATHLON,
    REGIONS,
    LabelScheme,
    check_nesting,
    from_scheme,
    label_values,
    list_values,
    to_labels,
    to_regions,
    to_scheme,
    whole_labels,
)
from glioslice.nifti import Space, open_nifti, read_nifti, same_space

NAMED_SCHEMES: Mapping[str, LabelScheme] = {
    "brats2018": BRATS_2018,
    "brats2023": BRATS_2023,
    "msd": DECATHLON,
}
NESTED = "regions"

MASK_NAME = re.compile(r"(.+)[-_](?:mask|seg)(?:\.partial)?\.nii(?:\.gz)?", re.IGNORECASE)

MOST_LABELS = 10
"""More values than any edition has: an image given as a mask holds hundreds."""


def encode_labels(labels: NDArray[np.uint8], scheme: str) -> NDArray[np.uint8]:
    """Return the voxels of a mask file in `scheme` from glioslice's labels (X, Y, Z)."""
    if scheme == NESTED:
        return np.moveaxis(to_regions(labels), 0, -1).astype(np.uint8)
    return to_scheme(labels, NAMED_SCHEMES[scheme])


def scheme_name(scheme: LabelScheme) -> str:
    """Return the name of a scheme."""
    return next(name for name, known in NAMED_SCHEMES.items() if known is scheme)


def read_mask(path: Path, scheme: str | None = None) -> tuple[NDArray[np.uint8], Space, str]:
    """Return a mask in glioslice's labels (X, Y, Z), LPS, its space, and its label scheme.

    Without `scheme`, the file's name, its values and their nesting decide. Raises GliosliceError,
    naming the file, if it is not a mask, or fits no scheme or more than one.
    """
    nested = scheme == NESTED or (scheme is None and _has_region_axis(path))
    voxels, space = read_nifti(path, len(REGIONS) if nested else 1)
    try:
        voxels = whole_labels(voxels)
    except GliosliceError as error:
        raise GliosliceError(f"{path}: {error}") from None
    found = label_values(voxels)
    if nested:
        if not found <= {1}:
            raise GliosliceError(f"{path}: regions are 0 or 1, but it holds {list_values(found)}")
        return to_labels(voxels > 0), space, NESTED
    allowed = {value for known in NAMED_SCHEMES.values() for value in known.values}
    if not found <= allowed:
        kind = "labels of no known scheme"
        if len(found) > MOST_LABELS:
            kind = "no labels: it is an image, not a mask"
        raise GliosliceError(f"{path}: holds {list_values(found)}, which are {kind}")
    mask = voxels[0]
    name = scheme or _scheme_from_name(path) or ("brats2018" if 4 in found else None)
    if name:
        values = NAMED_SCHEMES[name].values
        if not found <= set(values):
            raise GliosliceError(
                f"{path}: holds the labels {list_values(found)}, but {name} has "
                f"{list_values(values)}; name its scheme with --labels"
            )
        return from_scheme(mask, NAMED_SCHEMES[name]), space, name
    labels = from_scheme(mask, BRATS_2023)
    try:
        check_nesting(labels)
    except GliosliceError as error:
        raise GliosliceError(
            f"{path}: read as brats2023, {error}; name its scheme with --labels"
        ) from None
    return labels, space, "brats2023"


def check_same_space(path: Path, own: Space, other_path: Path, other: Space) -> None:
    """Raise GliosliceError unless two files' voxels lie in the same places."""
    if own.lps_shape != other.lps_shape:
        raise GliosliceError(f"{path}: shape {own.shape}, but {other_path} has {other.shape}")
    if not same_space(own, other):
        raise GliosliceError(
            f"{path}: its affine differs from that of {other_path}; resample one of them"
        )


def mask_case(mask: Path) -> str | None:
    """Return the case that a mask is named after, None if its name does not say it."""
    match = MASK_NAME.fullmatch(mask.name)
    return match[1] if match else None


def _scheme_from_name(path: Path) -> str | None:
    recognised = recognise(path)
    if recognised and recognised[2]:
        return scheme_name(recognised[2])
    return "msd" if path.absolute().parent.name == "labelsTr" else None


def _has_region_axis(path: Path) -> bool:
    try:
        open_nifti(path, len(REGIONS))
    except GliosliceError:  # read_nifti raises the error that names the cause
        return False
    return True
