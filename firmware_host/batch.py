"""The table of a batch: what became of each case, for people and as CSV.

All cases of a folder over one line, one after the other, and a table of them at the end.

    python firmware_host/stream.py --port auto --input DIR --output masks

A case NAME leaves NAME.nii.gz, NAME.png, NAME.html and NAME.json in the output folder. It is done
if its mask is there and its JSON, where there is one, says complete: it is then passed over, unless
`--force`. So a batch that was interrupted, or whose line was lost, goes on when it is run again.

A case that cannot be read, or on which the board fails, gets a line, and the next one follows. A
line that is lost and files that cannot be written end the batch. Exit code 2 if any case failed.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from firmware_host import handshake, outputs, run
from firmware_host.mask_volume import DigestWrong
from firmware_host.outputs import Targets
from firmware_host.progress import Teller, ending, teller_of
from firmware_host.viewer.observer import Watcher, watching
from glioslice.cases import Case, find_case, read_case
from glioslice.cli import one_line
from glioslice.dataset_layouts import NIFTI_ENDINGS, niftis
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_bytes
from glioslice.labels import REGIONS
from glioslice.wire.connection import Connection
from glioslice.wire.link import LinkError
from glioslice.wire.messages import BoardHello, Mode
from glioslice.wire.ports import PortError

COMPLETE, BEFORE, FAILED, ENDED, WAITING = "complete", "done before", "failed", "ended", "waiting"
"""Done now; done by an earlier run; bad; the batch ended in it; the batch did not come to it."""


@dataclass(frozen=True)
class Row:
    """A case: what became of it, and numbers as far as they are known; volumes in mL."""

    case: str
    state: str = WAITING
    slices: int | None = None
    seconds: float | None = None
    volumes_ml: Mapping[str, float] | None = None
    dice: Mapping[str, float] | None = None
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the row for a program."""
        return asdict(self)


def row_of(case: str, state: str, report: Mapping[str, Any]) -> Row:
    """Return the row of a case that has a report, or an empty one."""
    names = ("slices", "seconds", "volumes_ml", "dice")
    return Row(case, state, **{name: report.get(name) for name in names})


def table_of(rows: Iterable[Row]) -> list[str]:
    """Return the lines of the table for people."""
    listed = list(rows)
    wide = max((len(row.case) for row in listed), default=4)
    scored = any(row.dice for row in listed)
    heads = [f"{'case':{wide}}  {'state':11}{'slices':>7}{'s':>8}"]
    heads += [f"{region + ' mL':>9}" for region in REGIONS]
    heads += [f"{'Dice ' + region:>9}" for region in REGIONS if scored]
    lines = ["".join(heads)]
    for row in listed:
        cells = [f"{row.case:{wide}}  {row.state:11}{_cell(row.slices, 'd'):>7}"]
        cells += [f"{_cell(row.seconds, '.1f'):>8}"]
        cells += [f"{_cell((row.volumes_ml or {}).get(r), '.1f'):>9}" for r in REGIONS]
        cells += [f"{_cell((row.dice or {}).get(r), '.3f'):>9}" for r in REGIONS if scored]
        lines.append("".join(cells))
    return lines


def csv_of(rows: Iterable[Row]) -> str:
    """Return the table as CSV; empty where a number is not known."""
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


FOLDER = Path("masks")

TABLE = "summary.csv"

LINE = (LinkError, PortError, handshake.BoardFailed)
"""What ends a batch: the next case could not begin either."""


class CaseFailed(GliosliceError):
    """A case cannot be read, or not be streamed to this board."""


@dataclass(frozen=True)
class Plan:
    """A case by the name of its folder or file, and where its outputs go."""

    name: str
    path: Path
    files: Targets


def cases_in(path: Path | None) -> list[Path] | None:
    """Return the cases of a folder of cases; None where `path` is one case, or none at all."""
    if path is None or not path.is_dir() or niftis(path):
        return None
    if (path / "imagesTr").is_dir():
        images = niftis(path / "imagesTr")
        return images if len(images) > 1 else None
    inside = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [p for p in inside if niftis(p) or (p / "imagesTr").is_dir()] or None


def work(arguments: argparse.Namespace, far_end: run.FarEnd) -> None:
    """Work through the folder; raises GliosliceError at the end if a case failed."""
    teller = teller_of(arguments)
    with ending(teller):
        folder = arguments.output or FOLDER
        plans = planned(arguments, folder)
        rows = {plan.name: row_before(plan, arguments.force) for plan in plans}
        waiting = [plan for plan in plans if rows[plan.name].state != BEFORE]
        for plan in waiting:
            outputs.check_writable(plan.files, force=True)  # what is there ended early
        with (
            watching(arguments.view, teller) as watcher,
            ending(teller),
            _summed_up(rows, folder, teller),
        ):
            if waiting:
                with run.at_the_board(arguments, far_end, watcher) as (line, hello):
                    _work_through(waiting, rows, line, hello, arguments, teller, watcher)
            failed = sum(row.state == FAILED for row in rows.values())
            if failed:
                raise GliosliceError(f"{failed} of {len(rows)} cases failed; the table names them")


