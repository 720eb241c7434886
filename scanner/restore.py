"""Bring a case's mask back into the space of each source, as NIfTI and as DICOM SEG.

    glioslice restore mask.nii.gz CASE --out result                        # NIfTI
    glioslice restore mask.nii.gz CASE --out result --dicom SERIES_FOLDER  # DICOM SEG too
    glioslice restore mask.nii.gz CASE --out result --seg-form labelmap

CASE was made by `glioslice prepare`. Without --dicom, DICOM SEG needs its link to the study
(`prepare --keep-link`). A DICOM SEG holds the patient's name, like every image of the study.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray

from glioslice import cli, startup
from glioslice.dataset_layouts import MODALITY_TITLES
from glioslice.errors import GliosliceError
from glioslice.files import NOTICE, atomic_path, check_folder
from glioslice.labels import SCHEMES, from_scheme, to_labels, to_regions, to_scheme
from glioslice.nifti import SCANNER, Space, read_nifti, same_space, write_mask
from scanner import check_installed

if TYPE_CHECKING:
    from scanner.case_files import StudyLink
    from scanner.pipeline import SourceSpace
    from scanner.series import Series
    from scanner.volumes import Grid

SHOWN = ("t1ce", "flair")
"""The sequences on whose frames a mask comes back: those that show core and edema."""

SCHEME = SCHEMES[0]
"""The labels of a restored NIfTI mask, which are those of the case's file names."""

MIN_CORRELATION = 0.9
"""Least correlation of a series with the case's image in the brain: almost 1 if the image was made
of it; at most 0.5 for two patients of the training data, whose heads are aligned."""

EVERY = 2
"""Of this many voxels along each axis one is compared."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and restore the mask."""
    parser = cli.parser(
        "Bring the mask of a prepared case back into the space of T1ce and FLAIR.",
        "glioslice restore mask.nii.gz CASE --out result",
    )
    parser.add_argument("mask", type=Path, metavar="MASK", help="a mask of the case, NIfTI")
    parser.add_argument("case", type=Path, metavar="CASE", help="a case made by glioslice prepare")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the output folder")
    parser.add_argument(
        "--dicom", type=Path, metavar="SERIES_FOLDER", help="the study, for DICOM SEG"
    )
    parser.add_argument(
        "--study", type=cli.positive, metavar="N", help="which study of a folder of several, from 1"
    )
    for option in ("--t1ce", "--flair"):
        parser.add_argument(option, metavar="SERIES", help="number of this sequence's series")
    parser.add_argument(
        "--seg-form", choices=("classic", "labelmap"), default="classic",
        help="form of the DICOM SEG; default: classic, which every archive takes",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="overwrite existing files")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    cli.run(run_command, parser.parse_args(argv))


def run_command(arguments: argparse.Namespace) -> None:
    """Restore the mask that the options describe; raises GliosliceError."""
    check_installed()
    with startup.importing():
        from scanner.case_files import StudyLink, read_link

    link = read_link(arguments.case)
    if arguments.dicom:
        link = StudyLink(arguments.dicom, arguments.study or 0, {})
    given = {m: str(getattr(arguments, m)) for m in SHOWN if getattr(arguments, m)}
    if link:
        study = arguments.study or link.study
        link = StudyLink(link.folder, study, {**link.series, **given})
    elif given or arguments.study:
        raise GliosliceError("--study, --t1ce and --flair are for the study that --dicom names")
    files = restore_case(
        read_labels(arguments.mask, arguments.case), arguments.case, arguments.out, link,
        form=arguments.seg_form, force=arguments.force,
    )  # fmt: skip
    if arguments.json:
        print(json.dumps({"files": [str(path) for path in files], "notice": NOTICE}))
        return
    for path in files:
        print(f"mask: {path}")
    if link is None:
        print("no DICOM SEG: name the study with --dicom, or prepare the case with --keep-link")
    print(NOTICE)


def read_labels(path: Path, case: Path) -> NDArray[np.uint8]:
    """Return a mask of the case in glioslice's labels (X, Y, Z), LPS; raises GliosliceError."""
    from scanner.case_files import read_spaces

    grid, _ = read_spaces(case)
    voxels, space = read_nifti(path)
    own = Space.from_affine(grid.shape, grid.affine, (SCANNER, SCANNER))
    if not same_space(space, own):
        raise GliosliceError(f"{path}: does not lie on the voxels of {case}; is it its mask?")
    found = {float(value) for value in np.unique(voxels)} - {0.0}
    for scheme in SCHEMES[:2]:  # a case that `prepare` made is none of the Decathlon
        if found <= set(scheme.values):
            return from_scheme(voxels[0].astype(np.uint8), scheme)
    raise GliosliceError(
        f"{path}: is not a mask of a prepared case; its labels are 1, 2, 4 or 1, 2, 3"
    )


def restore_case(
    labels: NDArray[np.uint8],
    case: Path,
    out: Path,
    link: "StudyLink | None",
    *,
    form: str = "classic",
    model: str = "",
    force: bool = False,
) -> list[Path]:
    """Write the mask in the space of T1ce and FLAIR, and return the files.

    With a link to the study each is also written as DICOM SEG. Raises GliosliceError before
    anything is written if the mask is not of this case, a file exists, or the study is another.
    """
    from scanner.case_files import read_spaces
    from scanner.dicom_seg import write_segmentation
    from scanner.series import read_instances, series_grid

    grid, spaces = read_spaces(case)
    shown = [modality for modality in SHOWN if modality in spaces]
    masks, objects = output_files(out, shown, dicom=link is not None, force=force)
    files = [*masks.values(), *objects.values()]
    study = {}
    for modality, series in (find_sources(link, spaces) if link else {}).items():
        study[modality] = read_instances(series, MODALITY_TITLES[modality])
        check_source(modality, series, spaces[modality], case)
    with _all_or_none(out, files) as temporary:
        for modality in shown:
            space = spaces[modality]
            restored = restore_labels(labels, grid, space.grid, space.matrix)
            place = Space.from_affine(space.grid.shape, space.grid.affine, (SCANNER, SCANNER))
            mask = place.to_lps(to_scheme(restored, SCHEME))
            write_mask(temporary[masks[modality]], mask, place)
            if modality in study:
                frames = series_grid(study[modality])
                write_segmentation(
                    temporary[objects[modality]], study[modality],
                    reorder(restored, space.grid, frames), form, model,
                )  # fmt: skip
    return files


