"""Segment an archive of cases: by parts, or on a Dask cluster, with one table at the end.

    glioslice segment ARCHIVE --out MASKS --part 3/16    # one of sixteen processes, on any machine
    glioslice segment ARCHIVE --out MASKS --dask         # one process per core of this machine
    glioslice segment ARCHIVE --out MASKS --summary      # merge what is done into summary.csv

A case NAME leaves NAME-mask.nii.gz, NAME-mask.png and last NAME-result.json, the row of the table.
It is done once that file says so for this model; a process that is killed leaves cases without it,
and running the same part again does exactly those. Every file is written whole or not at all, and
always with the same bytes, so parts may be repeated, may overlap and may run side by side.
"""

import argparse
import csv
import io
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from device.engine import Engine
from device.segment import find_paths, segment
from glioslice import cli
from glioslice.cases import find_case, read_case
from glioslice.cluster import in_part, map_on_dask
from glioslice.errors import GliosliceError
from glioslice.files import check_folder, read_json, sha256, write_bytes, write_json
from glioslice.labels import REGIONS, to_scheme
from glioslice.metrics import region_dice, volumes_ml
from glioslice.model_card import find_model
from glioslice.montage import write_montage
from glioslice.nifti import write_mask

logger = logging.getLogger(__name__)

TABLE = "summary.csv"

COMPLETE, FAILED, MISSING = "complete", "failed", "missing"

ABANDONED = 3600.0
"""Seconds after which a temporary file is that of a process which was killed."""


@dataclass(frozen=True)
class ArchiveCase:
    """A case by its name, which is known without reading its volumes."""

    name: str
    path: Path


@dataclass(frozen=True)
class CaseResult:
    """The row of a case; volumes in mL, Dice (vs. ground truth) where there is one."""

    case: str
    state: str
    slices: int | None = None
    seconds: float | None = None
    volumes_ml: dict[str, float] | None = None
    dice: dict[str, float] | None = None
    model: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class ArchiveRun:
    """What every case of a run has in common; it is pickled for the workers of a cluster."""

    out: Path
    model: Path
    digest: str
    threads: int = 1
    delegate: str | None = None
    force: bool = False
    raw: bool = False
    mirroring: bool | None = None
    missing: tuple[str, ...] = ()
    orientation: str | None = None
    edition: str | None = None

    @property
    def method(self) -> str:
        """The model and the options that change masks: only the same method's results are done."""
        options = [
            *(["raw"] if self.raw else []),
            *(["no mirroring"] if self.mirroring is False else []),
            *(["without " + ", ".join(self.missing)] if self.missing else []),
        ]
        return "; ".join([self.digest, *options])


def run_archive(arguments: argparse.Namespace) -> None:
    """Do what --part, --dask or --summary asks; raises GliosliceError if a case failed."""
    given: list[Path] = [*arguments.cases, *arguments.input]
    if not given:
        raise GliosliceError("--part, --dask and --summary need a folder of cases")
    cases = list_cases(given)
    out: Path = arguments.out.absolute()  # workers run elsewhere
    if arguments.summary:
        write_summary(cases, out)
        return
    check_folder(out)
    model = find_model(arguments.model).absolute()
    run = ArchiveRun(
        out,
        model,
        sha256(model),
        arguments.threads,
        arguments.delegate,
        arguments.force,
        arguments.raw,
        False if arguments.no_mirroring else None,
        tuple(sorted(arguments.missing)),
        arguments.orientation,
        arguments.edition,
    )
    load_engine(run)  # a wrong model or runtime is reported once, before the first case
    if arguments.part:
        cases = [case for case in cases if in_part(case.name, arguments.part)]
    waiting = [case for case in cases if run.force or not is_done(run, case.name)]
    print(f"{len(cases)} cases, {len(cases) - len(waiting)} done before", flush=True)
    failed = 0
    for number, result in enumerate(_results(run, waiting, arguments.dask), 1):
        state = result.state if result.error is None else f"error: {result.error}"
        stream = sys.stdout if result.error is None else sys.stderr
        print(f"{result.case}: {state} ({number} of {len(waiting)})", file=stream, flush=True)
        failed += result.state == FAILED
    if failed:
        raise GliosliceError(f"{failed} of {len(cases)} cases failed; run the same command again")


def _results(
    run: ArchiveRun, cases: Sequence[ArchiveCase], scheduler: str | None
) -> Iterable[CaseResult]:
    function = partial(segment_one, run)
    if scheduler is None:
        yield from map(function, cases)
        return
    for case, result in map_on_dask(function, cases, scheduler):
        if isinstance(result, OSError):
            raise result  # a full disk is full for every case
        if isinstance(result, Exception):
            result = CaseResult(case.name, FAILED, error=cli.one_line(result))
        yield result


