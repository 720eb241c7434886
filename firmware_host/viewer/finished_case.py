"""Show a finished mask in the browser.

    glioslice view CASE-mask.nii.gz --case CASE [--report CASE-report.json]
    python firmware_host/stream.py --open CASE-mask.nii.gz --input CASE

Without the case the masks are shown without images.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_host import interrupts
from firmware_host.mask_files import check_same_space, mask_case, read_mask
from firmware_host.options import SCHEME_NAMES
from firmware_host.progress import Reporter
from firmware_host.viewer.page import open_page
from firmware_host.viewer.server import Scene
from firmware_host.volumetry import Volumetry, outside_brain_warning
from glioslice import cli
from glioslice.case_options import add_case_options, add_missing_option, chosen_source
from glioslice.cases import Case, CaseFiles, phantom_case, read_case
from glioslice.cli import configure_malloc
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.metrics import region_dice, volumes_ml
from glioslice.nifti import Space
from glioslice.preprocessing import Crop, brain_mask, extract_slices, find_crop
from glioslice.sanity_checks import case_warnings

PHANTOM_NAME = re.compile(r"phantom-(\d{1,4})")

VOLUME_TOLERANCE = 0.0015
"""mL, a voxel: reports have whole voxels."""


@dataclass(frozen=True)
class FinishedCase:
    """A finished case: labels (X, Y, Z), their crop, the case if known, and the JSON report."""

    labels: NDArray[np.uint8]
    crop: Crop
    case: Case | None
    name: str
    report: dict[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and show the page."""
    parser = cli.parser(
        "Show a finished mask in the browser, until Ctrl-C.",
        "glioslice view CASE-mask.nii.gz --case CASE",
    )
    parser.add_argument("mask", type=Path, metavar="MASK", help="a mask as .nii.gz or .nii")
    parser.add_argument(
        "--case", "--input", type=Path, metavar="CASE", help="the case, for its images"
    )
    parser.add_argument(
        "--report", type=Path, action="append", default=[], metavar="FILE",
        help="the JSON report of the run, for its numbers",
    )  # fmt: skip
    parser.add_argument(
        "--labels",
        choices=SCHEME_NAMES,
        help="label scheme of MASK; default: by its name and values",
    )
    add_missing_option(parser)
    add_case_options(parser)
    parser.add_argument(
        "--http-port",
        type=cli.http_port,
        default=0,
        metavar="PORT",
        help="port of the page; default: any",
    )
    with interrupts.handled():
        configure_malloc()
        cli.run(
            lambda given: show(given.mask, given.case, given, given.http_port),
            parser.parse_args(argv),
        )


def show(mask: Path, case: Path | None, arguments: argparse.Namespace, port: int = 0) -> None:
    """Serve the page of a mask at HTTP port `port` (0: any) until Ctrl-C; raises GliosliceError."""
    source = chosen_source(case, arguments)
    found = read_finished(
        mask, source, arguments.report, arguments.labels, arguments.missing,
        arguments.orientation, arguments.edition,
    )  # fmt: skip
    slices, volumetry = extract_slices(found.labels, found.crop), Volumetry()
    case_read = found.case
    scene = Scene(found.crop)
    if case_read is not None:
        scene = Scene(found.crop, case_read.images, case_read.missing, case_read.labels)
    details = {
        "name": found.name,
        "mode": "finished case",
        "port": "",
        "model": found.report.get("model"),
        "warnings": page_warnings(found),
    }
    with open_page(port, Reporter(), "finished") as page:
        assert page is not None
        page.start_case(scene, details, dict)
        for index, labels in enumerate(slices):
            volumetry.add(index, labels)
            page.add(index, None, labels)
        counts = {"slices": len(slices), "masks": len(slices)}
        sizes = {"volumes_ml": volumetry.volumes_ml(), "diameters_mm": volumetry.diameters_mm()}
        shown: dict[str, Any] = {"warnings": details["warnings"]}
        if case_read is not None and case_read.labels is not None:
            shown["dice"] = region_dice(found.labels, case_read.labels)
        page.set_numbers(lambda: {**counts, **found.report, **sizes, **shown})


