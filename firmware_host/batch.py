"""Stream all cases of a folder over one connection, one after the other.

    glioslice stream FOLDER --port auto --output masks

A case NAME leaves NAME-mask.nii.gz, NAME-mask.png, NAME-report.html and NAME-report.json in the
output folder, and a table of all cases is printed and written to summary.csv. A case is done if its
mask exists and its JSON, if there is one, is complete: it is then skipped, unless `--force`. So an
interrupted batch continues when it is run again.

A case that cannot be read, or on which the board fails, is reported, and the next one follows. A
lost link and files that cannot be written end the batch. The exit code is 2 if any case failed.
"""

import argparse
import csv
import io
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from firmware_host import handshake, interrupts, outputs, run
from firmware_host.mask_volume import DigestMismatch
from firmware_host.options import FarEnd
from firmware_host.outputs import OutputPaths
from firmware_host.progress import Reporter, open_reporter, reporting_end
from firmware_host.viewer.page import PageObserver, open_page
from glioslice.case_options import read_source
from glioslice.cases import Case, case_name, case_paths, input_paths, paths_by_name
from glioslice.cli import failure_line, one_line
from glioslice.dataset_layouts import NIFTI_SUFFIXES
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_text
from glioslice.labels import REGIONS
from glioslice.wire.connection import Connection
from glioslice.wire.link import LinkError
from glioslice.wire.messages import BoardHello, Mode
from glioslice.wire.ports import PortError

logger = logging.getLogger(__name__)

COMPLETE, BEFORE, FAILED, ENDED, WAITING = "complete", "done before", "failed", "ended", "waiting"
"""Done in this run; in an earlier one; failed; the batch ended in it; not reached."""

FOLDER = Path("masks")

TABLE = "summary.csv"

LINK_ERRORS = (LinkError, PortError, handshake.BoardFailed)
"""What ends a batch, because the next case could not start either."""

SINGLE_CASE_OPTIONS = ("report", "montage", "play", "record", "record_masks", "replay")


class CaseFailed(GliosliceError):
    """A case cannot be read, or cannot be streamed to this board."""


@dataclass(frozen=True)
class CaseRow:
    """A row of the table: the state of a case, and its numbers as far as known; volumes in mL."""

    case: str
    state: str = WAITING
    slices: int | None = None
    seconds: float | None = None
    volumes_ml: Mapping[str, float] | None = None
    dice: Mapping[str, float] | None = None
    error: str | None = None


@dataclass(frozen=True)
class CasePlan:
    """A case by its name, and where its outputs go."""

    name: str
    path: Path
    outputs: OutputPaths


def folder_cases(path: Path | None) -> list[Path] | None:
    """Return the cases of a folder of cases; None if `path` is one case, or None."""
    if path is None or not path.is_dir():
        return None
    try:
        paths = case_paths(path)
    except GliosliceError:  # reading the case raises the error that names the cause
        return None
    one = paths == [path] or (len(paths) == 1 and (path / "imagesTr").is_dir())
    return None if one else paths


def stream_folder(arguments: argparse.Namespace, far_end: FarEnd) -> None:
    """Stream all cases of the folder; raises GliosliceError at the end if any failed."""
    with open_reporter(arguments) as reporter:
        folder = arguments.output or FOLDER
        plans = plan_cases(arguments, folder)
        rows = {plan.name: previous_row(plan, arguments.force) for plan in plans}
        waiting = [plan for plan in plans if rows[plan.name].state != BEFORE]
        for plan in waiting:
            outputs.check_writable(plan.outputs, force=True)  # what exists ended early
        with (
            open_page(arguments.view, reporter) as page,
            reporting_end(reporter),
            table_at_the_end(rows, folder, reporter),
        ):
            if waiting:
                with run.connect_board(arguments, far_end) as (connection, hello):
                    warn_of_other_models(plans, rows, hello)
                    observer = PageObserver(page)
                    _stream_all(waiting, rows, connection, hello, arguments, reporter, observer)
            failed = sum(row.state == FAILED for row in rows.values())
            if failed:
                raise GliosliceError(f"{failed} of {len(rows)} cases failed; see the table")


