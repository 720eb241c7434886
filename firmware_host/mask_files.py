"""Mask files in any label scheme: encode a mask, and recognize the scheme of a given file.

brats2018   one volume of 1 core, 2 edema, 4 enhancing
brats2023   1, 2, 3
msd         2, 1, 3
regions     four dimensions, the last WT, TC, ET, each 0 or 1
"""

from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from glioslice.dataset_layouts import FILE_NAME, SUFFIXES
from glioslice.errors import GliosliceError
from glioslice.labels import (
    BRATS_2018,
    BRATS_2023,
    DECATHLON,
    REGIONS,
    LabelScheme,
    check_nesting,
    from_scheme,
    to_labels,
    to_regions,
    to_scheme,
)
from glioslice.nifti import Space, read_nifti

SCHEMES: Mapping[str, LabelScheme] = {
    "brats2018": BRATS_2018,
    "brats2023": BRATS_2023,
    "msd": DECATHLON,
}
NESTED = "regions"

LISTED = 10
"""Most values that an error lists: an image given as a mask holds thousands."""


def encode_labels(labels: NDArray[np.uint8], scheme: str) -> NDArray[np.uint8]:
    """Return the voxels of a mask file in `scheme` from glioslice's labels (X, Y, Z)."""
    if scheme == NESTED:
        return np.moveaxis(to_regions(labels), 0, -1).astype(np.uint8)
    return to_scheme(labels, SCHEMES[scheme])


def scheme_name(scheme: LabelScheme) -> str:
    """Return the name of a scheme."""
    return next(name for name, known in SCHEMES.items() if known is scheme)


def read_mask(path: Path, scheme: str | None = None) -> tuple[NDArray[np.uint8], Space, str]:
    """Return a mask in glioslice's labels (X, Y, Z), LPS, its space, and its label scheme.

    Without `scheme`, the file's name, its values and their nesting decide. Raises GliosliceError,
    naming the file, if it is not a mask, or fits no scheme or more than one.
    """
    nested = scheme == NESTED or (scheme is None and _has_region_axis(path))
    voxels, space = read_nifti(path, len(REGIONS) if nested else 1)
    found = {float(value) for value in np.unique(voxels)} - {0.0}
    if nested:
        if not found <= {1.0}:
            raise GliosliceError(f"{path}: regions are 0 or 1, but it holds {_listed(found)}")
        return to_labels(voxels > 0), space, NESTED
    allowed = {float(value) for known in SCHEMES.values() for value in known.values}
    if not found <= allowed:
        raise GliosliceError(f"{path}: holds {_listed(found)}, which are labels of no known scheme")
    mask = voxels[0].astype(np.uint8)
    name = scheme or _scheme_from_name(path) or ("brats2018" if 4.0 in found else None)
    if name:
        values = SCHEMES[name].values
        if not found <= set(values):
            raise GliosliceError(
                f"{path}: holds the labels {_listed(found)}, but {name} has "
                f"{_listed(set(values))}; name its scheme with --labels"
            )
        return from_scheme(mask, SCHEMES[name]), space, name
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
    if own.shape != other.shape:
        raise GliosliceError(f"{path}: shape {own.shape}, but {other_path} has {other.shape}")
    if not np.allclose(own.affine, other.affine, atol=1e-2):
        raise GliosliceError(
            f"{path}: its affine differs from that of {other_path}; resample one of them"
        )


def _scheme_from_name(path: Path) -> str | None:
    if match := FILE_NAME.fullmatch(path.name):
        return scheme_name(SUFFIXES[match["suffix"].lower()][1])
    return "msd" if path.absolute().parent.name == "labelsTr" else None


def _has_region_axis(path: Path) -> bool:
    try:
        shape = nib.load(path).shape  # type: ignore[attr-defined]
    except Exception:  # read_nifti raises the error that names the cause
        return False
    return len(shape) == 4 and shape[3] == len(REGIONS)


def _listed(values: set[float] | set[int]) -> str:
    listed = " ".join(f"{value:g}" for value in sorted(values)[:LISTED])
    return f"{listed} and {len(values) - LISTED} more" if len(values) > LISTED else listed
