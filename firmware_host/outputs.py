"""The files of a run: mask, montage and reports, each whole or not at all, never over another."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_host.confidence import quality_of
from firmware_host.inputs import Source
from firmware_host.mask_files import form_of, written
from firmware_host.mask_volume import Run
from firmware_host.report import html_of, warnings_of
from firmware_host.volumetry import Tally, csv_of
from glioslice.cli import one_line
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes, write_json
from glioslice.montage import montage_png
from glioslice.nifti import write_mask
from glioslice.summary import percentiles
from glioslice.wire.link import Counts
from glioslice.wire.messages import BoardHello, Mode

ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Targets:
    """Where a run's files go; `partial` is what remains of one that ended early.

    `form` names the labels of the mask (firmware_host.mask_files); None: those of the input.
    """

    mask: Path
    partial: Path
    montage: Path
    reports: tuple[Path, ...] = ()
    form: str | None = None

    @property
    def paths(self) -> list[Path]:
        """All files that a run may leave."""
        return [self.mask, self.partial, self.montage, *self.reports]

    def labels_for(self, source: Source) -> str:
        """Return the form of the mask of `source`."""
        return self.form or form_of(source.scheme)


def targets(
    mask: Path, montage: Path | None, reports: Sequence[Path] = (), form: str | None = None
) -> Targets:
    """Return the names of all files beside `mask`; raises GliosliceError for a wrong ending."""
    ending = next((e for e in ENDINGS if mask.name.endswith(e) and mask.name != e), None)
    if ending is None:
        raise GliosliceError(f"{mask}: a mask is written as .nii or .nii.gz")
    name = mask.name.removesuffix(ending)
    partial = mask.with_name(f"{name}.partial{ending}")
    return Targets(mask, partial, montage or mask.with_name(f"{name}.png"), tuple(reports), form)


def check_writable(files: Targets, force: bool) -> None:
    """Refuse before any work what would fail after it.

    Raises GliosliceError for a file that is there (unless `force`), a name used twice, and a
    folder that takes no file.
    """
    paths = files.paths
    if len({path.absolute() for path in paths}) < len(paths):
        raise GliosliceError("mask, montage and reports need names of their own")
    for path in paths:
        if path.is_dir():
            raise GliosliceError(f"{path}: this is a folder; name a file")
        if path.exists() and not force:
            what = " (kept from a run that ended early)" if path == files.partial else ""
            raise GliosliceError(
                f"{path}: is there already{what}; move it, name another --output, or add --force"
            )
        folder = next(p for p in path.absolute().parents if p.exists())
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise GliosliceError(
                f"{folder}: no file can be written here ({error.strerror}); name another folder"
            ) from None


def report_of(
    run: Run, source: Source, hello: BoardHello, counts: Counts, tally: Tally | None = None
) -> dict[str, Any]:
    """Return the report. Latencies are null where no mask arrived; a played case has no name.

    `tally` is kept by who asks again and again.
    """
    seconds, measured = run.seconds, run.milliseconds
    tally = (tally or Tally()).catch_up(run)
    return {
        "case": source.name,
        "complete": run.complete,
        "mode": run.mode.name.lower(),
        "images": run.images,
        "lossless": run.lossless,
        "slices": run.slices,
        "masks": run.masks,
        "seconds": round(seconds, 3),
        "slices_per_second": round(run.masks / seconds, 3) if seconds else 0.0,
        "device_ms": percentiles(measured) if measured else dict.fromkeys(("p50", "p90", "p99")),
        "bytes_up": counts.bytes_sent,
        "bytes_down": counts.bytes_received,
        "retransmits": counts.retransmits,
        "volumes_ml": tally.volumes_ml(),
        "diameters_mm": tally.diameters_mm(),
        "quality": quality_of(run, tally),
        "model": {"name": hello.model, "sha256": hello.sha256},
    }


def write_complete(files: Targets, run: Run, source: Source, report: dict[str, Any]) -> list[str]:
    """Write mask, montage and reports; return a line each for people.

    What an earlier run kept, and this one was allowed to overwrite, goes.
    """
    labels, form = run.labels(), files.labels_for(source)
    write_mask(files.mask, written(labels, form), source.space)
    files.partial.unlink(missing_ok=True)
    lines = [f"mask: {files.mask} ({form} labels)"]
    picture = None
    if source.images is None:
        lines.append("montage: none, the images are on the board")
    else:
        picture = montage_png(source.images, labels)
        write_bytes(files.montage, picture)
        lines.append(f"montage: {files.montage}")
    write_reports(files, run, source, report, picture)
    return lines + [f"report: {path}" for path in files.reports]


def write_reports(
    files: Targets,
    run: Run,
    source: Source,
    report: dict[str, Any],
    picture: bytes | None = None,
) -> None:
    """Write each report as its name ends: .html for people, .csv by slice, else JSON."""
    if not files.reports:
        return
    report = report | {"labels": files.labels_for(source)}
    report |= {"warnings": warnings_of(run, source, report)}
    tally = Tally().catch_up(run)
    for path in files.reports:
        match path.suffix.lower():
            case ".html":
                write_bytes(path, html_of(run, source, report, tally, picture).encode())
            case ".csv":
                write_bytes(path, csv_of(run, tally).encode())
            case _:
                write_json(path, report)


def keep_partial(files: Targets, run: Run, source: Source, report: dict[str, Any]) -> str:
    """Write what has arrived under the partial name; return what was kept, for people.

    A disk that takes nothing is told in that line: the reason of the early end comes first.
    """
    kept = f"none of {run.slices} masks had arrived"
    try:
        if run.masks:
            labels = written(run.labels(), files.labels_for(source))
            write_mask(files.partial, labels, source.space)
            kept = f"{run.masks} of {run.slices} masks are kept in {files.partial}"
        write_reports(files, run, source, report | {"complete": False})
    except OSError as error:
        return f"{kept}; could not write: {one_line(error)}"
    return kept


def failures(run: Run) -> str:
    """Return which slices the board failed on, with the first reason."""
    listed = ", ".join(str(index) for index in sorted(run.failed))
    reason = run.failed[min(run.failed)]
    where = "the board's case" if run.mode is Mode.PLAY else "the case"
    first = run.crop.z[0]
    return f"the board failed on slice {listed} of {where} (0 is Z {first}): {reason}"
