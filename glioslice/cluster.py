"""An archive of many cases: shared among processes by parts or through Dask, with one table.

    in_part("BraTS_0042", parse_part("3/16"))       # the same answer on every machine
    run_archive(archive, arguments)                 # as --part, --dask or --summary says

A part is decided by a hash of the case's name alone, so it does not change when cases are added and
no process needs to know of the others. A case NAME is done once NAME-result.json, the row of the
table, says so; it is written last. A process that is killed leaves cases without it, and running
the same part again does exactly those. Outputs are written whole or not at all, so parts may be
repeated, may overlap and may run side by side.
"""

import argparse
import csv
import io
import logging
import math
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from glioslice import cli
from glioslice.cases import paths_by_name
from glioslice.errors import GliosliceError
from glioslice.files import UNFINISHED, check_folder, read_json, write_json, write_text

logger = logging.getLogger(__name__)

TABLE = "summary.csv"

COMPLETE, FAILED, MISSING = "complete", "failed", "missing"

ABANDONED = 3600.0
"""Seconds after which what is being written is that of a process which was killed."""

LOCAL = "local"
"""Stands for a cluster on this machine, with one process per core."""

LOCAL_SETTINGS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.preload": ["import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)"],
}
"""Nobody looks at what Dask measures of itself, for which it wakes its processes all the time. A
terminal sends Ctrl-C to the workers too: the command ends them."""

RETRIES = 3
"""How often a task is repeated whose function raised; lost workers are counted by the scheduler."""

CONNECT_TIMEOUT = 15
"""Seconds to wait for a scheduler."""

AHEAD = 3
"""Batches per thread of the cluster that are submitted: no worker waits, and the scheduler's memory
does not hold a list of 100,000."""

BATCH_SECONDS = 0.5
"""Seconds that a batch takes: to share a single small case costs a sixth of the case itself."""

LARGEST_BATCH = 16
"""Items of a batch, which are done again if its worker is lost."""

COUNT_INTERVAL = 1.0
"""Seconds between two looks at how many threads the cluster has."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ArchiveCase:
    """A case by its name, which is known without reading its volumes."""

    name: str
    path: Path


@dataclass(frozen=True)
class ArchiveRow:
    """The row of a case: `values` by column, and the method that its outputs were made with.

    The value of the column `warnings` is a list of sentences.
    """

    case: str
    state: str
    method: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Archive:
    """Cases, what is done with each, and the folder of the outputs.

    `make` reads a case and returns what is to be written; its errors are those of this case.
    `write` writes it and returns values by column; its OSError ends the archive. Both are pickled
    for the workers of a cluster.

    A case that was done by another `method`, the model and options that change outputs, is done
    again, and so is one without its `output`, a name with {} for the case's. `done` is what a
    complete case is.
    """

    cases: Sequence[ArchiveCase]
    make: Callable[[ArchiveCase], Any]
    write: Callable[[ArchiveCase, Any], dict[str, Any]]
    out: Path
    method: str
    output: str
    columns: tuple[str, ...]
    done: str


@dataclass(frozen=True)
class Part:
    """Part `number` (from 1) of `count`."""

    number: int
    count: int


def parse_part(text: str) -> Part:
    """Return the part that K/N means; raises GliosliceError."""
    number, slash, count = text.partition("/")
    if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return Part(int(number), int(count))
    raise GliosliceError(f"--part {text}: is not a part such as 3/16, from 1/16 to 16/16")


def in_part(name: str, part: Part) -> bool:
    """Return whether the case `name` belongs to a part; each belongs to exactly one."""
    hashed = int.from_bytes(sha256(os.fsencode(name)).digest()[:8], "big")
    return hashed % part.count == part.number - 1


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add --part, --dask and --summary, which exclude each other."""
    group = parser.add_argument_group("an archive of cases").add_mutually_exclusive_group()
    group.add_argument("--part", metavar="K/N", help="only part K of N, by a hash of the name")
    group.add_argument(
        "--dask", nargs="?", const=LOCAL, metavar="SCHEDULER", type=_scheduler,
        help="share the cases among the workers of a Dask cluster, such as tcp://host:8786; "
        "without an address one process per core of this machine",
    )  # fmt: skip
    group.add_argument(
        "--summary", action="store_true",
        help=f"merge what all parts have done into {TABLE} of the output folder",
    )  # fmt: skip


def _scheduler(text: str) -> str:
    """Return an address; what follows may be a folder, and a variable of the shell may be empty."""
    if not text or (text != LOCAL and Path(text).exists()):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not the address of a scheduler; end the command with --dask to use this "
            "machine"
        )
    return text


def wants_archive(arguments: argparse.Namespace) -> bool:
    """Return whether the options are those of an archive."""
    return arguments.part is not None or arguments.dask is not None or arguments.summary


def list_cases(named: Iterable[tuple[str, Path]]) -> list[ArchiveCase]:
    """Return cases sorted by name; raises GliosliceError if two have the same name."""
    found = paths_by_name(named)
    return [ArchiveCase(name, found[name].absolute()) for name in sorted(found)]


