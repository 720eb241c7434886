"""The runs behind docs/scale.md: the commands as a user types them, some of them killed."""

import csv
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from benchmarks import ROOT
from glioslice.cases import MODALITIES
from glioslice.errors import GliosliceError
from glioslice.files import read_json
from glioslice.phantom.head import Phantom, make_phantom

STREAM = [sys.executable, str(ROOT / "firmware_host" / "stream.py")]
SEGMENT = [sys.executable, "-m", "device.segment"]

BAUD = 115200
MANY = 10
CASES_PER_BOARD = 8
"""Enough that the start, when the host reads ten cases before all boards work, is a small part."""

ARCHIVES = {"small": 400, "whole": 20}
"""Cases for the throughput of two processes: small ones, which cost little more than their files,
and whole ones."""

KILLED_BOARDS = 4
PARTS = 4
WORKERS = 3
START_SECONDS = 120
SEED = 24

PAGE = 4096
"""Bytes of the smallest pipe."""

LINE = 28
"""Bytes of a line that reports a case, about."""

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@lru_cache(maxsize=1)
def phantom() -> Phantom:
    """Return the phantom, which takes long to make."""
    return make_phantom(0)


def write_case(folder: Path, images: NDArray[np.float32]) -> Path:
    """Write images (4, X, Y, Z) as a case of the BraTS layout of 2018."""
    folder.mkdir(parents=True)
    for modality, image in zip(MODALITIES, images, strict=True):
        nib.save(nib.Nifti1Image(image, LPS), folder / f"{folder.name}_{modality}.nii.gz")
    return folder


