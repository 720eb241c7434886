"""Options for what a case's files do not say: modality, orientation, edition, what is missing."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from glioslice.cases import Case, read_case
from glioslice.dataset_layouts import MODALITIES, CaseFiles, given_case, in_order
from glioslice.errors import GliosliceError
from glioslice.labels import EDITIONS


def add_case_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `named_files` and `read_source` to a command."""
    group = parser.add_argument_group("what the files do not state")
    for modality in MODALITIES:
        group.add_argument(
            f"--{modality}", type=Path, metavar="FILE", help="its file, in place of CASE"
        )
    add_reading_options(group)


def add_reading_options(parser: argparse._ActionsContainer) -> None:
    """Add the options of `read_source` to a command, or to a group of its options."""
    parser.add_argument(
        "--orientation", metavar="AXES",
        help="where the axes of files that state no orientation point to, such as LPS or RAS",
    )  # fmt: skip
    parser.add_argument(
        "--edition", choices=EDITIONS,
        help="the data set whose label numbers the ground truth has; default: by file names",
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


class MissingAction(argparse.Action):
    """Collects the modalities of `--missing t1 --missing t2,flair`."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[object] | None,
        option_string: str | None = None,
    ) -> None:
        """Add the named modalities; a wrong name ends the program with the usage."""
        named = [name.strip().lower() for name in str(values).split(",")]
        if unknown := [name for name in named if name not in MODALITIES]:
            parser.error(
                f"argument --missing: no modality {unknown[0]!r}; there are {', '.join(MODALITIES)}"
            )
        missing = {*getattr(namespace, self.dest), *named}
        if len(missing) == len(MODALITIES):
            parser.error("argument --missing: names all modalities; nothing is left to segment")
        setattr(namespace, self.dest, in_order(missing))


def add_missing_option(parser: argparse.ArgumentParser) -> None:
    """Add `--missing`, whose value is a tuple of modalities."""
    parser.add_argument(
        "--missing", action=MissingAction, default=(), metavar="MODALITY",
        help="a modality that the case lacks or whose file is bad: t1, t2, flair or t1ce; several "
        "with commas; a case without T1 or T2 needs no option",
    )  # fmt: skip
