"""The page of a finished case: a mask, its images where they are at hand, its report's numbers.

python firmware_host/stream.py --open mask.nii.gz [--input CASE] [--report report.json]
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firmware_host.inputs import case_at
from firmware_host.mask_files import read_mask, same_space
from firmware_host.viewer.page import opened
from firmware_host.viewer.scene import Scene
from firmware_host.volumetry import Tally
from glioslice.cases import Case, phantom_case
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.preprocessing import Crop, brain_of, crop_of, cut
from glioslice.sanity_checks import oddities

PHANTOM = re.compile(r"phantom-(\d{1,4})")


@dataclass(frozen=True)
class Finished:
    """A finished case: the kit's labels (X, Y, Z), what surrounds them, and the report if any."""

    labels: NDArray[np.uint8]
    crop: Crop
    case: Case | None
    name: str
    report: dict[str, Any]


def show(arguments: argparse.Namespace) -> None:
    """Open the page of the mask that the command line names, until Ctrl-C."""
    found = read(arguments.open, arguments.input, arguments.report, arguments.labels)
    masks, tally = cut(found.labels, found.crop), Tally()
    images = found.case.images if found.case else None
    model = found.report.get("model")
    about = {"name": found.name, "mode": "finished case", "port": "", "model": model}
    about["warnings"] = warnings_of(found)
    with opened(arguments.view or 0, "finished") as page:
        assert page is not None
        page.begin(Scene(found.crop, images), about, dict)
        for index, mask in enumerate(masks):
            tally.add(index, mask)
            page.add(index, None, mask)
        counted = {"slices": len(masks), "masks": len(masks)}
        measured = {"volumes_ml": tally.volumes_ml(), "diameters_mm": tally.diameters_mm()}
        page.settle(lambda: {**counted, **found.report, **measured})


def read(mask: Path, case: Path | None, reports: list[Path], form: str | None) -> Finished:
    """Return the finished case in these files.

    A report of the phantom brings the phantom, which lies on no disk. Raises GliosliceError if the
    mask and the case do not belong together, or a file is not what it should be.
    """
    report = next((read_json(path) for path in reports if path.suffix == ".json"), {})
    labels, space, _ = read_mask(mask, form or report.get("labels"))
    phantom = PHANTOM.fullmatch(str(report.get("case")))
    images = phantom_case(int(phantom[1])) if phantom and not case else None
    if case:
        images = case_at(case)
        same_space(mask, space, case, images.space)
    if images is None:
        return Finished(labels, around(labels), None, mask.name, report)
    if images.images.shape[1:] != labels.shape:
        raise GliosliceError(f"{mask}: its shape {labels.shape} is not that of {images.name}")
    crop = crop_of(brain_of(images.images))
    if cut(labels, crop).sum() != labels.sum():  # a mask that reaches past the brain
        crop = around(labels)
    return Finished(labels, crop, images, images.name, report)


def warnings_of(found: Finished) -> list[str]:
    """Return what the report warns of, else what the images do, where they are at hand."""
    told = found.report.get("warnings")
    if isinstance(told, list):
        return [str(line) for line in told]
    return oddities(found.case.images) if found.case else []


def around(labels: NDArray[np.uint8]) -> Crop:
    """Return a window that is the whole volume."""
    x, y, z = labels.shape
    return Crop((x, y, z), (0, 0), (0, z), (x, y))
