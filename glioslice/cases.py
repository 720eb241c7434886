"""A patient's case, read from any data set into one orientation and one label scheme."""

import hashlib
import logging
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glioslice.dataset_layouts import (
    CHANNEL_NAME,
    MODALITIES,
    CaseFiles,
    brats_case,
    channel_groups,
    drop_modalities,
    file_case,
    in_order,
    nifti_files,
    no_case,
    safe_name,
    without_ending,
)
from glioslice.errors import GliosliceError
from glioslice.labels import (
    BRATS_2018,
    BRATS_2023,
    BRATS_2024_CHILDREN,
    EDITIONS,
    SCHEMES,
    LabelScheme,
    check_nesting,
    from_scheme,
    label_values,
    list_values,
    whole_labels,
)
from glioslice.nifti import (
    NiftiFile,
    Space,
    check_axes,
    check_finite,
    open_nifti,
    read_voxels,
    same_space,
    zero_volumes,
)
from glioslice.preprocessing import Images, StoredVolumes

logger = logging.getLogger(__name__)

__all__ = [
    "MODALITIES",
    "Case",
    "CaseFiles",
    "case_digest",
    "find_case",
    "find_cases",
    "find_problems",
    "phantom_case",
    "read_case",
]

MAX_BRAIN_ML = 2500
"""Adult brains with their fluid are below 2,000 mL, heads with skull and scalp above 3,000."""

BACKGROUND_SHARE = 0.3
"""Share of a volume from which one value in all its corners is the background."""

DIGESTED = 16
"""Planes of a volume that are float32 at once while its digest is computed."""

MAX_DEPTH = 3
"""Folders below the given one in which cases are looked for: BraTS 2018 has HGG/ and LGG/."""


@dataclass(frozen=True)
class Case:
    """A case in memory.

    `volumes` are (4, X, Y, Z) in the order of MODALITIES, in LPS orientation, 0 outside the brain,
    and `images` the same as float32. `labels` (X, Y, Z) are the ground truth in the labels of
    `glioslice.labels`, or None. `scheme` and `space` are those of the files, for writing masks in
    the same form. The volumes of the modalities `missing` are 0. `warnings` report what reading had
    to assume, and `mask_problem` why the files' ground truth is not used.
    """

    name: str
    scheme: LabelScheme
    volumes: Images
    labels: NDArray[np.uint8] | None
    space: Space
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    mask_problem: str | None = None

    @cached_property
    def images(self) -> NDArray[np.float32]:
        """All voxels of the volumes (4, X, Y, Z) as float32: 143 MB for a case of BraTS."""
        return np.asarray(self.volumes)


def find_case(path: str | Path) -> CaseFiles:
    """Return the files of the case at `path`: a folder, or a 4-D image of the Decathlon.

    Raises GliosliceError if there is no case or more than one, or a modality is present twice.
    """
    path = Path(path)
    if path.is_file():
        return file_case(path)
    if not path.is_dir():
        what = "neither a folder nor a file" if path.exists() else "no such folder or file"
        raise GliosliceError(f"{path}: {what}")
    try:
        paths = _case_paths(path, MAX_DEPTH)
    except GliosliceError:
        paths = []
    if not paths:
        return brats_case(path)  # whose message says what a case is
    if len(paths) > 1:
        if (path / "imagesTr").is_dir():
            raise GliosliceError(
                f"{path}: holds {len(paths)} Decathlon cases; name one file of imagesTr as CASE"
            )
        raise GliosliceError(f"{path}: {len(paths)} cases inside; name one, such as {paths[0]}")
    return brats_case(path) if paths[0] == path else find_case(paths[0])


def find_cases(folder: str | Path) -> list[CaseFiles]:
    """Return the files of all cases in `folder`, sorted by name.

    Folders without NIfTI files are ignored. Raises GliosliceError if there is no case.
    """
    found = [find_case(path) for path in case_paths(Path(folder))]
    return sorted(found, key=lambda files: files.name)


def case_paths(folder: Path) -> list[Path]:
    """Return the path of each case in `folder`, complete or not; `folder` itself if it is a case.

    Looks into folders of folders, such as HGG/ and LGG/ of BraTS 2018. Raises GliosliceError if
    there is none.
    """
    if not folder.is_dir():
        raise GliosliceError(f"{folder}: no such folder")
    paths = _case_paths(folder, MAX_DEPTH)
    if not paths:
        raise no_case(folder, "no case found; a case is a folder with its NIfTI files")
    return paths


def case_name(source: CaseFiles | Path) -> str:
    """Return the name of a case, complete or not, without reading its volumes."""
    if isinstance(source, CaseFiles):
        return source.name
    try:
        return find_case(source).name
    except (GliosliceError, OSError):  # reading the case raises the error that names the cause
        path = Path(os.path.realpath(source))
        channel = CHANNEL_NAME.fullmatch(path.name)
        return safe_name(channel["case"] if channel else without_ending(path))


def paths_by_name(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Return each path by its case's name; raises GliosliceError if two have the same name."""
    found: dict[str, Path] = {}
    for name, path in named:
        if name in found:
            raise GliosliceError(
                f"{path}: has the name of {found[name]}, whose outputs it would overwrite; rename "
                "one"
            )
        found[name] = path
    return found


def input_paths(folder: Path, out: Path | None) -> list[Path]:
    """Return `case_paths` without the folder of the outputs, `out`, which may lie among the cases.

    Raises GliosliceError if masks in `out` would be taken for a case afterwards.
    """
    paths = case_paths(folder)
    if out is None or paths == [folder]:
        return paths
    inside = [path for path in paths if path.resolve() != out.resolve()]
    if folder.resolve() == out.resolve() or (len(inside) < len(paths) and _holds_images(out)):
        raise GliosliceError(
            f"{out}: masks in a folder of cases would be taken for one; name another folder"
        )
    if not inside:
        raise GliosliceError(f"{folder}: no case found but in {out}, the folder of the masks")
    return inside


def _holds_images(folder: Path) -> bool:
    """Return whether a folder holds images of a case, and not only masks of an earlier run."""
    try:
        find_case(folder)
    except GliosliceError:
        return False
    return True


def _case_paths(folder: Path, depth: int) -> list[Path]:
    """Return the cases in `folder`; a link to a folder above it would show each of them again."""
    try:
        decathlon = (folder / "imagesTr").is_dir()
    except OSError as error:  # no permission, which would name that folder
        error.filename = str(folder)
        raise
    if decathlon:
        return channel_groups(folder / "imagesTr") or nifti_files(folder / "imagesTr")
    if channels := channel_groups(folder):
        return channels
    if nifti_files(folder):
        return [folder]
    if not depth:
        return []
    folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    paths, above = [], folder.resolve()
    for inside in folders:
        if above.is_relative_to(inside.resolve()):
            continue
        try:
            paths += _case_paths(inside, depth - 1)
        except OSError:  # no permission: reported when it is its turn
            paths.append(inside)
    return paths


def read_case(
    source: str | Path | CaseFiles,
    missing: Collection[str] = (),
    *,
    orientation: str | None = None,
    labels: str | None = None,
) -> Case:
    """Read a case from its folder, its 4-D Decathlon image, or the files that `find_case` found.

    A ground truth that cannot be used does not stop the case: `mask_problem` says why.

    Args:
        source: the case.
        missing: modalities whose files are not read; T1 and T2 may be missing without being named.
        orientation: where the axes of files point to that do not state it, such as LPS.
        labels: the edition of the ground truth, a key of `glioslice.labels.EDITIONS`; default: what
            file names and values tell.

    Raises:
        GliosliceError: naming the file, if a file is missing or unusable (see `read_nifti`), if
            modalities differ in shape or affine, or if an image is not skull-stripped.
    """
    orientation = orientation and check_axes(orientation)
    files = source if isinstance(source, CaseFiles) else find_case(source)
    files = drop_modalities(files, missing)
    images, space, warnings = _read_images(files, orientation)
    truth, problem, scheme = None, None, files.scheme
    if files.mask is not None:
        try:
            truth, scheme = _read_mask(files, files.mask, space, orientation, labels)
        except GliosliceError as error:
            problem = str(error)
            warnings.append(f"{problem}. The mask is not used: no Dice can be computed.")
    logger.info(
        "%s: %s labels, %d x %d x %d voxels, %s ground truth",
        *(files.name, scheme.edition, *space.shape, "no" if truth is None else "with"),
    )
    written = scheme if scheme in SCHEMES else files.scheme
    lacking = in_order(set(MODALITIES) - set(files.images))
    notes = (*files.notes, *warnings)
    return Case(files.name, written, images, truth, space, lacking, notes, problem)


def phantom_case(seed: int, missing: Collection[str] = ()) -> Case:
    """Return the synthetic head of `seed`, without `missing`, as a case with its ground truth."""
    from glioslice.phantom.head import make_phantom  # its anatomy loads longer than a case needs

    phantom = make_phantom(seed)
    for modality in missing:
        phantom.images[MODALITIES.index(modality)] = 0
    x, y, z = phantom.labels.shape
    name = f"phantom-{seed}"
    space = Space.lps((x, y, z))
    return Case(name, BRATS_2023, phantom.images, phantom.labels, space, in_order(missing))


def find_problems(files: CaseFiles, missing: Collection[str] = ()) -> list[str]:
    """Return a line for each unusable image; if all are usable, what is wrong with the case."""
    problems = []
    images = {m: path for m, path in files.images.items() if m not in missing}
    for path in dict.fromkeys(images.values()):
        try:
            file = open_nifti(path, _channels(files))
            file.read_into(list(zero_volumes(file.channels, file.space, file.dtype)))
        except GliosliceError as error:
            problems.append(str(error))
    if not problems:
        try:
            read_case(files, missing)
        except GliosliceError as error:
            problems.append(str(error))
    return problems


def case_digest(case: Case) -> str:
    """Return the SHA-256 of the images, which does not depend on file names or compression."""
    digest = hashlib.sha256(repr(case.volumes.shape).encode())
    count, width = case.volumes.shape[:2]
    for index in range(count):
        for x in range(0, width, DIGESTED):
            part = case.volumes[index, x : x + DIGESTED]
            digest.update(np.ascontiguousarray(part, "<f4").data)
    return digest.hexdigest()


def _channels(files: CaseFiles) -> int:
    """Return how many modalities each file holds: all of them, or one."""
    return len(MODALITIES) if files.four_d else 1


def _read_images(
    files: CaseFiles, orientation: str | None
) -> tuple[StoredVolumes, Space, list[str]]:
    if _channels(files) > 1:
        grouped = dict.fromkeys(files.images.values(), files.order)
    else:
        grouped = {files.images[m]: (m,) for m in MODALITIES if m in files.images}
    opened = {open_nifti(path, len(group)): group for path, group in grouped.items()}
    warnings = _orientation_warnings(list(opened), orientation)
    opened = {_orient(file, orientation): group for file, group in opened.items()}
    first = next(iter(opened))
    for file in opened:
        _check_same_space(file.path, file.space, first.path, first.space)
    dtype = np.result_type(*(file.dtype for file in opened))
    narrow = dtype.itemsize <= 2
    images = zero_volumes(len(MODALITIES), first.space, dtype if narrow else np.dtype(np.float32))
    scales = dict.fromkeys(MODALITIES, np.float32(1))
    for file, group in opened.items():
        file.read_into([images[MODALITIES.index(modality)] for modality in group])
        for modality in group:
            if modality not in files.images:
                images[MODALITIES.index(modality)] = 0
                continue
            scales[modality] = file.scale
            image = images[MODALITIES.index(modality)]
            warnings += _clear_background(file, modality, image)
            check_finite(file.path, image)
            millilitres = np.count_nonzero(image) / 1000
            if millilitres > MAX_BRAIN_ML:
                raise GliosliceError(
                    f"{file.path}: {millilitres:,.0f} mL of {modality} are not 0, more "
                    "than a brain; the image is probably not skull-stripped (docs/from-scanner.md)"
                )
    return StoredVolumes(images, tuple(scales.values())), first.space, warnings


def _clear_background(file: NiftiFile, modality: str, image: NDArray[Any]) -> list[str]:
    """Set a background that is one value other than 0, or NaN, to 0; return a warning if so."""
    corners = image[tuple(slice(None, None, max(1, side - 1)) for side in image.shape)]
    value = corners.flat[0]
    if value == 0 or not np.array_equal(corners, np.full_like(corners, value), equal_nan=True):
        return []
    background = np.isnan(image) if np.isnan(value) else image == value
    share = np.count_nonzero(background) / image.size
    if not BACKGROUND_SHARE <= share < 1:
        return []
    image[background] = 0
    return [
        f"{file.path}: the background of {modality} is {value * file.scale:g}, not 0 ({share:.0%} "
        "of the volume); it is taken as 0."
    ]


def _orientation_warnings(files: list[NiftiFile], orientation: str | None) -> list[str]:
    unstated = [file for file in files if not any(file.space.forms)]
    if orientation or not unstated:
        return []
    first = unstated[0]
    more = f" and {len(unstated) - 1} more" if len(unstated) > 1 else ""
    return [
        f"{first.path}{more}: the header states no orientation (qform and sform codes are 0), so "
        f"{first.space.axes} is assumed. If the montage is mirrored or upside down, the masks are "
        "wrong: say where the axes point to with --orientation, such as LPS or RAS."
    ]


def _orient(file: NiftiFile, orientation: str | None) -> NiftiFile:
    """Return a file with the orientation that somebody gave, if the file states none."""
    if orientation is None or any(file.space.forms):
        return file
    return file.oriented(orientation)


def _check_same_space(path: Path, space: Space, first_path: Path, first: Space) -> None:
    if space.lps_shape != first.lps_shape:
        raise GliosliceError(
            f"{path}: shape {space.shape}, but {first_path} has {first.shape}; register them"
        )
    if not same_space(space, first):
        raise GliosliceError(f"{path}: its affine differs from that of {first_path}; register them")


def _read_mask(
    files: CaseFiles, path: Path, space: Space, orientation: str | None, edition: str | None
) -> tuple[NDArray[np.uint8], LabelScheme]:
    """Return the ground truth in our labels, and its edition; raises GliosliceError."""
    file = _orient(open_nifti(path), orientation)
    _check_same_space(path, file.space, next(iter(files.images.values())), space)
    try:
        mask = whole_labels(read_voxels(file)[0])
    except GliosliceError as error:
        raise GliosliceError(f"{path}: {error}") from None
    found = label_values(mask)
    scheme = EDITIONS[edition] if edition else _find_edition(files, path, found)
    if not found <= scheme.readable:
        fitting = [name for name, s in EDITIONS.items() if found <= s.readable]
        others = (
            f"{' or '.join(fitting)} would fit: say which with --edition"
            if fitting
            else "no edition has them"
        )
        by = "as named by --edition" if edition else "by the file names"
        raise GliosliceError(
            f"{path}: has the labels {list_values(found)}, but {scheme.edition} ({by}) has "
            f"{list_values(scheme.readable)}; {others}"
        )
    labels = from_scheme(mask, scheme)
    try:
        check_nesting(labels)
    except GliosliceError as error:
        raise GliosliceError(
            f"{path}: read as {scheme.edition}, labels {list_values(found)}, {error}; name the "
            "edition with --edition"
        ) from None
    return labels, scheme


def _find_edition(files: CaseFiles, path: Path, found: set[int]) -> LabelScheme:
    """Return the edition that file names and values tell.

    Raises GliosliceError if it is a child's mask, whose edition the values do not show.
    """
    if not files.edition_known:
        return BRATS_2018 if 4 in found else files.scheme
    if files.scheme is BRATS_2023 and "-ped-" in files.name.lower():
        if 4 in found:
            return BRATS_2024_CHILDREN
        raise GliosliceError(
            f"{path}: is of a child and has the labels {list_values(found)}, which mean one "
            "thing in BraTS 2023 and another in 2024; add --edition brats2023 or brats2024-children"
        )
    return files.scheme