def list_cases(given: Sequence[Path]) -> list[ArchiveCase]:
    """Return the cases sorted by name; raises GliosliceError if two have the same name."""
    found: dict[str, Path] = {}
    for path in find_paths(given):
        name = _name(path)
        if name in found:
            raise GliosliceError(
                f"{path}: has the name of {found[name]}, whose mask it would overwrite"
            )
        found[name] = path
    return [ArchiveCase(name, found[name].absolute()) for name in sorted(found)]


def _name(path: Path) -> str:
    try:
        return find_case(path).name
    except GliosliceError:  # incomplete: its error is reported when it is its turn
        return path.name


def result_path(out: Path, name: str) -> Path:
    """Return where the row of a case is kept."""
    return out / f"{name}-result.json"


def is_done(run: ArchiveRun, name: str) -> bool:
    """Return whether a case was segmented by the same model."""
    result = read_result(run.out, name)
    return result is not None and result.state == COMPLETE and result.model == run.method


def read_result(out: Path, name: str) -> CaseResult | None:
    """Return the row of a case; None if there is none, or its mask is missing."""
    try:
        result = CaseResult(**read_json(result_path(out, name)))
    except (GliosliceError, TypeError):
        return None
    if result.state == COMPLETE and not (out / f"{name}-mask.nii.gz").is_file():
        return None
    return result


@lru_cache(maxsize=1)
def load_engine(run: ArchiveRun) -> Engine:
    """Return the engine of this process, loaded once."""
    return Engine(run.model, threads=run.threads, delegate=run.delegate, mirroring=run.mirroring)


def segment_one(run: ArchiveRun, case: ArchiveCase) -> CaseResult:
    """Segment a case and write its files, the row last; a case that cannot be read is a row too.

    Raises OSError for files that cannot be written.
    """
    try:
        started = time.monotonic()
        read = read_case(case.path, run.missing, orientation=run.orientation, labels=run.edition)
        result = segment(read.volumes, load_engine(run), raw=run.raw)
    except (GliosliceError, OSError) as error:
        row = CaseResult(case.name, FAILED, model=run.method, error=cli.one_line(error))
    else:
        mask = run.out / f"{case.name}-mask.nii.gz"
        write_mask(mask, to_scheme(result.labels, read.scheme), read.space)
        write_montage(mask.with_name(f"{case.name}-mask.png"), read.volumes, result.labels)
        row = CaseResult(
            case.name,
            COMPLETE,
            len(result.milliseconds),
            round(time.monotonic() - started, 3),
            volumes_ml(result.labels),
            None if read.labels is None else region_dice(result.labels, read.labels),
            run.method,
        )
    write_json(result_path(run.out, case.name), asdict(row))
    return row


def write_summary(cases: Sequence[ArchiveCase], out: Path) -> None:
    """Write the table of all cases to summary.csv.

    Raises GliosliceError, after it is written, if cases are missing or failed, or if they were
    segmented by different models.
    """
    results = [read_result(out, case.name) or CaseResult(case.name, MISSING) for case in cases]
    write_bytes(out / TABLE, format_table(results).encode())
    counts = {state: sum(one.state == state for one in results) for state in (FAILED, MISSING)}
    done = len(results) - sum(counts.values())
    for path in abandoned_files(out):
        logger.info("%s: removed, left by a process that was killed", path)
        path.unlink(missing_ok=True)
    print(f"{done} of {len(results)} cases are segmented\ntable: {out / TABLE}")
    models = {one.model for one in results if one.state == COMPLETE}
    if len(models) > 1:
        raise GliosliceError(
            f"{out}: masks of {len(models)} different models or options; run all parts with one"
        )
    if done < len(results):
        wrong = " and ".join(f"{count} {state}" for state, count in counts.items() if count)
        raise GliosliceError(f"{wrong}: see {out / TABLE}; run the parts again")


def abandoned_files(out: Path) -> list[Path]:
    """Return the temporary files of processes that were killed more than an hour ago."""
    limit = time.time() - ABANDONED
    return [path for path in sorted(out.glob(".*-*-*.*")) if path.stat().st_mtime < limit]


def format_table(results: Iterable[CaseResult]) -> str:
    """Return the table as CSV; cells are empty where a number is not known."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{region}_{what}" for what in ("ml", "dice") for region in REGIONS]
    writer.writerow(["case", "state", "slices", "seconds", *names, "error"])
    for one in results:
        groups: tuple[dict[str, Any], ...] = (one.volumes_ml or {}, one.dice or {})
        numbers = [group.get(region) for group in groups for region in REGIONS]
        writer.writerow([one.case, one.state, one.slices, one.seconds, *numbers, one.error])
    return file.getvalue()
