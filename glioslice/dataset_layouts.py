"""File layouts of the data sets, recognised by file names.

    BraTS 2018-2021   CASE/CASE_{flair,t1,t1ce,t2,seg}.nii.gz        labels 1, 2, 4
    BraTS 2023+       CASE/CASE-{t2f,t1n,t1c,t2w,seg}.nii.gz         labels 1, 2, 3
    Decathlon Task01  imagesTr/CASE.nii.gz (4-D), labelsTr/, dataset.json   labels 2, 1, 3
    nnU-Net           imagesTr/CASE_{0000,...,0003}.nii.gz, labelsTr/, dataset.json
    BIDS              sub-1/anat/sub-1_{FLAIR,T1w,ce-gd_T1w,T2w}.nii.gz
    plain             CASE/{flair,t1,t1ce,t2,seg}.nii.gz

Suffixes may be upper or lower case, files `.nii` or `.nii.gz`. The mask is optional.

T1 and T2 may be missing: that is only a warning. Without FLAIR or T1ce the masks are unreliable, so
such a case is refused unless `--missing` names what is missing. The same option leaves out a file
that is present but bad. The network sees zeros after z-scores, as in training, where modalities
were dropped at random. docs/accuracy.md has what each subset costs.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from glioslice.errors import GliosliceError
from glioslice.files import is_dicom, read_json
from glioslice.labels import BRATS_2018, BRATS_2023, DECATHLON, SCHEMES, LabelScheme

MODALITIES = ("flair", "t1", "t1ce", "t2")
MASK = "seg"

MODALITY_TITLES = {"flair": "FLAIR", "t1": "T1", "t1ce": "T1ce", "t2": "T2"}

OPTIONAL = ("t1", "t2")
"""Modalities that may be missing without `--missing`."""

EFFECTS = {
    "t1": "the masks are slightly less accurate.",
    "t2": "the masks are slightly less accurate.",
    "flair": "edema is drawn from what is left and may be far off. Do not rely on WT.",
    "t1ce": "nothing shows what enhances. Do not rely on ET and TC: they may be missing or wrong.",
}

MASK_ALONE = "has a mask and no image; put its images beside it"
EXPECTED = (
    "no case; expected CASE_flair, _t1, _t1ce, _t2 (BraTS 2018-2021) or CASE-t2f, -t1n, -t1c, -t2w "
    "(BraTS 2023 and later) as .nii or .nii.gz; or name four files with --flair, --t1, --t1ce and "
    "--t2"
)

PACKED = (".zip", ".tar", ".tgz", ".tar.gz", ".7z", ".rar")

LOOKED_AT = 1000
"""Files of a folder without a case that are opened to see whether they are DICOM."""

SUFFIXES: Mapping[str, tuple[str, LabelScheme | None]] = {
    "_flair": ("flair", BRATS_2018),
    "_t1": ("t1", BRATS_2018),
    "_t1ce": ("t1ce", BRATS_2018),
    "_t2": ("t2", BRATS_2018),
    "_seg": (MASK, BRATS_2018),
    "-t2f": ("flair", BRATS_2023),
    "-t1n": ("t1", BRATS_2023),
    "-t1c": ("t1ce", BRATS_2023),
    "-t2w": ("t2", BRATS_2023),
    "-seg": (MASK, BRATS_2023),
    # In use, but of no edition: BIDS, the Decathlon's terms, and a mask of BraTS 2020.
    "_t1w": ("t1", None),
    "_t1n": ("t1", None),
    "_ce-gd_t1w": ("t1ce", None),
    "_ce-gadolinium_t1w": ("t1ce", None),
    "_t1gd": ("t1ce", None),
    "_t1c": ("t1ce", None),
    "_t2w": ("t2", None),
    "_t2f": ("flair", None),
    "_segm": (MASK, None),
    "_dseg": (MASK, None),
}
"""Modality and edition by the end of a file's name; some ends belong to no edition."""

ENDING = r"\.nii(\.gz)?"
FILE_NAME = re.compile(rf"(?P<case>.+?)(?P<suffix>{'|'.join(SUFFIXES)}){ENDING}", re.I | re.S)
CHANNEL_NAME = re.compile(rf"(?P<case>.+)_(?P<channel>\d{{4}}){ENDING}", re.I | re.S)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
BIDS_CASE = re.compile(r"sub-[^_]+(_ses-[^_]+)?")
NIFTI_SUFFIXES = (".nii", ".nii.gz")