def run_archive(archive: Archive, arguments: argparse.Namespace) -> None:
    """Do what --part, --dask or --summary asks; raises GliosliceError if a case failed."""
    if arguments.summary:
        write_summary(archive)
        return
    cases = archive.cases
    if arguments.part is not None:
        part = parse_part(arguments.part)
        cases = [case for case in cases if in_part(case.name, part)]
    check_folder(archive.out)
    waiting = [case for case in cases if arguments.force or not is_done(archive, case.name)]
    print(f"cases: {len(cases)}, done before: {len(cases) - len(waiting)}", flush=True)
    failed = 0
    for number, row in enumerate(_rows(archive, waiting, arguments.dask), 1):
        state = row.state if row.error is None else f"error: {row.error}"
        stream = sys.stdout if row.error is None else sys.stderr
        for warning in row.values.get("warnings", []):
            logger.warning("%s: %s", row.case, warning)
        print(f"{row.case}: {state} ({number} of {len(waiting)})", file=stream, flush=True)
        failed += row.state == FAILED
    if failed:
        raise GliosliceError(f"{failed} of {len(cases)} cases failed; run the same command again")


def _rows(
    archive: Archive, cases: Sequence[ArchiveCase], scheduler: str | None
) -> Iterator[ArchiveRow]:
    """Yield the rows of cases as they are done; each is in its file by then."""
    do_case = partial(_do_case, replace(archive, cases=()))  # pickled for each batch
    if scheduler is None:
        yield from map(do_case, cases)
        return
    for case, row in map_on_dask(do_case, cases, scheduler):
        if isinstance(row, OSError):
            raise row  # a full disk is full for every case
        if isinstance(row, Exception):
            row = ArchiveRow(case.name, FAILED, archive.method, error=cli.one_line(row))
            write_json(row_path(archive, case.name), asdict(row))
        yield row


def _do_case(archive: Archive, case: ArchiveCase) -> ArchiveRow:
    """Make and write the outputs of a case, last its row."""
    started = time.monotonic()
    try:
        made = archive.make(case)
    except Exception as error:  # an archive never ends because of one case
        row = ArchiveRow(case.name, FAILED, archive.method, error=cli.failure_line(error))
    else:
        if not is_done(archive, case.name):  # a row of another method is of the old outputs
            row_path(archive, case.name).unlink(missing_ok=True)
        values = archive.write(case, made)
        values["seconds"] = round(time.monotonic() - started, 3)
        row = ArchiveRow(case.name, COMPLETE, archive.method, values)
    write_json(row_path(archive, case.name), asdict(row))
    return row


def row_path(archive: Archive, name: str) -> Path:
    """Return where the row of a case is kept."""
    return archive.out / f"{name}-result.json"


def is_done(archive: Archive, name: str) -> bool:
    """Return whether a case was done by the same method."""
    row = read_row(archive, name)
    return row.state == COMPLETE and row.method == archive.method


def read_row(archive: Archive, name: str) -> ArchiveRow:
    """Return the row of a case, one that says so if there is none or the case has no output."""
    try:
        row = ArchiveRow(**read_json(row_path(archive, name)))
    except (GliosliceError, TypeError):
        return ArchiveRow(name, MISSING)
    if row.state == COMPLETE and not (archive.out / archive.output.format(name)).exists():
        return ArchiveRow(name, MISSING)
    return row


def write_summary(archive: Archive) -> None:
    """Write the table of all cases to summary.csv.

    Raises GliosliceError, after it is written, if cases are missing or failed, or if they were
    done by different methods.
    """
    out = archive.out
    rows = [read_row(archive, case.name) for case in archive.cases]
    write_text(out / TABLE, format_table(rows, archive.columns))
    counts = {state: sum(row.state == state for row in rows) for state in (FAILED, MISSING)}
    done = len(rows) - sum(counts.values())
    _remove_abandoned(out)
    print(f"{done} of {len(rows)} cases are {archive.done}\ntable: {out / TABLE}")
    methods = {row.method for row in rows if row.state == COMPLETE}
    if len(methods) > 1:
        raise GliosliceError(
            f"{out}: outputs of {len(methods)} different models or options; run all parts with one"
        )
    if done < len(rows):
        wrong = " and ".join(f"{count} {state}" for state, count in counts.items() if count)
        raise GliosliceError(f"{wrong}: see {out / TABLE}; run the parts again")