def plan_cases(arguments: argparse.Namespace, folder: Path) -> list[CasePlan]:
    """Return the cases and where their outputs go.

    Raises GliosliceError for options that are for one case, for an unusable output folder, and for
    two cases of one name.
    """
    given = [name for name in SINGLE_CASE_OPTIONS if getattr(arguments, name)]
    if given:
        options = ", ".join("--" + name.replace("_", "-") for name in given)
        raise GliosliceError(
            f"{arguments.case}: is a folder of cases, but {options} is for one case; name one"
        )
    if folder.name.endswith(NIFTI_SUFFIXES) or folder.is_file():
        raise GliosliceError(f"{folder}: a folder of cases needs a folder as --output")
    plans = []
    named = ((case_name(path), path) for path in input_paths(arguments.case, folder))
    for name, path in paths_by_name(named).items():
        reports = [folder / f"{name}-report.json", folder / f"{name}-report.html"]
        mask = folder / outputs.default_mask(name)
        paths = outputs.output_paths(mask, None, reports, arguments.labels)
        plans.append(CasePlan(name, path, paths))
    return plans


def previous_row(plan: CasePlan, force: bool) -> CaseRow:
    """Return the row of a case from the files of an earlier run, WAITING if it is not done."""
    report: dict[str, Any] = {"complete": True}
    if plan.outputs.reports[0].exists():
        try:
            report = read_json(plan.outputs.reports[0])
        except GliosliceError:
            report = {}
    if force or not plan.outputs.mask.exists() or not report.get("complete"):
        return CaseRow(plan.name, WAITING)
    return case_row(plan.name, BEFORE, report)


def warn_of_other_models(
    plans: Iterable[CasePlan], rows: Mapping[str, CaseRow], hello: BoardHello
) -> None:
    """Warn if cases that were done before have masks of another model than the board's."""
    others = 0
    for plan in plans:
        if rows[plan.name].state == BEFORE and plan.outputs.reports[0].exists():
            model = read_json(plan.outputs.reports[0]).get("model")
            others += isinstance(model, dict) and model.get("sha256") != hello.sha256
    if others:
        logger.warning(
            "cases that were done before with another model than %s: %d; --force repeats them",
            hello.model, others,
        )  # fmt: skip


def case_row(case: str, state: str, report: Mapping[str, Any]) -> CaseRow:
    """Return the row of a case from its report, which may be empty."""
    names = ("slices", "seconds", "volumes_ml", "dice")
    return CaseRow(case, state, **{name: report.get(name) for name in names})


def _stream_all(
    waiting: list[CasePlan],
    rows: dict[str, CaseRow],
    connection: Connection,
    hello: BoardHello,
    arguments: argparse.Namespace,
    reporter: Reporter,
    observer: PageObserver,
) -> None:
    """Stream every waiting case; raises errors that would affect the next case too."""
    handshake.choose_mode(hello, play=False, has_case=True)
    handshake.make_host_hello(hello, Mode.SERVE, arguments.images)
    for number, plan in enumerate(waiting, 1):
        interrupts.raise_requested()  # one that came while the files of the last case were written
        reporter.progress(f"{plan.name}: case {number} of {len(waiting)}")
        if number > 1:  # the last case stays on the page
            observer.release_run()
        try:
            report = _stream_one(plan, connection, hello, arguments, reporter, observer)
        except (CaseFailed, run.SlicesFailed, run.OutputsFailed, DigestMismatch) as error:
            rows[plan.name] = CaseRow(plan.name, FAILED, error=one_line(error))
            print(f"{plan.name}: {one_line(error)}", file=sys.stderr, flush=True)
            if isinstance(error, CaseFailed):
                continue  # the session has not started a run
        except (GliosliceError, OSError, run.Interrupted) as error:
            interrupted = isinstance(error, run.Interrupted)
            reason = "interrupted" if interrupted else one_line(error)
            rows[plan.name] = CaseRow(plan.name, ENDED, error=reason)
            raise
        else:
            rows[plan.name] = case_row(plan.name, COMPLETE, report)
        hello = replace(hello, kept=0, answered=0)  # only a session's first run can be resumed
    interrupts.raise_requested()