CHANNEL_TERMS: Mapping[str, str] = {
    "flair": "flair", "t2f": "flair", "t2flair": "flair",
    "t1": "t1", "t1w": "t1", "t1n": "t1",
    "t1ce": "t1ce", "t1gd": "t1ce", "t1c": "t1ce", "t1wgd": "t1ce", "t1post": "t1ce",
    "t2": "t2", "t2w": "t2",
}  # fmt: skip
"""What dataset.json may call a modality, in lower case, letters and digits alone."""


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case: one per modality, or one 4-D file for all; `mask` may be None.

    `images` lacks the modalities that are missing. `order` is the order of the modalities in a file
    of four dimensions (`four_d`). `edition_known` is whether the names or dataset.json name the
    edition, and so the labels of the mask. `notes` are warnings: what was assumed, and which files
    were passed over.
    """

    name: str
    scheme: LabelScheme
    images: Mapping[str, Path]
    mask: Path | None
    order: tuple[str, ...] = MODALITIES
    four_d: bool = False
    edition_known: bool = True
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Make the name safe."""
        object.__setattr__(self, "name", safe_name(self.name))


def safe_name(name: str) -> str:
    """Return the name of a case for tables and files: without line breaks and escape sequences."""
    return CONTROL.sub("_", name)


def nifti_files(folder: Path) -> list[Path]:
    """Return the NIfTI files of a folder, sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(NIFTI_SUFFIXES) and not path.name.startswith(".")
    )


def without_ending(path: Path) -> str:
    """Return a file's name without `.nii` or `.nii.gz`."""
    return re.sub(rf"{ENDING}$", "", path.name, flags=re.IGNORECASE)


def recognise(path: Path) -> tuple[str, str, LabelScheme | None] | None:
    """Return the case, the modality or `seg`, and the edition if a file's name gives it.

    None for any other name. The case is empty for a plain name such as `t1.nii.gz`.
    """
    if match := FILE_NAME.fullmatch(path.name):
        kind, scheme = SUFFIXES[match["suffix"].lower()]
        return match["case"], kind, scheme
    stem = without_ending(path).lower()
    for separator in "_-":
        if path.name.lower().endswith(NIFTI_SUFFIXES) and separator + stem in SUFFIXES:
            return "", SUFFIXES[separator + stem][0], None
    return None


def no_case(path: Path, reason: str) -> GliosliceError:
    """Return the error of a folder or file that is no case: `reason`, or what it is instead."""
    if path.name.lower().endswith(PACKED) and path.is_file():
        return GliosliceError(f"{path}: is a packed archive; unpack it and name the folder")
    found = path if path.is_file() and is_dicom(path) else find_dicom(path)
    if found is None:
        return GliosliceError(f"{path}: {reason}")
    what = "a DICOM file" if found == path else f"no case but DICOM files, such as {found.name}"
    return GliosliceError(
        f"{path}: {what}; make a case with `glioslice prepare SERIES_FOLDER --out CASE`"
    )


def find_dicom(folder: Path) -> Path | None:
    """Return a DICOM file in `folder`, at any depth, or None if the first LOOKED_AT are not."""
    return next(filter(is_dicom, islice(_files_below(folder), LOOKED_AT)), None)


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield the regular files of a folder but NIfTI, at any depth, sorted."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        paths = (Path(place, name) for name in sorted(names))
        yield from (p for p in paths if p.is_file() and p.suffix not in (".nii", ".gz"))


def brats_case(folder: Path) -> CaseFiles:
    """Return the files of a case whose modalities are files of their own, named as above.

    Raises GliosliceError if the folder holds no case, or a modality is present twice.
    """
    files: dict[str, Path] = {}
    schemes: set[LabelScheme | None] = set()
    names: dict[Path, str] = {}
    notes = []
    for path in nifti_files(folder):
        recognised = recognise(path)
        if recognised is None:
            notes.append(f"{path}: not used; its name gives neither a modality nor a mask")
            continue
        name, kind, scheme = recognised
        if len((schemes | {scheme}) - {None}) > 1:
            raise GliosliceError(
                f"{folder}: mixes the file names of BraTS 2018-2021 and BraTS 2023; keep one kind"
            )
        if kind in files:
            raise GliosliceError(
                f"{path}: {kind} is present twice, also as {files[kind].name}; keep one"
            )
        files[kind] = path
        if kind != MASK or scheme:  # a mask of BraTS 2020 has a name of its own
            names[path] = name
        if kind != MASK:
            schemes.add(scheme)
    if not schemes:
        raise no_case(folder, MASK_ALONE if files else EXPECTED)
    notes += _names_of_different_cases(names)
    mask = files.pop(MASK, None)
    name = folder.resolve().name
    if None not in schemes:
        return CaseFiles(name, schemes.pop() or BRATS_2023, files, mask, notes=tuple(notes))
    if len(distinct := set(names.values())) == 1:
        name = distinct.pop() or name  # BIDS has a folder `anat` in each case
    return CaseFiles(name, BRATS_2023, files, mask, edition_known=False, notes=tuple(notes))


