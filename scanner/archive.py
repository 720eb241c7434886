"""Prepare an archive of studies: by parts, or on a Dask cluster, with one table at the end.

    glioslice prepare ARCHIVE --out CASES --part 3/16    # one of sixteen processes, on any machine
    glioslice prepare ARCHIVE --out CASES --dask         # one process per core of this machine
    glioslice prepare ARCHIVE --out CASES --summary      # merge what is done into summary.csv

An archive holds one folder of DICOM series per study. A folder NAME leaves the case NAME and last
NAME-result.json: name folders by pseudonyms. `glioslice.cluster` shares the studies and says which
are done.
"""

import argparse
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from glioslice import __version__
from glioslice.cluster import Archive, ArchiveCase, list_cases, run_archive
from glioslice.dataset_layouts import MODALITIES
from glioslice.errors import GliosliceError
from scanner.brain_extraction import DEEPBET, HD_BET, NONE, check_method
from scanner.case_files import RECORD, StudyLink, check_free, write_case
from scanner.pipeline import Prepared, prepare_case
from scanner.prepare import load_study

logger = logging.getLogger(__name__)

COLUMNS = "sequences", "brain_extraction", "brain_ml", "seconds", "warnings"

ONE_STUDY_OPTIONS = (*MODALITIES, "study", "json")


@dataclass(frozen=True)
class PrepareOptions:
    """What every study has in common; it is pickled for the workers of a cluster."""

    out: Path
    extraction: str = DEEPBET
    keep_link: bool = False

    @property
    def method(self) -> str:
        """The version and the options that change cases."""
        link = "; with the link to the study" if self.keep_link else ""
        return f"glioslice {__version__}; {self.extraction}{link}"


def prepare_archive(arguments: argparse.Namespace) -> None:
    """Do what --part, --dask or --summary asks; raises GliosliceError if a study failed."""
    given = [f"--{name}" for name in ONE_STUDY_OPTIONS if getattr(arguments, name)]
    if given:
        raise GliosliceError(
            f"{', '.join(given)}: for one study, without --part, --dask and --summary"
        )
    if arguments.study_folder is None:
        raise GliosliceError("--part, --dask and --summary need a folder of studies")
    if arguments.brain_extraction not in (DEEPBET, HD_BET, NONE):
        raise GliosliceError(
            f"--brain-extraction {arguments.brain_extraction}: a mask is of one head; for a folder "
            f"of studies name {DEEPBET}, {HD_BET} or {NONE}"
        )
    check_method(arguments.brain_extraction)
    out = arguments.out.absolute()  # workers run elsewhere
    if out.resolve() == arguments.study_folder.resolve():
        raise GliosliceError(f"{out}: is the folder of the studies; name another --out")
    options = PrepareOptions(out, arguments.brain_extraction, arguments.keep_link)
    cases = list_cases((path.name, path) for path in study_folders(arguments.study_folder, out))
    archive = Archive(
        cases, partial(prepare_one, options), partial(write_prepared, options), out, options.method,
        "{}/" + RECORD, COLUMNS, "prepared",
    )  # fmt: skip
    run_archive(archive, arguments)


def study_folders(archive: Path, out: Path) -> Iterator[Path]:
    """Yield the folders of an archive, without that of the outputs.

    Raises GliosliceError if there is none.
    """
    if not archive.is_dir():
        raise GliosliceError(f"{archive}: no such folder")
    folders = [p for p in archive.iterdir() if p.is_dir() and not p.name.startswith(".")]
    studies = [path for path in folders if path.resolve() != out.resolve()]
    if not studies:
        raise GliosliceError(f"{archive}: holds no folders; an archive has one for each study")
    yield from studies


def prepare_one(options: PrepareOptions, case: ArchiveCase) -> tuple[Prepared, StudyLink | None]:
    """Read and prepare a study."""
    check_free(options.out / case.name, force=True)  # before the half minute that a study takes
    sources, link = load_study(case.path, {}, progress=logger.info)
    return prepare_case(sources, options.extraction), link


def write_prepared(
    options: PrepareOptions, case: ArchiveCase, made: tuple[Prepared, StudyLink | None]
) -> dict[str, Any]:
    """Write the case of a study; return its row's values."""
    prepared, link = made
    # What is there is unfinished, or made by another method: its row says no more than that.
    write_case(options.out / case.name, prepared, link if options.keep_link else None, force=True)
    return {
        "sequences": " ".join(prepared.images),
        "brain_extraction": prepared.brain_method,
        "brain_ml": round(float(prepared.brain.sum()) / 1000, 1),
        "warnings": list(prepared.warnings),
    }
