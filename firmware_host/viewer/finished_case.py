"""Show a finished mask in the browser.

    glioslice view CASE-mask.nii.gz --case CASE [--report CASE-report.json]
    python firmware_host/stream.py --open CASE-mask.nii.gz --input CASE

Without the case the masks are shown without images.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_host.inputs import load_case
from firmware_host.mask_files import check_same_space, read_mask
from firmware_host.options import SCHEME_NAMES
from firmware_host.progress import Reporter
from firmware_host.stream import end_like_ctrl_c
from firmware_host.viewer.page import open_page
from firmware_host.viewer.scene import Scene
from firmware_host.volumetry import Volumetry
from glioslice import cli
from glioslice.cases import Case, phantom_case
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.malloc import configure_malloc
from glioslice.missing_modalities import add_missing_option
from glioslice.preprocessing import Crop, brain_mask, extract_slices, find_crop
from glioslice.sanity_checks import find_warnings

PHANTOM = re.compile(r"phantom-(\d{1,4})")


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
    parser.add_argument("--labels", choices=SCHEME_NAMES, help="label scheme of MASK")
    add_missing_option(parser)
    parser.add_argument("--http-port", type=int, default=0, help="port of the page; default: any")
    end_like_ctrl_c()
    configure_malloc()
    cli.run(
        lambda given: show(
            given.mask, given.case, given.report, given.labels, given.http_port, given.missing
        ),
        parser.parse_args(argv),
    )


def show(
    mask: Path,
    case: Path | None,
    reports: Sequence[Path],
    scheme: str | None,
    port: int = 0,
    missing: Collection[str] = (),
) -> None:
    """Serve the page of a mask at HTTP port `port` (0: any) until Ctrl-C; raises GliosliceError."""
    found = read_finished(mask, case, reports, scheme, missing)
    slices, volumetry = extract_slices(found.labels, found.crop), Volumetry()
    case_read = found.case
    scene = Scene(found.crop)
    if case_read is not None:
        scene = Scene(found.crop, case_read.images, case_read.missing)
    details = {
        "name": found.name,
        "mode": "finished case",
        "port": "",
        "model": found.report.get("model"),
        "warnings": case_warnings(found),
    }
    with open_page(port, Reporter(), "finished") as page:
        assert page is not None
        page.start_case(scene, details, dict)
        for index, labels in enumerate(slices):
            volumetry.add(index, labels)
            page.add(index, None, labels)
        counts = {"slices": len(slices), "masks": len(slices)}
        sizes = {"volumes_ml": volumetry.volumes_ml(), "diameters_mm": volumetry.diameters_mm()}
        page.set_numbers(lambda: {**counts, **found.report, **sizes})


def read_finished(
    mask: Path,
    case: Path | None,
    reports: Sequence[Path],
    scheme: str | None,
    missing: Collection[str] = (),
) -> FinishedCase:
    """Return the finished case in these files.

    If the report is of the phantom, which is in no file, the phantom is made. What was missing in
    the run of the report, or is in `missing`, is not read. Raises GliosliceError
    if mask and case do not belong together, or a file is not valid.
    """
    report = next((read_json(path) for path in reports if path.suffix == ".json"), {})
    labels, space, _ = read_mask(mask, scheme or report.get("labels"))
    missing = {*missing, *report.get("missing", ())}
    phantom = PHANTOM.fullmatch(str(report.get("case")))
    loaded = phantom_case(int(phantom[1]), missing) if phantom and not case else None
    if case:
        loaded = load_case(case, missing)
        check_same_space(mask, space, case, loaded.space)
    if loaded is None:
        return FinishedCase(labels, whole_volume(labels), None, mask.name, report)
    if loaded.images.shape[1:] != labels.shape:
        raise GliosliceError(f"{mask}: its shape {labels.shape} is not that of {loaded.name}")
    crop = find_crop(brain_mask(loaded.images))
    if extract_slices(labels, crop).sum() != labels.sum():  # a mask that reaches beyond the brain
        crop = whole_volume(labels)
    return FinishedCase(labels, crop, loaded, loaded.name, report)


def case_warnings(found: FinishedCase) -> list[str]:
    """Return the warnings of the report, or else those of the images if they are known."""
    reported = found.report.get("warnings")
    if isinstance(reported, list):
        return [str(line) for line in reported]
    return find_warnings(found.case.images, found.case.missing) if found.case else []


def whole_volume(labels: NDArray[np.uint8]) -> Crop:
    """Return a crop that is the whole volume."""
    x, y, z = labels.shape
    return Crop((x, y, z), (0, 0), (0, z), (x, y))


if __name__ == "__main__":
    main()