def _names_of_different_cases(names: Mapping[Path, str]) -> list[str]:
    """Return a warning if files are named after different cases, empty if not.

    Of BIDS only subject and session count: sub-1_acq-2d and sub-1_acq-3d are one case.
    """
    first: dict[str, Path] = {}
    for path, name in names.items():
        bids = BIDS_CASE.match(name)
        first.setdefault(bids[0] if bids else name, path)
    first.pop("", None)
    if len(first) < 2:
        return []
    one, other = list(first.values())[:2]
    return [
        f"{one.parent}: {one.name} and {other.name} are named after different cases. If the files "
        "are not all of one patient and one day, the masks are wrong."
    ]


def given_case(files: Mapping[str, Path]) -> CaseFiles:
    """Return the case of four files, one a modality, that somebody named one by one.

    Raises GliosliceError if one is missing.
    """
    missing = [f"--{modality}" for modality in MODALITIES if modality not in files]
    if missing:
        raise GliosliceError(f"four files make a case; name also {', '.join(missing)}")
    recognised = {path: found for path in files.values() if (found := recognise(path))}
    names = {path: name for path, (name, _, _) in recognised.items()}
    notes = _names_of_different_cases(names)
    for modality, path in files.items():
        if (kind := recognised.get(path, ("", modality))[1]) != modality:
            notes.append(f"{path}: is given as {modality}, but its name says {kind}.")
    distinct = set(names.values()) - {""}
    name = distinct.pop() if len(distinct) == 1 else files[MODALITIES[0]].resolve().parent.name
    return CaseFiles(name, BRATS_2023, files, None, edition_known=False, notes=tuple(notes))


def file_case(path: Path) -> CaseFiles:
    """Return the case that one file stands for: a 4-D image, or a channel of nnU-Net's.

    Raises GliosliceError if it is one modality of a case, or no NIfTI file.
    """
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise no_case(path, "a case is a folder, or a 4-D NIfTI file of the Decathlon")
    if recognised := recognise(path):
        kind = "a mask" if recognised[1] == MASK else f"one modality ({recognised[1]})"
        raise GliosliceError(f"{path}: {kind} of a case; name its folder {path.parent}")
    if CHANNEL_NAME.fullmatch(path.name):
        return nnunet_case(path)
    return decathlon_case(path)


def channel_groups(folder: Path) -> list[Path]:
    """Return the first file of each of nnU-Net's cases in `folder`, sorted."""
    groups: dict[str, Path] = {}
    for path in nifti_files(folder):
        if match := CHANNEL_NAME.fullmatch(path.name):
            groups.setdefault(match["case"], path)
    return list(groups.values())


def nnunet_case(path: Path) -> CaseFiles:
    """Return the files of nnU-Net's case to which the channel `path` belongs.

    Raises GliosliceError if a channel is missing, or dataset.json does not tell their order.
    """
    match = CHANNEL_NAME.fullmatch(path.name)
    if match is None:
        raise GliosliceError(f"{path}: not a channel of nnU-Net, such as CASE_0000.nii.gz")
    description = next(
        (p for p in (path.parent / "dataset.json", path.parent.parent / "dataset.json")
         if p.is_file()), None,
    )  # fmt: skip
    order = None if description is None else _channel_order(description, read_json(description))
    if order is None:
        raise GliosliceError(
            f"{path}: the order of nnU-Net's channels is not known; put the data set's "
            "dataset.json beside it, or name the files with --flair, --t1, --t1ce and --t2"
        )
    images = {}
    for index, modality in enumerate(order):
        name = f"{match['case']}_{index:04}"
        found = [p for p in nifti_files(path.parent) if without_ending(p) == name]
        if not found:
            raise GliosliceError(f"{path.parent}: {name} ({modality}) is missing")
        images[modality] = found[0]
    assert description is not None
    scheme, known, notes = _described_scheme(description, BRATS_2023)
    mask = _decathlon_mask(path.parent, match["case"])
    ordered = {modality: images[modality] for modality in MODALITIES}
    return CaseFiles(match["case"], scheme, ordered, mask, edition_known=known, notes=notes)


