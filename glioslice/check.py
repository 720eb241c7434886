"""Check whether cases are ready to be segmented.

    glioslice check CASE         # what is wrong with a case, file by file
    glioslice check FOLDER       # a folder of cases: one line each

Problems make a case unusable. Warnings do not: they report in what way a case differs from the
cases that the networks were trained on.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glioslice import cli
from glioslice.case_options import add_case_options, add_missing_option, named_files, read_source
from glioslice.cases import (
    MODALITIES,
    Case,
    CaseFiles,
    case_name,
    case_paths,
    find_case,
    find_problems,
)
from glioslice.errors import GliosliceError
from glioslice.metrics import volumes_ml
from glioslice.preprocessing import Crop, brain_mask, find_crop
from glioslice.sanity_checks import case_warnings


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
    add_case_options(parser)
    cli.run(check_command, parser.parse_args(argv))


def check_command(arguments: argparse.Namespace) -> None:
    """Check what the command line names; raises GliosliceError if anything is not ready."""
    path, named = arguments.case or arguments.case_alias, named_files(arguments)
    if sum(one is not None for one in (arguments.case, arguments.case_alias, named)) > 1:
        raise GliosliceError("CASE, --input and files by modality: give one of them")
    if named is not None:
        check_case(named, arguments)
        return
    if path is None:
        raise GliosliceError("no CASE given; name a case's folder, or a folder of cases")
    paths = case_paths(path) if path.is_dir() else [path]
    if len(paths) == 1:
        check_case(find_case(paths[0]), arguments)
    else:
        check_cases(path, paths, arguments)


def check_case(files: CaseFiles, arguments: argparse.Namespace) -> None:
    """Print what the case holds and its warnings; raises GliosliceError if it has problems."""
    opened = open_case(files, arguments)
    if isinstance(opened, str):
        problems = find_problems(files, arguments.missing) or [opened]
        for problem in problems:
            print(f"problem: {problem}")
        raise GliosliceError(f"{files.name} is not ready, problems: {len(problems)}")
    case, crop = opened
    print_case(case, files, crop)
    for warning in case_warnings(case):
        print(f"warning: {warning}")
    print("ready")


def open_case(files: CaseFiles, arguments: argparse.Namespace) -> tuple[Case, Crop] | str:
    """Return a case and the window in it, or why it cannot be used.

    The reason is a text: an exception would keep the volumes while the files are read once more.
    """
    try:
        case = read_source(files, arguments)
        return case, find_crop(brain_mask(case.volumes))
    except GliosliceError as error:
        return cli.one_line(error)


def print_case(case: Case, files: CaseFiles, crop: Crop) -> None:
    """Print what a case holds."""
    brain = np.count_nonzero(brain_mask(case.volumes)) / 1000
    print(f"{case.name}: {case.scheme.edition}, {' x '.join(map(str, case.space.shape))} voxels")
    for modality in MODALITIES:
        print(f"  {modality:6} {'missing' if modality in case.missing else files.images[modality]}")
    print(f"  brain  {brain:,.0f} mL in slices {crop.z[0] + 1} to {crop.z[1]}")
    if case.labels is None:
        print("  mask   none: no Dice can be computed")
    else:
        volumes = "  ".join(f"{k} {v:.1f} mL" for k, v in volumes_ml(case.labels).items())
        print(f"  mask   {files.mask}: {volumes}")


def check_cases(folder: Path, paths: Sequence[Path], arguments: argparse.Namespace) -> None:
    """Print one line per case; raises GliosliceError if any is not ready."""
    failed = 0
    for path in paths:
        status, ready = case_status(path, arguments)
        failed += not ready
        print(f"{case_name(path)}: {status}", flush=True)
    if failed:
        raise GliosliceError(
            f"{folder}: {failed} of {len(paths)} cases are not ready; check each of them alone"
        )


def case_status(path: Path, arguments: argparse.Namespace) -> tuple[str, bool]:
    """Return one line on a case, and whether it is ready."""
    try:
        case = read_source(path, arguments)
        find_crop(brain_mask(case.volumes))
    except Exception as error:  # a folder of cases never ends because of one
        if arguments.debug and not isinstance(error, GliosliceError | OSError):
            raise
        return f"problem: {cli.failure_line(error)}", False
    warnings = case_warnings(case)
    return ("ready" if not warnings else f"ready, {len(warnings)} warnings: {warnings[0]}"), True


if __name__ == "__main__":
    main()