def _stream_one(
    plan: CasePlan,
    connection: Connection,
    hello: BoardHello,
    arguments: argparse.Namespace,
    reporter: Reporter,
    observer: PageObserver,
) -> dict[str, Any]:
    """Stream one case and return its report; the images are freed before the next case is read.

    Raises CaseFailed, one of LINK_ERRORS, and what `finish_stream` raises.
    """
    try:
        case = read_planned(plan, arguments)
        job = run.start_stream(connection, hello, case, arguments, reporter)
    except LINK_ERRORS:
        raise
    except GliosliceError as error:
        reason = one_line(error)
        reporter.event("case", case=plan.name, state=FAILED, error=reason, files=[], report=None)
        raise CaseFailed(reason) from error
    return run.finish_stream(
        connection, job, plan.outputs, arguments.baud, reporter, observer
    ).report


def read_planned(plan: CasePlan, arguments: argparse.Namespace) -> Case:
    """Return a case; raises CaseFailed or another GliosliceError if it cannot be read."""
    try:
        return read_source(plan.path, arguments)
    except GliosliceError:
        raise
    except Exception as error:  # a batch never ends because of one case
        if arguments.debug and not isinstance(error, OSError):
            raise
        raise CaseFailed(failure_line(error)) from error


@contextmanager
def table_at_the_end(rows: dict[str, CaseRow], folder: Path, reporter: Reporter) -> Iterator[None]:
    """Print and write the table of all cases, however the block ends."""
    try:
        yield
    finally:
        with interrupts.deferred():
            reporter.result(*format_cases(rows.values()))
            reporter.event("table", cases=[asdict(row) for row in rows.values()])
            try:
                write_text(folder / TABLE, format_csv(rows.values()))
                reporter.result(f"table: {folder / TABLE}")
            except OSError as error:  # the error that ended the batch is raised
                print(one_line(error), file=sys.stderr, flush=True)
    interrupts.raise_requested()


def format_cases(rows: Iterable[CaseRow]) -> list[str]:
    """Return the lines of the table."""
    listed = list(rows)
    width = max((len(row.case) for row in listed), default=4)
    scored = any(row.dice for row in listed)
    heads = [f"{'case':{width}}  {'state':11}{'slices':>7}{'s':>8}"]
    heads += [f"{region + ' mL':>9}" for region in REGIONS]
    heads += [f"{'Dice ' + region:>9}" for region in REGIONS if scored]
    lines = ["".join(heads)]
    for row in listed:
        cells = [f"{row.case:{width}}  {row.state:11}{_cell(row.slices, 'd'):>7}"]
        cells += [f"{_cell(row.seconds, '.1f'):>8}"]
        cells += [f"{_cell((row.volumes_ml or {}).get(r), '.1f'):>9}" for r in REGIONS]
        cells += [f"{_cell((row.dice or {}).get(r), '.3f'):>9}" for r in REGIONS if scored]
        lines.append("".join(cells))
    return lines


def format_csv(rows: Iterable[CaseRow]) -> str:
    """Return the table as CSV; cells are empty where a number is not known."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = [f"{r}_{what}" for what in ("ml", "dice") for r in REGIONS]
    writer.writerow(["case", "state", "slices", "seconds", *names, "error"])
    for row in rows:
        numbers = [*((row.volumes_ml or {}).get(r) for r in REGIONS)]
        numbers += [(row.dice or {}).get(r) for r in REGIONS]
        writer.writerow([row.case, row.state, row.slices, row.seconds, *numbers, row.error])
    return file.getvalue()


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