def decathlon_case(image: Path) -> CaseFiles:
    """Return the files of a Decathlon case, given its 4-D image; the mask lies in labelsTr/.

    Raises GliosliceError if dataset.json describes other modalities or labels.
    """
    description = image.parent.parent / "dataset.json"
    order: tuple[str, ...] = ("flair", "t1", "t1ce", "t2")
    scheme, notes = DECATHLON, []
    if description.is_file():
        found = _channel_order(description, read_json(description))
        if found is None:
            notes.append(
                f"{description}: names no modalities; the channels are taken as those of the "
                "Decathlon's Task01: FLAIR, T1, T1ce, T2"
            )
        order = found or order
        scheme, _, more = _described_scheme(description, DECATHLON)
        notes += more
    name = without_ending(image)
    return CaseFiles(
        name=name,
        scheme=scheme,
        images=dict.fromkeys(MODALITIES, image),
        mask=_decathlon_mask(image.parent, name),
        order=order,
        four_d=True,
        notes=tuple(notes),
    )


def _decathlon_mask(images: Path, name: str) -> Path | None:
    folder = images.parent / "labelsTr"
    if not folder.is_dir():
        return None
    return next((path for path in nifti_files(folder) if without_ending(path) == name), None)


def _channel_order(description: Path, content: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the order of the modalities that dataset.json gives, or None if it gives none.

    Raises GliosliceError if it names others than the four.
    """
    given = content.get("modality", content.get("channel_names"))
    terms = [str(term) for _, term in _numbered(given)]
    if len(terms) < 2:
        return None
    order = tuple(CHANNEL_TERMS.get(re.sub(r"[^a-z0-9]", "", t.lower()), "") for t in terms)
    if sorted(order) != sorted(MODALITIES):
        raise GliosliceError(
            f"{description}: has the modalities {', '.join(terms)}; FLAIR, T1w, T1gd and T2w are "
            "needed, each once"
        )
    return order


def _described_scheme(
    description: Path, default: LabelScheme
) -> tuple[LabelScheme, bool, tuple[str, ...]]:
    """Return the label scheme of dataset.json, whether it is known, and a warning if not.

    Raises GliosliceError if the labels are described, but as those of no scheme.
    """
    labels = _label_values(read_json(description).get("labels"))
    if not any(labels):
        note = f"{description}: names no labels; masks are taken as those of {default.edition}"
        return default, False, (note,)
    fitting = [
        scheme
        for scheme in SCHEMES
        if all(own in (None, value) for own, value in zip(labels, scheme.values, strict=True))
    ]
    if default in fitting:
        return default, True, ()
    if len(fitting) == 1:
        return fitting[0], True, ()
    names = zip(labels, ("core", "edema", "enhancing tumour"), strict=True)
    described = ", ".join(f"{value} {name}" for value, name in names if value is not None)
    known = "; ".join(
        f"{s.core} core, {s.edema} edema, {s.enhancing} enhancing ({s.edition})" for s in SCHEMES
    )
    raise GliosliceError(
        f"{description}: describes the labels {described}, which is not one edition of {known}"
    )


def _label_values(given: Any) -> tuple[int | None, ...]:
    """Return the values of core, edema and enhancing tumour, None for what is not described.

    `given` is {"1": "edema"} as in the Decathlon, {"edema": 1} or {"whole tumor": [1, 2, 3]} as in
    nnU-Net, or a list of names.
    """
    values: dict[str, set[int]] = {}
    for numbers, term in _numbered(given):
        if kind := _label_kind(str(term)):
            values.setdefault(kind, set()).update(numbers)
    whole, inner = values.get("whole"), values.get("tumour core")
    if whole and inner and "enhancing" in values:
        values |= {"edema": whole - inner, "core": inner - values["enhancing"]}
    found = (values.get(kind, set()) for kind in ("core", "edema", "enhancing"))
    return tuple(next(iter(one)) if len(one) == 1 else None for one in found)


def _label_kind(term: str) -> str:
    """Return which label or region a name means; empty for background and unknown names."""
    term = re.sub(r"[^a-z]", "", term.lower())
    if "edema" in term or term in ("ed", "snfh"):
        return "edema"
    if "whole" in term or term == "wt":
        return "whole"
    if "nonenhanc" in term or "necro" in term or term in ("ncr", "net", "netc"):
        return "core"
    if "enhanc" in term or term == "et":
        return "enhancing"
    return "tumour core" if "core" in term or term == "tc" else ""


def _numbered(given: Any) -> list[tuple[list[int], Any]]:
    """Return (numbers, name) from {"0": name}, {name: 0}, {name: [1, 2]} or [name, ...], sorted."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        return [([index], term) for index, term in enumerate(given)]
    if not isinstance(given, Mapping):
        return []
    pairs = []
    for key, value in given.items():
        if re.fullmatch(r"\d{1,4}", str(key)):
            pairs.append(([int(key)], value))
        else:
            numbers = value if isinstance(value, list) else [value]
            pairs.append(([n for n in numbers if isinstance(n, int)], key))
    return sorted(pairs, key=lambda pair: pair[0])


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
