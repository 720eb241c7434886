"""Options that say what a case's files do not: which modality, orientation and edition they are."""

import argparse
from pathlib import Path

from glioslice.cases import Case, read_case
from glioslice.dataset_layouts import MODALITIES, CaseFiles, given_case
from glioslice.errors import GliosliceError
from glioslice.labels import EDITIONS


def add_case_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `named_files` and `read_source` to a command."""
    group = parser.add_argument_group("what the files do not tell")
    for modality in MODALITIES:
        group.add_argument(f"--{modality}", type=Path, metavar="FILE", help="in place of CASE")
    group.add_argument(
        "--orientation", metavar="AXES",
        help="of files that state none: where their axes point to, such as LPS or RAS",
    )  # fmt: skip
    group.add_argument(
        "--edition", choices=EDITIONS,
        help="the edition of the ground truth; default: by file names",
    )  # fmt: skip


def named_files(arguments: argparse.Namespace) -> CaseFiles | None:
    """Return the case of the files that the options name, or None if they name none.

    Raises GliosliceError if they name some modalities only.
    """
    files = {modality: getattr(arguments, modality) for modality in MODALITIES}
    given = {modality: path for modality, path in files.items() if path is not None}
    return given_case(given) if given else None


def chosen_source(case: Path | None, arguments: argparse.Namespace) -> CaseFiles | Path | None:
    """Return the case that a command got as CASE or by its four files, or None.

    Raises GliosliceError for both, and for some of the four files.
    """
    named = named_files(arguments)
    if case and named:
        raise GliosliceError("give a CASE, or its four files by modality, not both")
    return case or named


def read_source(source: CaseFiles | Path, arguments: argparse.Namespace) -> Case:
    """Read a case as the options say; raises GliosliceError (`read_case`)."""
    return read_case(
        source, arguments.missing, orientation=arguments.orientation, labels=arguments.edition
    )
