"""Cases that lack modalities: what may be missing, the option `--missing`, and the warnings.

T1 and T2 may be missing without further ado. FLAIR and T1ce show what the masks are made of, so a
case without one of them is refused unless `--missing` names it. The same option leaves out a file
that is there but bad. The network sees zeros after z-scores, as in training, where modalities were
dropped at random. docs/accuracy.md has what each subset costs.
"""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import replace

from glioslice.dataset_layouts import MODALITIES, CaseFiles
from glioslice.errors import GliosliceError

MODALITY_TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}

OPTIONAL = ("t1", "t2")
"""Modalities that may be missing without `--missing`."""

EFFECTS = {
    "t1": "the masks are slightly less accurate.",
    "t2": "the masks are slightly less accurate.",
    "flair": "edema is drawn from what is left and may be far off. Do not rely on WT.",
    "t1ce": "nothing shows what enhances. Do not rely on ET and TC: they may be missing or wrong.",
}


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


def in_order(missing: Collection[str]) -> tuple[str, ...]:
    """Return modalities in the order of MODALITIES."""
    return tuple(modality for modality in MODALITIES if modality in missing)


def drop_modalities(files: CaseFiles, missing: Collection[str]) -> CaseFiles:
    """Return the files of a case without those of the modalities `missing`.

    Raises GliosliceError if FLAIR or T1ce is not there and not in `missing`, or nothing is left.
    """
    images = {m: path for m, path in files.images.items() if m not in missing}
    lacking = [m for m in MODALITIES if m not in images and m not in (*missing, *OPTIONAL)]
    if lacking:
        titles = " and ".join(MODALITY_TITLES[modality] for modality in lacking)
        folder = next(iter(files.images.values())).parent
        raise GliosliceError(
            f"{folder}: the modality {titles} is missing, without which masks are unreliable; to "
            f"segment the case all the same, add --missing {','.join(lacking)}"
        )
    if not images:
        raise GliosliceError(f"{files.name}: every modality of the case is missing")
    return replace(files, images=images)


def missing_warnings(missing: Collection[str]) -> list[str]:
    """Return a warning for each missing modality, the gravest first."""
    grave = [m for m in ("t1ce", "flair", *OPTIONAL) if m in missing]
    return [f"{MODALITY_TITLES[m]} is missing: {EFFECTS[m]}" for m in grave]