def format_table(rows: Iterable[ArchiveRow], columns: Sequence[str]) -> str:
    """Return the table as CSV; cells are empty where a value is not known."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["case", "state", *columns, "error"])
    for row in rows:
        values = (row.values.get(column) for column in columns)
        cells = (" ".join(value) if isinstance(value, list) else value for value in values)
        writer.writerow([row.case, row.state, *cells, row.error])
    return file.getvalue()


def _remove_abandoned(out: Path) -> None:
    """Remove what processes were writing that were killed more than an hour ago."""
    limit = time.time() - ABANDONED
    for path in sorted(path for pattern in UNFINISHED for path in out.glob(pattern)):
        with suppress(FileNotFoundError):  # it may be renamed right now
            if path.stat().st_mtime >= limit:
                continue
            logger.info("%s: removed, left by a process that was killed", path)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def map_on_dask(
    function: Callable[[Item], Result], items: Sequence[Item], scheduler: str
) -> Iterator[tuple[Item, Result | Exception]]:
    """Yield each item with its result, or the error that ended it, in the order of completion.

    `function` and `items` are pickled. What a lost worker was doing is done again elsewhere, so
    `function` must be safe to repeat. Raises GliosliceError if Dask is not installed, or if the
    scheduler does not reply, has no worker or is lost.
    """
    with _connect(scheduler) as client:
        from distributed import as_completed

        waiting = deque(items)
        submitted = dict[str, list[Item]]()
        running: Any = as_completed()

        def submit(batch: list[Item]) -> None:
            retries = RETRIES if len(batch) == 1 else 0
            future = client.submit(_do_batch, function, batch, pure=False, retries=retries)
            submitted[future.key] = batch
            running.add(future)

        def fill(threads: int, seconds: float) -> None:
            """Submit batches of items that take `seconds` each; near the end smaller ones."""
            while waiting and len(submitted) < AHEAD * max(1, threads):
                share = len(waiting) // (2 * max(1, threads))
                size = max(1, min(share, LARGEST_BATCH, int(BATCH_SECONDS / max(seconds, 1e-3))))
                submit([waiting.popleft() for _ in range(min(size, len(waiting)))])

        seconds, threads, counted_at = math.inf, _thread_count(client), time.monotonic()
        fill(threads, seconds)
        for future in running:
            outcome, batch = _fetch(future, scheduler), submitted.pop(future.key)
            if not isinstance(outcome, Exception):
                results, spent = outcome
                seconds = spent / len(batch)
                yield from zip(batch, results, strict=True)
            elif len(batch) == 1:
                yield batch[0], outcome
            else:  # one of them raised it: each on its own
                for item in batch:
                    submit([item])
            future.release()
            if time.monotonic() - counted_at > COUNT_INTERVAL:
                threads, counted_at = _thread_count(client), time.monotonic()
            fill(threads, seconds)


def _do_batch(
    function: Callable[[Item], Result], batch: Sequence[Item]
) -> tuple[list[Result], float]:
    """Return the results of a batch on a worker, and the seconds that it took."""
    cli.configure_malloc()
    started = time.monotonic()
    return [function(item) for item in batch], time.monotonic() - started


def _fetch(future: Any, scheduler: str) -> Any:
    """Return what `_do_batch` returned, or its error; GliosliceError if the scheduler is lost."""
    with suppress(OSError, CancelledError):  # raised by the link to the scheduler, which has both
        if not future.cancelled():
            error = future.exception()
            return future.result() if error is None else error
    raise GliosliceError(
        f"{scheduler}: the scheduler is lost; run the same command again to continue"
    )


def _root_cause(error: BaseException) -> str:
    """Return the message of what an error came from."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return cli.one_line(error)


def _thread_count(client: Any) -> int:
    """Return how many threads the workers of a cluster have."""
    return int(client.scheduler_info(n_workers=0)["total_threads"])


@contextmanager
def _connect(scheduler: str) -> Iterator[Any]:
    """Yield a client of a scheduler that has a worker."""
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError:
        raise GliosliceError(
            "--dask needs a package that is not installed: pip install 'glioslice[cluster]'"
        ) from None
    # A lost worker is no news. Dask gives some loggers levels of their own.
    for name in ("distributed", "distributed.client", "tornado", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        try:
            address: Any = scheduler
            if scheduler == LOCAL:
                stack.callback(_restore_environment, dict(os.environ))  # Dask sets it for workers
                stack.enter_context(dask.config.set(LOCAL_SETTINGS))
                address = stack.enter_context(
                    LocalCluster(
                        threads_per_worker=1,
                        silence_logs=logging.CRITICAL,
                        # Any port, as several clusters may run here; nobody looks at the page.
                        dashboard_address="127.0.0.1:0",
                        scheduler_kwargs={"dashboard": False},
                    )
                )
            client = stack.enter_context(Client(address, timeout=CONNECT_TIMEOUT))
        except ValueError:
            raise GliosliceError(
                f"--dask {scheduler}: is not an address such as tcp://host:8786"
            ) from None
        except RuntimeError as error:
            raise GliosliceError(
                f"--dask: no workers can be started on this machine ({_root_cause(error)}); use "
                "--part"
            ) from None
        except OSError as error:
            raise GliosliceError(
                f"no Dask scheduler replies at {scheduler} ({type(error).__name__}); start one "
                "with `dask scheduler`, or leave the address out"
            ) from None
        try:
            client.wait_for_workers(1, timeout=CONNECT_TIMEOUT)
        except TimeoutError:
            raise GliosliceError(
                f"{scheduler}: the scheduler has no worker; start one: dask worker {scheduler}"
            ) from None
        logger.info("%s: %d threads", scheduler, _thread_count(client))
        yield client


def _restore_environment(before: dict[str, str]) -> None:
    """Make the environment what it was."""
    os.environ.clear()
    os.environ.update(before)