def read_finished(
    mask: Path,
    case: CaseFiles | Path | None,
    reports: Sequence[Path],
    scheme: str | None,
    missing: Collection[str] = (),
    orientation: str | None = None,
    edition: str | None = None,
) -> FinishedCase:
    """Return the finished case in these files.

    If the report is of the phantom, which is in no file, the phantom is made. What was missing in
    the run of the report, or is in `missing`, is not read. Raises GliosliceError if mask, case and
    report do not belong together, or a file is not valid.
    """
    path, report = read_report(reports)
    case_place = case if isinstance(case, Path) else None
    labels, space, _ = read_mask(mask, scheme or report.get("labels"))
    if path:
        check_report(path, report, mask, labels, space)
    missing = {*missing, *report.get("missing", ())}
    phantom = PHANTOM_NAME.fullmatch(str(report.get("case")))
    loaded = phantom_case(int(phantom[1]), missing) if phantom and not case else None
    if case:
        loaded = read_case(case, missing, orientation=orientation, labels=edition)
        check_same_space(mask, space, case_place or Path(loaded.name), loaded.space)
    check_names(mask, loaded, case_place, path, report.get("case"))
    if loaded is None:
        name = report.get("case") or mask_case(mask) or mask.name
        return FinishedCase(labels, whole_volume(labels), None, name, report)
    if loaded.images.shape[1:] != labels.shape:
        raise GliosliceError(f"{mask}: its shape {labels.shape} is not that of {loaded.name}")
    crop = find_crop(brain_mask(loaded.images))
    if extract_slices(labels, crop).sum() != labels.sum():  # a mask that reaches beyond the brain
        crop = whole_volume(labels)
    return FinishedCase(labels, crop, loaded, loaded.name, report)


def read_report(paths: Sequence[Path]) -> tuple[Path | None, dict[str, Any]]:
    """Return the one JSON report of `paths`, or (None, {}); raises GliosliceError for others."""
    for path in paths:
        if path.suffix.lower() != ".json":
            raise GliosliceError(f"{path}: the numbers are read from the JSON report; name that")
    if len(paths) > 1:
        raise GliosliceError(f"{paths[1]}: a mask has one report; name {paths[0]} or this one")
    return (paths[0], read_json(paths[0])) if paths else (None, {})


def check_report(
    path: Path, report: dict[str, Any], mask: Path, labels: NDArray[np.uint8], space: Space
) -> None:
    """Raise GliosliceError unless `report` can be that of a mask, by its space and its volumes."""
    if not isinstance(report.get("volumes_ml"), dict):
        raise GliosliceError(
            f"{path}: is not the report of a run: it has no volumes_ml; name its JSON report"
        )
    advice = f"so it is not the report of {mask}; leave it out, or name the right one"
    try:
        shape = tuple(report.get("shape", space.shape))
        affine = np.asarray(report.get("affine", space.affine), np.float64)
        same = affine.shape == (4, 4) and np.allclose(affine, space.affine, atol=1e-2)
    except (TypeError, ValueError):
        raise GliosliceError(f"{path}: shape or affine is not as a run writes it") from None
    if shape != space.shape or not same:
        raise GliosliceError(f"{path}: was made in another space, {advice}")
    for region, found in volumes_ml(labels).items():
        reported = report["volumes_ml"].get(region)
        if not isinstance(reported, int | float) or abs(reported - found) > VOLUME_TOLERANCE:
            raise GliosliceError(
                f"{path}: {region} has {reported} mL, the mask {found:.3f} mL, {advice}"
            )


def check_names(
    mask: Path, case: Case | None, path: Path | None, report: Path | None, reported: str | None
) -> None:
    """Raise GliosliceError if the names of mask, case and report are those of different cases.

    A mask may have any name if it does not end in `-mask` or `_seg`, if it lies in the folder of
    the case, or if the case's report describes it.
    """
    named = mask_case(mask)
    if case and reported and reported != case.name:
        raise GliosliceError(f"{report}: is the report of {reported}, not of {case.name}")
    if path and (mask.resolve().parent == path.resolve() or reported):
        return
    expected = case.name if case else reported
    if named and expected and named != expected:
        raise GliosliceError(
            f"{mask}: is by its name the mask of {named}, not of {expected}; rename it if it is not"
        )


def page_warnings(found: FinishedCase) -> list[str]:
    """Return the warnings of the report, or else those of the images; a mask outside the brain."""
    reported = found.report.get("warnings")
    warnings = [str(line) for line in reported] if isinstance(reported, list) else []
    if found.case is None:
        return warnings
    if not isinstance(reported, list):
        warnings += case_warnings(found.case)
    outside = outside_brain_warning(found.labels, brain_mask(found.case.images))
    return warnings + ([outside] if outside and outside not in warnings else [])


def whole_volume(labels: NDArray[np.uint8]) -> Crop:
    """Return a crop that is the whole volume."""
    x, y, z = labels.shape
    return Crop((x, y, z), (0, 0), (0, z), (x, y))


if __name__ == "__main__":
    main()
