"""From a scanner's folder to a DICOM segmentation: prepare, stream, restore.

    glioslice stream SERIES_FOLDER --port auto --dicom-out result

`result/` then holds the prepared case, the mask and montage of the run, and the mask on the frames
of T1ce and FLAIR as NIfTI and DICOM SEG.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

from firmware_host import outputs, run
from firmware_host.mask_files import read_mask
from firmware_host.options import FarEnd
from firmware_host.progress import open_reporter
from glioslice.dataset_layouts import MODALITIES, nifti_files
from glioslice.errors import GliosliceError

MAGIC = b"DICM"
MAGIC_AT = 128
"""DICOM's PS3.10: a preamble of 128 bytes, then this."""

CASE = "case"
"""Name of the case: a folder's name may hold the patient's."""


def holds_series(folder: Path | None) -> bool:
    """Return whether a folder holds DICOM files, at any depth, and no NIfTI files."""
    if folder is None or not folder.is_dir() or nifti_files(folder):
        return False
    return any(_is_dicom(path) for path in sorted(folder.rglob("*")) if path.is_file())


def stream_series(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Prepare a study, stream its case, and bring the mask back; raises GliosliceError."""
    if find_spec("scanner") is None:
        raise GliosliceError(
            f"{arguments.case}: holds DICOM series, which need a checkout of glioslice with the "
            "extra scanner; here only a prepared case can be streamed"
        )
    from scanner import NOTICE, check_installed

    check_installed()
    from scanner.brain_extraction import DEEPBET
    from scanner.case_files import check_free, write_case
    from scanner.pipeline import prepare_case
    from scanner.prepare import load_study, show_progress
    from scanner.restore import restore_case

    folder = arguments.dicom_out
    if folder is None:
        raise GliosliceError(
            f"{arguments.case}: holds DICOM series; name --dicom-out DIR for the results"
        )
    case, mask = folder / CASE, arguments.output or folder / "mask.nii.gz"
    check_free(case, force=arguments.force)
    paths = outputs.output_paths(mask, arguments.montage, arguments.report, arguments.labels)
    outputs.check_writable(paths, arguments.force)
    given = {m: str(getattr(arguments, m)) for m in MODALITIES if getattr(arguments, m)}
    sources, link = load_study(arguments.case, given, arguments.study)
    prepared = prepare_case(sources, arguments.brain_extraction or DEEPBET, show_progress)
    write_case(case, prepared, force=arguments.force)
    arguments.case, arguments.output = case, mask
    vars(arguments).update(dict.fromkeys(MODALITIES))  # they named series; now CASE is named
    run.stream_case(arguments, far_end)
    labels, _, _ = read_mask(mask, arguments.labels)
    files = restore_case(labels, case, folder, link, force=arguments.force)
    with open_reporter(arguments) as reporter:
        reporter.result(*(f"mask on the source: {path}" for path in files), NOTICE)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC
