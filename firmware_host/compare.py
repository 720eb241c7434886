"""Compare a mask with the ground truth: Dice, HD95 and volumes.

    glioslice compare MASK TRUTH [--json]
    python firmware_host/compare.py CASE-mask.nii.gz CASE/CASE_seg.nii.gz

Both may be in any label scheme. It is recognized by file name, values and nesting, or named with
--labels and --truth-labels.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from firmware_host.options import SCHEME_NAMES
from glioslice import cli

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and compare."""
    parser = cli.parser(
        "Compare a mask with the ground truth: Dice, HD95 in mm and volumes in mL.",
        "glioslice compare CASE-mask.nii.gz CASE/CASE_seg.nii.gz",
    )
    parser.add_argument("mask", metavar="MASK", type=Path, help="the mask to compare")
    parser.add_argument("truth", metavar="TRUTH", type=Path, help="the ground truth")
    parser.add_argument(
        "--labels",
        choices=SCHEME_NAMES,
        help="label scheme of MASK; default: by its name and values",
    )
    parser.add_argument(
        "--truth-labels",
        choices=SCHEME_NAMES,
        help="label scheme of TRUTH; default: by its name and values",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    cli.run(print_comparison, parser.parse_args(argv))


def print_comparison(arguments: argparse.Namespace) -> None:
    """Compare the two files that the command line names."""
    scores = compare_files(
        arguments.mask, arguments.truth, arguments.labels, arguments.truth_labels
    )
    print(json.dumps(scores, indent=1) if arguments.json else format_scores(scores))


def compare_files(
    mask: Path, truth: Path, scheme: str | None, truth_scheme: str | None
) -> dict[str, Any]:
    """Return the scores of two label files.

    Raises GliosliceError, naming the file, if one is not a mask, if its scheme is not clear, or if
    their voxels do not lie in the same places.
    """
    from firmware_host.mask_files import check_same_space, mask_case, read_mask
    from glioslice.errors import GliosliceError
    from glioslice.labels import REGIONS, to_regions
    from glioslice.metrics import hd95, region_dice, volumes_ml

    ours, space, scheme = read_mask(mask, scheme)
    theirs, truth_space, truth_scheme = read_mask(truth, truth_scheme)
    check_same_space(mask, space, truth, truth_space)
    name, true_name = mask_case(mask), mask_case(truth)
    if name and true_name and name not in (true_name, truth.absolute().parent.name):
        logger.warning("by their names, %s is of case %s, %s of %s", mask, name, truth, true_name)
    ours, theirs = space.from_lps(ours), space.from_lps(theirs)
    pairs = zip(REGIONS, to_regions(ours), to_regions(theirs), strict=True)
    try:
        distances = {region: hd95(own, true) for region, own, true in pairs}
    except ImportError:
        raise GliosliceError("HD95 needs scipy: pip install 'glioslice[host]'") from None
    return {
        "labels": {"mask": scheme, "truth": truth_scheme},
        "dice": region_dice(ours, theirs),
        "hd95_mm": distances,
        "volumes_ml": {"mask": volumes_ml(ours), "truth": volumes_ml(theirs)},
    }


def format_scores(scores: dict[str, Any]) -> str:
    """Return the scores as a table."""
    from glioslice.metrics import MISSED_MM

    labels, ml = scores["labels"], scores["volumes_ml"]
    lines = [
        f"labels: {labels['mask']} (mask), {labels['truth']} (ground truth)",
        f"{'':5}{'Dice':>8}{'HD95 mm':>10}{'mL':>9}{'truth mL':>10}{'diff mL':>9}",
    ]
    for region, distance in scores["hd95_mm"].items():
        own, true = ml["mask"][region], ml["truth"][region]
        dice = scores["dice"][region]
        lines.append(
            f"{region:5}{dice:8.4f}{distance:10.2f}{own:9.2f}{true:10.2f}{own - true:+9.2f}"
        )
    lines.append(f"{'mean':5}{scores['dice']['mean']:8.4f}")
    if MISSED_MM in scores["hd95_mm"].values():
        lines.append(f"HD95 of {MISSED_MM}: only one of the two has the region (as in BraTS)")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