def write_small_cases(folder: Path, count: int) -> Path:
    """Write `count` different small cases: every third voxel of three slices of the phantom."""
    images, labels = phantom().images, phantom().labels
    depth, thick = images.shape[-1], 3
    filled = np.flatnonzero((labels > 0).any(axis=(0, 1)))
    firsts = np.arange(filled[0], min(filled[-1], depth - thick))
    for number in range(count):
        shift, first = divmod(number, len(firsts))
        y, x = 20 + shift % 3, 20 + shift // 3 % 3
        z = firsts[first]
        slab = images[:, x:220:3, y:220:3, z : z + thick] * np.float32(1 + shift // 9)
        write_case(folder / f"Case_{number:04}", slab)
    return folder


def timed(command: Sequence[str]) -> tuple[float, float, float]:
    """Run a command that must succeed; return wall and CPU seconds and peak memory in MB.

    Linux counts the memory of the process that starts another into that one's peak. So a small
    process starts the command, and not this one, which may hold volumes.
    """
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    wall = time.monotonic() - started
    if done.returncode:
        raise GliosliceError(f"{command[0]}: exit code {done.returncode}: {done.stderr[-300:]}")
    seconds, kilobytes = done.stdout.split()
    return wall, float(seconds), int(kilobytes) * 1024 / 1e6


MEASURED = """
import os, sys
null = os.open(os.devnull, os.O_WRONLY)
silent = [(os.POSIX_SPAWN_DUP2, null, 1)]
command = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, usage = os.wait4(command, 0)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command without its output, and prints its CPU seconds and its peak memory in kB."""


def size_mb(paths: Iterator[Path]) -> float:
    """Return the size of files in units of a million bytes."""
    return sum(path.stat().st_size for path in paths) / 1e6


def measure_cost(folder: Path) -> dict[str, Any]:
    """Return what one whole phantom costs to segment here, and to stream to a simulated board.

    One case and two are done: what starting the programs costs is not in the difference.
    """
    images = phantom().images
    for number in range(2):
        write_case(folder / "two" / f"Case_{number}", images)
    shutil.copytree(folder / "two" / "Case_0", folder / "one" / "Case_0")
    segment, stream, board = {}, {}, {}
    for name in ("one", "two"):
        command = [*SEGMENT, str(folder / name), "--out", str(folder / f"{name}-out")]
        segment[name] = timed([*command, "--part", "1/1"])
        counted = folder / f"{name}-board"
        command = [
            sys.executable, "-c", STREAM_COUNTED, str(counted), str(folder / name),
            "--port", f"sim://?baud={BAUD}", "--output", str(folder / f"{name}-streamed"),
        ]  # fmt: skip
        stream[name] = timed(command)[1]
        board[name] = float(counted.read_text())
    streamed = folder / "one-streamed"
    found = read_json(streamed / "Case_0-report.json")
    board_cpu = board["two"] - board["one"]
    return {
        "cores": os.cpu_count(),
        "baud": BAUD,
        "segment_cpu_s": round(segment["two"][1] - segment["one"][1], 2),
        "segment_peak_mb": round(segment["two"][2]),
        "host_cpu_s": round(stream["two"] - stream["one"] - board_cpu, 2),
        "board_cpu_s": round(board_cpu, 2),
        "read_mb": round(size_mb((folder / "two" / "Case_0").iterdir()), 2),
        "segment_written_mb": round(size_mb((folder / "one-out").iterdir()), 3),
        "stream_written_mb": round(size_mb(streamed.iterdir()), 3),
        "bytes_up": found["bytes_up"],
        "bytes_down": found["bytes_down"],
        "link_s": found["seconds"],
        "slices": found["slices"],
    }


STREAM_COUNTED = """
import sys
from firmware_host import handshake, stream
board, *options = sys.argv[1:]
counted = '''
import atexit, os, runpy, sys
path = sys.argv.pop(1)
atexit.register(lambda: open(path, "w").write(str(sum(os.times()[:2]))))
runpy.run_module("device", run_name="__main__", alter_sys=True)
'''

def far_end(arguments):
    python, _, _, *rest = handshake.device_command(arguments.model, arguments.baud)
    return [python, "-c", counted, board, *rest]

stream.main(options, far_end)
"""
"""Streams a case, and lets the board's process write its CPU seconds to a file at its end."""


def measure_speed(folder: Path) -> dict[str, Any]:
    """Return the throughput of ten boards and of one, and of two workers and one process."""
    load = os.getloadavg()[0]
    boards = _compare_boards(folder)
    write_small_cases(folder / "small", ARCHIVES["small"])
    write_whole_cases(folder / "whole", ARCHIVES["whole"])
    archives = {kind: _compare_processes(folder / kind) for kind in ARCHIVES}
    return {"load_before": round(load, 1), "boards": boards, "archives": archives}


def write_whole_cases(folder: Path, count: int) -> None:
    """Write the phantom as `count` cases, which share their files on the disk."""
    first = write_case(folder / "Case_0000", phantom().images)
    for number in range(1, count):
        case = folder / f"Case_{number:04}"
        case.mkdir()
        for path in first.iterdir():
            (case / path.name.replace(first.name, case.name)).hardlink_to(path)


def _compare_boards(folder: Path) -> dict[str, Any]:
    """Return the throughput of one board and of ten on whole cases, in the default mode."""
    found = {}
    for boards in (1, MANY):
        cases = folder / f"for-{boards}"
        write_whole_cases(cases, boards * CASES_PER_BOARD)
        options = ("--port", f"sim://?baud={BAUD}", "--boards", str(boards))
        found[boards] = _throughput(cases, folder / f"from-{boards}", *options)
    one, many = found[1], found[MANY]
    factor = many["slices_per_second"] / one["slices_per_second"]
    return {"baud": BAUD, "boards": MANY, "one": one, "many": many, "factor": round(factor, 2)}


def _compare_processes(cases: Path) -> dict[str, Any]:
    """Return the throughput of one process, of two parts at a time, and of a local Dask cluster."""

    def run(name: str, *options: str) -> list[float]:
        out = cases.with_name(f"{cases.name}-{name}")
        return [at for _, at in completed([*SEGMENT, str(cases), "--out", str(out), *options])]

    one = rate(run("one", "--part", "1/1"))
    with ThreadPoolExecutor(2) as threads:
        parts = [threads.submit(run, "parts", "--part", f"{part}/2") for part in (1, 2)]
        two = rate_together([part.result() for part in parts])
    workers = os.cpu_count() or 1
    dask = rate(run("dask", "--dask"), workers)
    return {
        "cases": len(list(cases.iterdir())),
        "workers": workers,
        "one_per_s": round(one, 3),
        "parts_per_s": round(two, 3),
        "parts_factor": round(two / one, 2),
        "dask_per_s": round(dask, 3),
        "dask_factor": round(dask / one, 2),
    }


def rate(times: Sequence[float], workers: int = 1) -> float:
    """Return the cases per second by the times at which they were complete.

    As many cases as there are workers start the clock: programs and engines are loaded by then.
    """
    return (len(times) - workers) / (times[-1] - times[workers - 1])


def rate_together(processes: Sequence[Sequence[float]]) -> float:
    """Return the cases per second of processes until the first of them had none left."""
    end = min(times[-1] for times in processes)
    return sum(rate([at for at in times if at <= end]) for times in processes)


def _throughput(cases: Path, out: Path, *options: str) -> dict[str, Any]:
    """Return slices and slices per second, from the first case's begin to the last one's end.

    `cpu` is the share of this machine's processor that the host and its boards used meanwhile.
    """
    started = ended = 0.0
    slices = 0
    before = os.times()
    with events_of([*STREAM, str(cases), *options, "--output", str(out), "--json"]) as (_, events):
        for event in events:
            if event["event"] == "start":
                started = started or time.monotonic()
            if event["event"] == "case":
                ended = time.monotonic()
                slices += event["report"]["slices"]
    after = os.times()
    used = after[2] + after[3] - before[2] - before[3]  # of children that have ended
    cores = os.cpu_count() or 1
    return {
        "slices": slices,
        "slices_per_second": round(slices / (ended - started), 3),
        "cpu": round(used / (after[4] - before[4]) / cores, 2),
    }


@contextmanager
def events_of(
    command: Sequence[str],
) -> Iterator[tuple[subprocess.Popen[str], Iterator[dict[str, Any]]]]:
    """Yield a running command and its JSON events; raises GliosliceError if it fails."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, (json.loads(line) for line in process.stdout)
    if process.returncode:
        raise GliosliceError(f"{' '.join(command)}: exit code {process.returncode}")


def stream_and_kill(
    cases: Path, out: Path, every: int, *options: str
) -> tuple[list[dict[str, Any]], int]:
    """Stream cases to KILLED_BOARDS boards, one of which is killed after `every` cases again.

    The run is never more than some events ahead of the kills. Return the events and the number of
    kills.
    """
    command = [*STREAM, str(cases), "--output", str(out), "--json", *options]
    random, kills, complete = Random(SEED), 0, 0
    kept, count = [], len(list(cases.iterdir()))
    with events_of([*command, "--boards", str(KILLED_BOARDS)]) as (process, events):
        assert process.stdout is not None
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PAGE)
        for event in events:
            kept.append(event)
            complete += event["event"] == "case" and event["state"] == "complete"
            if complete // every > kills and complete < count:
                boards = children_of(process.pid)
                with suppress(IndexError, ProcessLookupError):  # it has just ended: the next one
                    os.kill(random.choice(boards), signal.SIGKILL)
                    kills += 1
    return kept, kills


def measure_killed_boards(folder: Path, count: int) -> dict[str, Any]:
    """Stream cases to boards of which one is killed again and again; count what was lost."""
    cases, out, wanted = write_small_cases(folder / "cases", count), folder / "out", folder / "own"
    options = ("--port", "sim://?baud=921600", "--images", "lossless")
    events, kills = stream_and_kill(cases, out, 10, *options)
    ended = Counter(e["case"] for e in events if e.get("state") == "complete" and "case" in e)
    timed([*SEGMENT, str(cases), "--out", str(wanted), "--part", "1/1"])
    rows = read_table(out)
    return {
        "cases": count,
        "boards": KILLED_BOARDS,
        "kills": kills,
        "complete": sum(row["state"] == "complete" for row in rows.values()),
        "lost": count - len(ended),
        "double": sum(times > 1 for times in ended.values()),
        "different": different_masks(wanted, out),
    }


def children_of(process: int) -> list[int]:
    """Return the ids of the processes that a process has started and that have not ended."""
    command = ["ps", "-o", "pid=,state=", "--ppid", str(process)]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    found = (line.split() for line in listed.stdout.splitlines())
    return [int(pid) for pid, state in found if state != "Z"]


def different_masks(wanted: Path, out: Path) -> int:
    """Return how many masks of `wanted` are missing in `out` or have other bytes."""
    masks = sorted(wanted.glob("*-mask.nii.gz"))
    found = (out / mask.name for mask in masks)
    return sum(
        not other.is_file() or other.read_bytes() != mask.read_bytes()
        for mask, other in zip(masks, found, strict=True)
    )


def read_table(out: Path) -> dict[str, dict[str, str]]:
    """Return the rows of summary.csv by case; raises GliosliceError if a case has two."""
    with (out / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {row["case"]: row for row in rows}
    if len(found) < len(rows):
        raise GliosliceError(f"{out / 'summary.csv'}: a case has two rows")
    return found


def measure_killed_archive(folder: Path, count: int) -> dict[str, Any]:
    """Segment cases in parts and through Dask while processes are killed; count what was lost."""
    cases = write_small_cases(folder / "cases", count)
    outs = {name: folder / name for name in ("one", "parts", "dask")}
    command = [*SEGMENT, str(cases), "--out"]
    timed([*command, str(outs["one"]), "--part", "1/1"])
    kills = kill_parts([*command, str(outs["parts"])], PARTS, range(3, 8))
    with scheduler(folder, WORKERS) as (address, processes):
        done = Counter(
            case
            for case, _ in completed(
                [*command, str(outs["dask"]), "--dask", address], count // 5, processes[1].kill
            )
        )
    for out in outs.values():
        timed([*command, str(out), "--summary"])
    return {
        "cases": count,
        "parts": {"kills": kills, **_compare(outs["one"], outs["parts"])},
        "dask": {
            "workers": WORKERS,
            "double": sum(times > 1 for times in done.values()),
            **_compare(outs["one"], outs["dask"]),
        },
    }


def _compare(wanted: Path, out: Path) -> dict[str, int]:
    """Return how many cases of `wanted` are complete in `out`, lost, or different."""
    first, second = read_table(wanted), read_table(out)
    complete = [name for name in first if second.get(name, {}).get("state") == "complete"]
    rows = (({**table[name], "seconds": ""} for table in (first, second)) for name in complete)
    return {
        "complete": len(complete),
        "lost": len(first) - len(complete),
        "different": different_masks(wanted, out),
        "rows_different": sum(one != other for one, other in rows),
    }


def kill_parts(command: Sequence[str], parts: int, lines: range, delay: float = 0.1) -> int:
    """Run all parts of an archive, two at a time; each is killed once and run again.

    A part is killed after about as many lines of output as one of `lines` says and up to `delay`
    seconds, chosen at random. Nobody reads its output, so it waits a line later for its end,
    however late this process is. Returns the number of kills; raises GliosliceError if a part
    fails.
    """
    random, kills = Random(SEED), 0
    todo = [(f"{number}/{parts}", True) for number in range(1, parts + 1)]
    while todo:
        pair, todo = todo[:2], todo[2:]
        running = []
        for part, to_kill in pair:
            size = LINE * random.choice(lines) if to_kill else PAGE
            pipe = NarrowPipe(size + LINE) if to_kill else None
            output = pipe.writer if pipe else subprocess.DEVNULL
            process = subprocess.Popen([*command, "--part", part], cwd=ROOT, stdout=output)
            running.append((process, part, pipe, size))
        for process, part, pipe, size in running:
            if pipe:
                while process.poll() is None and pipe.written < size:
                    time.sleep(0.01)
                time.sleep(random.uniform(0, delay))
                process.kill()
                todo.append((part, False))
        for process, _, pipe, _ in running:
            process.wait()
            if pipe:
                pipe.read()
            kills += process.returncode == -signal.SIGKILL
            if process.returncode not in (0, -signal.SIGKILL):
                raise GliosliceError(f"{command}: exit code {process.returncode}")
    return kills


class NarrowPipe:
    """A pipe that holds `room` bytes: a process that writes more waits until somebody reads.

    So it cannot be over before, however fast it is. `writer` is for a process that is started.
    """

    def __init__(self, room: int) -> None:
        self._reader, self.writer = os.pipe()
        size = fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PAGE)
        self._filled = os.write(self.writer, bytes(size - room))

    @property
    def written(self) -> int:
        """The bytes that have been written to it."""
        waiting = fcntl.ioctl(self._reader, termios.FIONREAD, bytes(4))
        return int.from_bytes(waiting, sys.byteorder) - self._filled

    def lines(self) -> Iterator[str]:
        """Yield the lines that processes write, until they have ended; it is of no use then."""
        os.close(self.writer)
        with open(self._reader, "rb") as file:
            file.read(self._filled)
            for line in file:
                yield line.decode()

    def read(self) -> str:
        """Return all that processes write, once they have ended."""
        return "".join(self.lines())


def completed(
    command: Sequence[str], after: int = 0, event: Callable[[], None] = lambda: None
) -> list[tuple[str, float]]:
    """Run a command of an archive; return each case that it reported as complete, and when.

    `event` is called after as many cases as `after` says. Raises GliosliceError if the command
    fails.
    """
    done: list[tuple[str, float]] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if match := re.match(r"(\S+): complete", line):
                done.append((match[1], time.monotonic()))
                if len(done) == after:
                    event()
    if process.returncode:
        raise GliosliceError(f"{' '.join(command)}: exit code {process.returncode}")
    return done


def _written_address(file: Path) -> str:
    """Return the address in a scheduler's file, once all of it is written."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(GliosliceError):
            return str(read_json(file)["address"])
        if time.monotonic() > deadline:
            raise GliosliceError(f"the Dask scheduler did not start within {START_SECONDS} s")
        time.sleep(0.1)


@contextmanager
def scheduler(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Yield the address of a Dask scheduler and the processes: the scheduler, then its workers.

    A worker has one thread. Their files are in `folder`. All of them have connected.
    """
    from distributed import Client

    file = folder / "scheduler.json"
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:

        def start(name: str, *options: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", f"distributed.cli.dask_{name}", *options]
            process = subprocess.Popen(
                [*command, "--scheduler-file", str(file), "--no-dashboard"],
                cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        processes = [start("scheduler", "--host", "127.0.0.1", "--port", "0")]
        options = ("--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
        processes += [start("worker", *options) for _ in range(workers)]
        address = _written_address(file)
        with Client(address, timeout=START_SECONDS) as client:  # a busy machine starts them slowly
            client.wait_for_workers(workers, timeout=START_SECONDS)
        yield address, processes
