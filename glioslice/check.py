"""Is this case ready to be segmented, and if not, what is wrong with it?

python -m glioslice.check CASE
"""

import argparse
from pathlib import Path

from glioslice import cli
from glioslice.cases import MODALITIES, find_case, problems_of, read_case
from glioslice.errors import GliosliceError
from glioslice.metrics import volumes_ml
from glioslice.preprocessing import brain_of, crop_of
from glioslice.sanity_checks import oddities


def main() -> None:
    """Read the command line and check."""
    parser = cli.parser(
        "Tell whether a case is ready, and what is wrong with it.",
        "python -m glioslice.check ../data/BraTS2021_00000",
    )
    parser.add_argument("case", metavar="CASE", type=Path, help="a case's folder")
    cli.run(work, parser.parse_args())


def work(arguments: argparse.Namespace) -> None:
    """Print what was found; every file that is refused by itself gets a line.

    Warnings refuse nothing: they say in what a case looks unlike those that the networks know.
    """
    files = find_case(arguments.case)
    problems = problems_of(files)
    for problem in problems:
        print(f"problem: {problem}")
    if problems:
        raise GliosliceError(f"{files.name} is not ready, problems: {len(problems)}")
    case = read_case(files)
    brain = brain_of(case.images)
    crop = crop_of(brain)
    print(f"{case.name}: {case.scheme.edition}, {' x '.join(map(str, case.space.shape))} voxels")
    for modality in MODALITIES:
        print(f"  {modality:6} {files.images[modality]}")
    print(f"  brain  {brain.sum() / 1000:,.0f} mL in slices {crop.z[0]} to {crop.z[1] - 1}")
    if case.labels is None:
        print("  mask   none: it can be segmented, not scored")
    else:
        volumes = "  ".join(f"{k} {v:.1f} mL" for k, v in volumes_ml(case.labels).items())
        print(f"  mask   {files.mask}: {volumes}")
    for oddity in oddities(case.images):
        print(f"warning: {oddity}")
    print("ready")


if __name__ == "__main__":
    main()
