"""Tell how far a mask is from the expert's: Dice, HD95 and volumes of WT, TC and ET.

    python firmware_host/compare.py mask.nii.gz CASE/CASE_seg.nii.gz [--json]

Both may be in any label scheme: file names, labels and nesting tell, or --labels, --truth-labels.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glioslice import cli

FORMS = ("brats2018", "brats2023", "msd", "regions")


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and compare."""
    parser = cli.parser(
        "Tell how far a mask is from the expert's: Dice, HD95 in mm and volumes in mL.",
        "python firmware_host/compare.py mask.nii.gz CASE/CASE_seg.nii.gz",
    )
    parser.add_argument("mask", metavar="MASK", type=Path, help="the mask to judge")
    parser.add_argument("truth", metavar="TRUTH", type=Path, help="the expert's")
    parser.add_argument("--labels", choices=FORMS, help="scheme of MASK, where it does not tell")
    parser.add_argument("--truth-labels", choices=FORMS, help="scheme of TRUTH")
    parser.add_argument("--json", action="store_true", help="for a machine")
    cli.run(work, parser.parse_args(words))


def work(arguments: argparse.Namespace) -> None:
    """Do what the command line says."""
    scores = compared(arguments.mask, arguments.truth, arguments.labels, arguments.truth_labels)
    print(json.dumps(scores, indent=1) if arguments.json else table(scores))


def compared(mask: Path, truth: Path, form: str | None, truth_form: str | None) -> dict[str, Any]:
    """Return the scores of two label files.

    Raises GliosliceError, naming the file, if one is no mask, its scheme cannot be told, or their
    voxels do not lie in the same places.
    """
    from firmware_host.mask_files import read_mask, same_space
    from glioslice.errors import GliosliceError
    from glioslice.labels import REGIONS, to_regions
    from glioslice.metrics import hd95, region_dice, volumes_ml

    ours, space, form = read_mask(mask, form)
    theirs, truth_space, truth_form = read_mask(truth, truth_form)
    same_space(mask, space, truth, truth_space)
    ours, theirs = space.from_lps(ours), space.from_lps(theirs)
    pairs = zip(REGIONS, to_regions(ours), to_regions(theirs), strict=True)
    try:
        distances = {region: hd95(one, other) for region, one, other in pairs}
    except ImportError:
        raise GliosliceError("HD95 needs scipy: pip install 'glioslice[host]'") from None
    return {
        "labels": {"mask": form, "truth": truth_form},
        "dice": region_dice(ours, theirs),
        "hd95_mm": distances,
        "volumes_ml": {"mask": volumes_ml(ours), "truth": volumes_ml(theirs)},
    }


def table(scores: dict[str, Any]) -> str:
    """Return the scores for people."""
    from glioslice.metrics import MISSED_MM

    labels, ml = scores["labels"], scores["volumes_ml"]
    lines = [
        f"labels: {labels['mask']} against {labels['truth']}",
        f"{'':5}{'Dice':>8}{'HD95 mm':>10}{'mL':>9}{'truth mL':>10}{'more mL':>9}",
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
