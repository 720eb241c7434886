"""File layouts of the data sets, recognised by file names.

    BraTS 2018-2021   CASE/CASE_{flair,t1,t1ce,t2,seg}.nii.gz        labels 1, 2, 4
    BraTS 2023+       CASE/CASE-{t2f,t1n,t1c,t2w,seg}.nii.gz         labels 1, 2, 3
    Decathlon Task01  imagesTr/CASE.nii.gz (4-D), labelsTr/, dataset.json   labels 2, 1, 3

Suffixes may be upper or lower case, files `.nii` or `.nii.gz`. The mask is optional.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.labels import BRATS_2018, BRATS_2023, DECATHLON, LabelScheme

MODALITIES = ("flair", "t1", "t1ce", "t2")
MASK = "seg"

SUFFIXES: Mapping[str, tuple[str, LabelScheme]] = {
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
}
FILE_NAME = re.compile(rf"(?P<case>.+)(?P<suffix>{'|'.join(SUFFIXES)})\.nii(\.gz)?", re.IGNORECASE)
NIFTI_SUFFIXES = (".nii", ".nii.gz")


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case: one per modality, or one 4-D file for all; `mask` may be None.

    `images` lacks the modalities that are missing (`glioslice.missing_modalities`).
    """

    name: str
    scheme: LabelScheme
    images: Mapping[str, Path]
    mask: Path | None


def nifti_files(folder: Path) -> list[Path]:
    """Return the NIfTI files of a folder, sorted, without hidden ones."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(NIFTI_SUFFIXES) and not path.name.startswith(".")
    )


def brats_case(folder: Path) -> CaseFiles:
    """Return the files of a BraTS case, of any year.

    Raises GliosliceError if the folder holds no case, or a modality is present twice.
    """
    found: dict[LabelScheme, dict[str, Path]] = {}
    for path in nifti_files(folder):
        if match := FILE_NAME.fullmatch(path.name):
            kind, scheme = SUFFIXES[match["suffix"].lower()]
            files = found.setdefault(scheme, {})
            if kind in files:
                raise GliosliceError(f"{path}: {kind} is present twice, also as {files[kind].name}")
            files[kind] = path
    if not found:
        raise GliosliceError(
            f"{folder}: no case; expected CASE_flair, _t1, _t1ce, _t2 (BraTS 2018-2021) or "
            "CASE-t2f, -t1n, -t1c, -t2w (BraTS 2023 and later) as .nii or .nii.gz"
        )
    if len(found) > 1:
        raise GliosliceError(f"{folder}: mixes the file names of BraTS 2018-2021 and BraTS 2023")
    [(scheme, files)] = found.items()
    mask = files.pop(MASK, None)
    if not files:
        raise GliosliceError(f"{folder}: has a mask and no image")
    return CaseFiles(folder.resolve().name, scheme, files, mask)


def decathlon_case(image: Path) -> CaseFiles:
    """Return the files of a Decathlon case, given its 4-D image; the mask lies in labelsTr/.

    Raises GliosliceError if it is not a NIfTI file, or dataset.json describes another task.
    """
    if not image.name.lower().endswith(NIFTI_SUFFIXES):
        raise GliosliceError(f"{image}: a case is a folder, or a 4-D NIfTI file of the Decathlon")
    _check_decathlon(image.parent.parent / "dataset.json")
    mask = image.parent.parent / "labelsTr" / image.name
    return CaseFiles(
        name=re.sub(r"\.nii(\.gz)?$", "", image.name, flags=re.IGNORECASE),
        scheme=DECATHLON,
        images=dict.fromkeys(MODALITIES, image),
        mask=mask if mask.is_file() else None,
    )


def _check_decathlon(description: Path) -> None:
    """Check that `dataset.json`, if present, gives modalities and labels as Task01 does."""
    if not description.is_file():
        return
    content = read_json(description)
    order = [str(m).lower() for _, m in sorted(content.get("modality", {}).items())]
    if order != ["flair", "t1w", "t1gd", "t2w"]:
        raise GliosliceError(f"{description}: modalities {order}, Task01 has FLAIR, T1w, T1gd, T2w")
    if str(content.get("labels", {}).get("1", "")).lower() not in ("edema", "oedema"):
        raise GliosliceError(f"{description}: label 1 is not edema, as it is in Task01")
