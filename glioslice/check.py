"""Check whether cases are ready to be segmented.

    glioslice check CASE         # what is wrong with a case, file by file
    glioslice check FOLDER       # a folder of cases: one line each

Problems make a case unusable. Warnings do not: they report in what way a case differs from the
cases that the networks were trained on.
"""

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path

from glioslice import cli
from glioslice.cases import MODALITIES, case_paths, find_case, find_problems, read_case
from glioslice.errors import GliosliceError
from glioslice.metrics import volumes_ml
from glioslice.missing_modalities import add_missing_option
from glioslice.preprocessing import brain_mask, find_crop
from glioslice.sanity_checks import find_warnings


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the arguments and check the case, or each case of a folder."""
    parser = cli.parser(
        "Check whether a case, or each case of a folder, is ready to be segmented.",
        "glioslice check CASE",
    )
    parser.add_argument(
        "case", nargs="?", metavar="CASE", type=Path, help="a case, or a folder of cases"
    )
    parser.add_argument(
        "--input", dest="case_alias", metavar="CASE", type=Path, help="the same as CASE"
    )
    add_missing_option(parser)
    cli.run(check_command, parser.parse_args(argv))


def check_command(arguments: argparse.Namespace) -> None:
    """Check what the command line names; raises GliosliceError if anything is not ready."""
    if arguments.case and arguments.case_alias:
        raise GliosliceError("CASE and --input are the same; give one of them")
    path = arguments.case or arguments.case_alias
    if path is None:
        raise GliosliceError("no CASE given; name a case's folder, or a folder of cases")
    paths = case_paths(path) if path.is_dir() else [path]
    if len(paths) == 1:
        check_case(paths[0], arguments.missing)
    else:
        check_folder(path, paths, arguments.missing)


def check_case(path: Path, missing: Collection[str] = ()) -> None:
    """Print what the case holds and its warnings; raises GliosliceError if it has problems."""
    files = find_case(path)
    problems = find_problems(files, missing)
    for problem in problems:
        print(f"problem: {problem}")
    if problems:
        raise GliosliceError(f"{files.name} is not ready, problems: {len(problems)}")
    case = read_case(files, missing)
    brain = brain_mask(case.images)
    crop = find_crop(brain)
    print(f"{case.name}: {case.scheme.edition}, {' x '.join(map(str, case.space.shape))} voxels")
    for modality in MODALITIES:
        print(f"  {modality:6} {'missing' if modality in case.missing else files.images[modality]}")
    print(f"  brain  {brain.sum() / 1000:,.0f} mL in slices {crop.z[0]} to {crop.z[1] - 1}")
    if case.labels is None:
        print("  mask   none: no Dice can be computed")
    else:
        volumes = "  ".join(f"{k} {v:.1f} mL" for k, v in volumes_ml(case.labels).items())
        print(f"  mask   {files.mask}: {volumes}")
    for warning in find_warnings(case.images, case.missing):
        print(f"warning: {warning}")
    print("ready")


def check_folder(folder: Path, paths: Sequence[Path], missing: Collection[str] = ()) -> None:
    """Print one line per case; raises GliosliceError if any is not ready."""
    failed = 0
    for path in paths:
        status, ready = case_status(path, missing)
        failed += not ready
        print(f"{path.name}: {status}", flush=True)
    if failed:
        raise GliosliceError(
            f"{folder}: {failed} of {len(paths)} cases are not ready; check each of them alone"
        )


def case_status(path: Path, missing: Collection[str] = ()) -> tuple[str, bool]:
    """Return one line on a case, and whether it is ready."""
    try:
        case = read_case(path, missing)
        find_crop(brain_mask(case.images))
    except GliosliceError as error:
        return f"problem: {cli.one_line(error)}", False
    warnings = len(find_warnings(case.images, case.missing))
    return ("ready" if not warnings else f"ready, warnings: {warnings}"), True


if __name__ == "__main__":
    main()