def planned(arguments: argparse.Namespace, folder: Path) -> list[Plan]:
    """Return the cases and where their outputs go.

    Raises GliosliceError for words that are for one case, and an output folder that cannot be.
    """
    single = ("report", "montage", "play", "record", "record_masks", "replay")
    given = [name for name in single if getattr(arguments, name)]
    if given:
        words = ", ".join("--" + name.replace("_", "-") for name in given)
        raise GliosliceError(
            f"{arguments.input}: holds several cases, {words} is for one; name one as --input"
        )
    if folder.name.endswith(NIFTI_ENDINGS) or folder.is_file():
        raise GliosliceError(f"{folder}: several cases need a folder as --output")
    if folder.resolve() == arguments.input.resolve():
        raise GliosliceError(
            f"{folder}: masks among the cases would be taken for one; name another"
        )
    plans = []
    for path in cases_in(arguments.input) or []:
        if path.resolve() == folder.resolve():
            continue  # that of an earlier run
        name = path.name if path.is_dir() else path.name[: path.name.lower().rindex(".nii")]
        reports = [folder / f"{name}.json", folder / f"{name}.html"]
        files = outputs.targets(folder / f"{name}.nii.gz", None, reports, arguments.labels)
        plans.append(Plan(name, path, files))
    return plans


def row_before(plan: Plan, force: bool) -> Row:
    """Return what the table says of a case that is done, or has to be."""
    report: dict[str, Any] = {"complete": True}
    if plan.files.reports[0].exists():
        try:
            report = read_json(plan.files.reports[0])
        except GliosliceError:
            report = {}
    if force or not plan.files.mask.exists() or not report.get("complete"):
        return Row(plan.name, WAITING)
    return row_of(plan.name, BEFORE, report)


def _work_through(
    waiting: list[Plan],
    rows: dict[str, Row],
    line: Connection,
    hello: BoardHello,
    arguments: argparse.Namespace,
    teller: Teller,
    watcher: Watcher,
) -> None:
    """Do every case that waits; raises what no other case can mend."""
    handshake.choose_mode(hello, play=False, has_input=True)
    handshake.answer(hello, Mode.SERVE, arguments.images)
    for number, plan in enumerate(waiting, 1):
        teller.told(f"{plan.name}: case {number} of {len(waiting)}")
        if number > 1:  # the last one stays on the page
            watcher.forget()
        try:
            report = _one(plan, line, hello, arguments, teller, watcher)
        except (CaseFailed, run.SlicesFailed, DigestWrong) as error:
            rows[plan.name] = Row(plan.name, FAILED, error=one_line(error))
            print(f"{plan.name}: {one_line(error)}", file=sys.stderr, flush=True)
            if isinstance(error, CaseFailed):
                continue  # nothing was begun
        except (GliosliceError, OSError, run.Stopped) as error:
            stopped = isinstance(error, run.Stopped)
            why = "interrupted" if stopped else one_line(error)
            rows[plan.name] = Row(plan.name, ENDED, error=why)
            raise
        else:
            rows[plan.name] = row_of(plan.name, COMPLETE, report)
        hello = replace(hello, kept=0, answered=0)  # only a session's first run is taken up again


def _one(
    plan: Plan,
    line: Connection,
    hello: BoardHello,
    arguments: argparse.Namespace,
    teller: Teller,
    watcher: Watcher,
) -> dict[str, Any]:
    """Do one case and return its report; raises CaseFailed, and what `carry_out` raises."""
    try:
        job = run.begin(line, hello, _case_of(plan), arguments, teller)
    except LINE:
        raise
    except GliosliceError as error:
        why = one_line(error)
        teller.event("case", case=plan.name, state=FAILED, error=why, files=[], report=None)
        raise CaseFailed(why) from error
    return run.carry_out(line, job, plan.files, arguments.baud, teller, watcher).report


def _case_of(plan: Plan) -> Case:
    try:
        return read_case(find_case(plan.path))
    except OSError as error:  # no right to read it, say
        raise CaseFailed(one_line(error)) from error


@contextmanager
def _summed_up(rows: dict[str, Row], folder: Path, teller: Teller) -> Iterator[None]:
    """Tell what became of every case, however the block ends."""
    try:
        yield
    finally:
        teller.said(*table_of(rows.values()))
        teller.event("table", cases=[row.as_json() for row in rows.values()])
        try:
            write_bytes(folder / TABLE, csv_of(rows.values()).encode())
            teller.said(f"table: {folder / TABLE}")
        except OSError as error:  # what ended the batch comes first
            print(one_line(error), file=sys.stderr, flush=True)
