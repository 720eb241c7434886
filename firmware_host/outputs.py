"""The files of a run: mask, montage and reports. Each is written whole or not at all."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from firmware_host.inputs import StreamedCase
from firmware_host.mask_files import encode_labels, scheme_name
from firmware_host.mask_volume import MaskVolume
from firmware_host.report import render_html, report_warnings
from firmware_host.volumetry import Volumetry, format_numbers, slices_csv, summarize_confidence
from glioslice import __version__
from glioslice.cli import one_line
from glioslice.errors import GliosliceError
from glioslice.files import NOTICE, check_file, write_bytes, write_json, write_text
from glioslice.metrics import percentiles
from glioslice.montage import montage_png
from glioslice.nifti import write_mask
from glioslice.wire.link import Counts
from glioslice.wire.messages import BoardHello, Mode

ENDINGS = (".nii.gz", ".nii")
REPORT_ENDINGS = (".html", ".csv", ".json")


@dataclass(frozen=True)
class OutputPaths:
    """Where the files of a run go; `partial` is the mask of one that ended early.

    `scheme` names the label scheme of the mask (firmware_host.mask_files); None: the input's.
    `replaces` says that the mask existed when the run was planned.
    """

    mask: Path
    partial: Path
    montage: Path
    reports: tuple[Path, ...] = ()
    scheme: str | None = None
    replaces: bool = False

    @property
    def all(self) -> list[Path]:
        """All files that a run may write."""
        return [self.mask, self.partial, self.montage, *self.reports]

    def scheme_for(self, case: StreamedCase) -> str:
        """Return the label scheme of the mask of `case`."""
        return self.scheme or scheme_name(case.scheme)


def default_mask(case_name: str | None) -> Path:
    """Return the default name of the mask of a case; None where its name is not known."""
    return Path(f"{case_name}-mask.nii.gz" if case_name else "mask.nii.gz")


def output_paths(
    mask: Path, montage: Path | None, reports: Sequence[Path] = (), scheme: str | None = None
) -> OutputPaths:
    """Return the names of all files beside `mask`; raises GliosliceError for a wrong ending."""
    ending = next((e for e in ENDINGS if mask.name.endswith(e) and mask.name != e), None)
    if ending is None:
        raise GliosliceError(f"{mask}: a mask is written as .nii or .nii.gz")
    for report in reports:
        if report.suffix.lower() not in REPORT_ENDINGS:
            raise GliosliceError(f"{report}: a report is written as {', '.join(REPORT_ENDINGS)}")
    if montage and montage.suffix.lower() != ".png":
        raise GliosliceError(f"{montage}: a montage is written as .png")
    name = mask.name.removesuffix(ending)
    partial = mask.with_name(f"{name}.partial{ending}")
    montage = montage or mask.with_name(f"{name}.png")
    return OutputPaths(mask, partial, montage, tuple(reports), scheme, mask.exists())


def check_writable(paths: OutputPaths, force: bool) -> None:
    """Check before the run that its files can be written after it.

    Raises GliosliceError for a file that exists (unless `force`), a name that is used twice, and
    a folder in which no file can be created.
    """
    if len({path.absolute() for path in paths.all}) < len(paths.all):
        raise GliosliceError("mask, montage and reports need different names")
    for path in paths.all:
        if path.exists() and not force:
            what = " (from a run that ended early)" if path == paths.partial else ""
            raise GliosliceError(
                f"{path}: already exists{what}; move it, name another --output, or add --force"
            )
        check_file(path)


def make_run_report(
    masks: MaskVolume,
    case: StreamedCase,
    hello: BoardHello,
    counts: Counts,
    volumetry: Volumetry | None = None,
) -> dict[str, Any]:
    """Return the report. Latencies are None before the first mask; a played case has no name.

    A caller that needs reports repeatedly keeps `volumetry`, so that no slice is measured twice.
    """
    seconds, latencies = masks.seconds, list(masks.milliseconds.values())
    volumetry = (volumetry or Volumetry()).update(masks)
    return {
        "case": case.name,
        "complete": masks.complete,
        "mode": masks.mode.name.lower(),
        "images": masks.image_codec,
        "lossless": masks.lossless,
        "slices": masks.slice_count,
        "masks": masks.mask_count,
        "seconds": round(seconds, 3),
        "slices_per_second": round(masks.mask_count / seconds, 3) if seconds else 0.0,
        "device_ms": percentiles(latencies) if latencies else dict.fromkeys(("p50", "p90", "p99")),
        "bytes_up": counts.bytes_sent,
        "bytes_down": counts.bytes_received,
        "retransmits": counts.retransmits,
        "volumes_ml": volumetry.volumes_ml(),
        "diameters_mm": volumetry.diameters_mm(),
        "quality": summarize_confidence(masks, volumetry),
        "model": {"name": hello.model, "sha256": hello.sha256, "kernels": hello.kernels},
        "mirroring": hello.mirroring,
        "missing": list(case.missing),
        "postprocessing": None,
    }


def compose_report(
    paths: OutputPaths,
    masks: MaskVolume,
    case: StreamedCase,
    hello: BoardHello,
    counts: Counts,
    known: dict[str, Any],
) -> dict[str, Any]:
    """Return the report of a run that is over, as it is written to JSON.

    `known` are its dice, None without ground truth, and what postprocessing changed.
    """
    report = make_run_report(masks, case, hello, counts) | {
        **known,
        "labels": paths.scheme_for(case),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": __version__,
        "shape": list(case.space.shape),
        "affine": np.round(case.space.affine, 4).tolist(),
    }
    return report | {"warnings": report_warnings(masks, case, report), "notice": NOTICE}


def write_outputs(
    paths: OutputPaths, masks: MaskVolume, case: StreamedCase, report: dict[str, Any]
) -> list[str]:
    """Write montage, reports and mask; return a line for each.

    The mask is written last: a folder's case is done once it exists. The partial mask of an
    earlier run is deleted. Raises FileExistsError for a mask that another program wrote meanwhile.
    """
    if paths.mask.exists() and not paths.replaces:
        reason = "was written by another program during this run"
        raise FileExistsError(errno.EEXIST, reason, str(paths.mask))
    paths.mask.unlink(missing_ok=True)  # an older one and this run's report would count as done
    labels, scheme = masks.labels(), paths.scheme_for(case)
    lines = [f"mask: {paths.mask} ({scheme} labels)"]
    picture = None
    if case.images is None:
        lines.append("montage: none, because the images are on the board")
    else:
        picture = montage_png(case.images, labels)
        write_bytes(paths.montage, picture)
        lines.append(f"montage: {paths.montage}")
    write_reports(paths, masks, case, report, picture)
    write_mask(paths.mask, encode_labels(labels, scheme), case.space)
    paths.partial.unlink(missing_ok=True)
    return lines + [f"report: {path}" for path in paths.reports]


def write_reports(
    paths: OutputPaths,
    masks: MaskVolume,
    case: StreamedCase,
    report: dict[str, Any],
    picture: bytes | None = None,
) -> None:
    """Write each report in the format of its ending: .html, .csv by slice, .json."""
    if not paths.reports:
        return
    volumetry = Volumetry().update(masks)
    for path in paths.reports:
        match path.suffix.lower():
            case ".html":
                write_text(path, render_html(masks, case, report, volumetry, picture))
            case ".csv":
                write_text(path, slices_csv(masks, volumetry))
            case _:
                write_json(path, report)


def write_partial(
    paths: OutputPaths, masks: MaskVolume, case: StreamedCase, report: dict[str, Any]
) -> str:
    """Write the masks received so far under the partial name; return what was kept.

    If that fails too, the returned line reports it; the reason of the early end is more important.
    """
    kept = f"none of {masks.slice_count} masks had arrived"
    try:
        if masks.mask_count:
            kept = f"{masks.mask_count} of {masks.slice_count} masks had arrived and are lost"
            labels = encode_labels(masks.labels(), paths.scheme_for(case))
            write_mask(paths.partial, labels, case.space)
            kept = f"{masks.mask_count} of {masks.slice_count} masks are kept in {paths.partial}"
        write_reports(paths, masks, case, report)
    except Exception as error:  # even a defect here must not hide that reason
        return f"{kept}; could not write: {one_line(error)}"
    return kept


def describe_failures(masks: MaskVolume) -> str:
    """Return which slices the board failed on, with the first reason."""
    listed = format_numbers([masks.number(index) for index in sorted(masks.failed)])
    reason = masks.failed[min(masks.failed)]
    where = "the board's case" if masks.mode is Mode.PLAY else "the case"
    return f"the board failed on {listed} of {where}: {reason}"