def output_files(
    out: Path, shown: Sequence[str], *, dicom: bool, force: bool
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the NIfTI and the DICOM file of each sequence, the latter with `dicom` alone.

    Raises GliosliceError if one exists, unless `force`, or if `out` cannot hold them.
    """
    masks = {m: out / f"mask-on-{m}.nii.gz" for m in shown}
    objects = {m: out / f"mask-on-{m}.dcm" for m in shown if dicom}
    for path in (*masks.values(), *objects.values()):
        if path.is_dir():
            raise GliosliceError(f"{path}: is a folder; name another output folder")
        if path.exists() and not force:
            raise GliosliceError(
                f"{path}: already exists; name another output folder, or add --force"
            )
    check_folder(out)
    return masks, objects


@contextmanager
def _all_or_none(out: Path, files: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Yield a temporary path for each file; if the block fails, none of them is left in `out`."""
    is_new = not out.exists()
    try:
        with ExitStack() as stack:
            yield {path: stack.enter_context(atomic_path(path)) for path in files}
    except BaseException:
        if is_new and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
        raise


def restore_labels(
    labels: NDArray[np.uint8], grid: "Grid", target: "Grid", matrix: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return labels of `grid` on `target`; `matrix` maps points of `grid` to those of `target`."""
    from scanner.volumes import region_on_grid

    back = np.linalg.inv(matrix)
    regions = [region_on_grid(region, grid, target, back) for region in to_regions(labels)]
    return to_labels(np.stack(regions))


def reorder(labels: NDArray[np.uint8], source: "Grid", frames: "Grid") -> NDArray[np.uint8]:
    """Return labels in the order of DICOM's columns, rows and slices: the same voxels, flipped.

    A second resampling would round voxels at the surface differently from the NIfTI mask.
    """
    between = np.linalg.inv(frames.affine) @ source.affine
    return np.asarray(apply_orientation(labels, io_orientation(between)), np.uint8)


def find_sources(link: "StudyLink", spaces: "Mapping[str, SourceSpace]") -> "dict[str, Series]":
    """Return the series of T1ce and FLAIR in the study; raises GliosliceError."""
    from scanner.series import choose_series, find_series

    found = find_series(link.folder, link.study or None)
    wanted = {m: number for m, number in link.series.items() if m in SHOWN}
    named = wanted.values()  # whatever the tags say; but two T1 are no question here
    relevant = [s for s in found if s.role in (None, *SHOWN) or s.number in named]
    chosen = choose_series(relevant, wanted, link.folder)
    missing = [m for m in SHOWN if m in spaces and m not in chosen]
    if missing:
        raise GliosliceError(
            f"{link.folder}: no series for {', '.join(missing)}; name it by its number"
        )
    return {m: chosen[m] for m in SHOWN if m in spaces}


def check_source(modality: str, series: "Series", space: "SourceSpace", case: Path) -> None:
    """Raise GliosliceError unless the case's image of a modality was made of a series.

    It has to lie where the source lay, and to show the same brain: two patients may be scanned at
    the same place.
    """
    from scanner.series import convert_series
    from scanner.volumes import SAME_PLACE, Grid, corner_distance, resample

    title = MODALITY_TITLES[modality]
    volume = convert_series(series, title)
    problem = ""
    distance = corner_distance(volume.grid, space.grid)
    if np.isinf(distance):
        problem = f"it has {_size(volume.grid)} voxels, the source had {_size(space.grid)}"
    elif distance > SAME_PLACE:
        problem = f"it lies {distance:.1f} mm off"
    else:
        image, place = read_nifti(_image_of(case, modality))
        few = image[0][::EVERY, ::EVERY, ::EVERY]
        x, y, z = few.shape
        grid = Grid((x, y, z), place.lps_affine @ np.diag([EVERY, EVERY, EVERY, 1.0]))
        inside = few > 0
        pair = few[inside], resample(volume, grid, space.matrix)[inside]
        with np.errstate(invalid="ignore", divide="ignore"):  # an image may be constant
            is_same = inside.any() and np.corrcoef(*pair)[0, 1] >= MIN_CORRELATION
        problem = "" if is_same else "it shows another brain"
    if problem:
        raise GliosliceError(
            f"the series of {title} is not the one that the case was made of: {problem}; name "
            f"another with --{modality}, or --study"
        )


def _size(grid: "Grid") -> str:
    return " x ".join(map(str, grid.shape))


def _image_of(case: Path, modality: str) -> Path:
    """Return the image of a modality, whatever the case's folder is called now."""
    found = sorted(case.glob(f"*_{modality}.nii.gz"))
    if len(found) != 1:
        raise GliosliceError(
            f"{case}: has {len(found)} images of {MODALITY_TITLES[modality]}, with which the "
            "series is compared; prepare the case again"
        )
    return found[0]


if __name__ == "__main__":
    main()
