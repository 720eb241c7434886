"""The runs behind docs/scale.md: the commands as a user types them, some of them killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
from glioslice.phantom.head import make_phantom

STREAM = [sys.executable, str(ROOT / "firmware_host" / "stream.py")]
SEGMENT = [sys.executable, "-m", "device.segment"]

BAUD = 115200
MANY = 10
KILLED_BOARDS = 4
SEED = 24

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_case(folder: Path, images: NDArray[np.float32]) -> Path:
    """Write images (4, X, Y, Z) as a case of the BraTS layout of 2018."""
    folder.mkdir(parents=True)
    for modality, image in zip(MODALITIES, images, strict=True):
        nib.save(nib.Nifti1Image(image, LPS), folder / f"{folder.name}_{modality}.nii.gz")
    return folder


def write_small_cases(folder: Path, count: int) -> Path:
    """Write `count` different small cases: every third voxel of three slices of the phantom."""
    phantom = make_phantom(0)
    depth, thick = phantom.images.shape[-1], 3
    filled = np.flatnonzero((phantom.labels > 0).any(axis=(0, 1)))
    firsts = np.arange(filled[0], min(filled[-1], depth - thick))
    for number in range(count):
        shift, first = divmod(number, len(firsts))
        y, x = 20 + shift % 3, 20 + shift // 3 % 3
        z = firsts[first]
        slab = phantom.images[:, x:220:3, y:220:3, z : z + thick] * np.float32(1 + shift // 9)
        write_case(folder / f"Case_{number:04}", slab)
    return folder


def timed(command: Sequence[str]) -> tuple[float, float, float]:
    """Run a command that must succeed; return wall and CPU seconds and peak memory in MB."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise GliosliceError(f"{command[0]}: exit code {process.returncode}: {errors[-300:]}")
    seconds = usage.ru_utime + usage.ru_stime
    return time.monotonic() - started, seconds, usage.ru_maxrss * 1024 / 1e6


def size_mb(paths: Iterator[Path]) -> float:
    """Return the size of files in units of a million bytes."""
    return sum(path.stat().st_size for path in paths) / 1e6


def measure_cost(folder: Path) -> dict[str, Any]:
    """Return what one whole phantom costs to segment here, and to stream to a simulated board."""
    images = make_phantom(0).images
    for number in range(3):
        write_case(folder / "cases" / f"Case_{number}", images)
    shutil.copytree(folder / "cases" / "Case_0", folder / "single" / "Case_0")
    runs = {}
    for name in ("single", "cases"):
        command = [*SEGMENT, str(folder / name), "--out", str(folder / f"{name}-out")]
        runs[name] = timed([*command, "--part", "1/1"])
    # Two cases more: what starting the program costs is not in the difference.
    segment_cpu = (runs["cases"][1] - runs["single"][1]) / 2
    read = size_mb((folder / "cases" / "Case_0").iterdir())
    out, report = folder / "streamed", folder / "streamed" / "r.json"
    board = folder / "board-cpu"
    command = [
        sys.executable, "-c", STREAM_COUNTED, str(board), str(folder / "cases" / "Case_0"),
        "--port", f"sim://?baud={BAUD}", "--output", str(out / "m.nii.gz"), "--report",
        str(report), "--report", str(out / "r.html"),
    ]  # fmt: skip
    _, both, _ = timed(command)
    board_cpu = float(board.read_text())
    found = read_json(report)
    return {
        "cores": os.cpu_count(),
        "baud": BAUD,
        "segment_cpu_s": round(segment_cpu, 2),
        "segment_peak_mb": round(runs["cases"][2]),
        "host_cpu_s": round(both - board_cpu, 2),
        "board_cpu_s": round(board_cpu, 2),
        "read_mb": round(read, 2),
        "segment_written_mb": round(size_mb((folder / "single-out").iterdir()), 3),
        "stream_written_mb": round(size_mb(out.iterdir()), 3),
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
    """Return the throughput of one board and of ten, on whole slices and the default codec."""
    images = make_phantom(0).images
    inside = [
        np.flatnonzero((images > 0).any(axis=tuple({0, 1, 2, 3} - {axis}))) for axis in (1, 2)
    ]
    x, y = (slice(found[0], found[-1] + 1) for found in inside)
    middle = images.shape[-1] // 2
    for number in range(2 * MANY):
        first = middle - 30 + number
        write_case(folder / "cases" / f"Case_{number:02}", images[:, x, y, first : first + 40])
    for number in range(2):
        shutil.copytree(folder / "cases" / f"Case_{number:02}", folder / "few" / f"Case_{number}")
    port = ("--port", f"sim://?baud={BAUD}")
    load = os.getloadavg()[0]
    one = _throughput(folder / "few", folder / "one", *port, "--boards", "1")
    many = _throughput(folder / "cases", folder / "many", *port, "--boards", str(MANY))
    return {
        "baud": BAUD,
        "load_before": round(load, 1),
        "one": one,
        "many": {"boards": MANY, **many},
        "factor": round(many["slices_per_second"] / one["slices_per_second"], 2),
    }


def _throughput(cases: Path, out: Path, *options: str) -> dict[str, Any]:
    """Return slices and slices per second, from the first case's begin to the last one's end."""
    started = ended = 0.0
    slices = 0
    with _events([*STREAM, str(cases), *options, "--output", str(out), "--json"]) as (_, events):
        for event in events:
            if event["event"] == "begin":
                started = started or time.monotonic()
            if event["event"] == "case":
                ended = time.monotonic()
                slices += event["report"]["slices"]
    return {"slices": slices, "slices_per_second": round(slices / (ended - started), 3)}


@contextmanager
def _events(
    command: Sequence[str],
) -> Iterator[tuple[subprocess.Popen[str], Iterator[dict[str, Any]]]]:
    """Yield a running command and its JSON events; raises GliosliceError if it fails."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, (json.loads(line) for line in process.stdout)
    if process.returncode:
        raise GliosliceError(f"{' '.join(command)}: exit code {process.returncode}")


def measure_killed_boards(folder: Path, count: int) -> dict[str, Any]:
    """Stream cases to boards of which one is killed again and again; count what was lost."""
    cases, out, wanted = write_small_cases(folder / "cases", count), folder / "out", folder / "own"
    command = [*STREAM, str(cases), "--port", "sim://?baud=921600", "--output", str(out)]
    random, kills, complete = Random(SEED), 0, 0
    ended: Counter[str] = Counter()
    with _events([*command, "--boards", str(KILLED_BOARDS), "--json", "--images", "lossless"]) as (
        process,
        events,
    ):
        for event in events:
            if event["event"] == "case" and event["state"] == "complete":
                complete += 1
                ended[event["case"]] += 1
            if event["event"] == "begin" and complete // 10 > kills:
                boards = _children(process.pid)
                if boards:
                    os.kill(random.choice(boards), signal.SIGKILL)
                    kills += 1
    timed([*SEGMENT, str(cases), "--out", str(wanted), "--part", "1/1"])
    return {
        "cases": count,
        "boards": KILLED_BOARDS,
        "kills": kills,
        "complete": len(ended),
        "lost": count - len(ended),
        "double": sum(times > 1 for times in ended.values()),
        "different": _different(wanted, out),
    }


def _children(process: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in listed.stdout.split()]


def _different(wanted: Path, out: Path) -> int:
    """Return how many masks of `wanted` are missing in `out` or have other bytes."""
    masks = sorted(wanted.glob("*-mask.nii.gz"))
    found = (out / mask.name for mask in masks)
    return sum(
        not other.is_file() or other.read_bytes() != mask.read_bytes()
        for mask, other in zip(masks, found, strict=True)
    )


def measure_archive(folder: Path, count: int) -> dict[str, Any]:
    """Segment many small cases in one process, in parts with kills, and through Dask."""
    cases = write_small_cases(folder / "cases", count)
    one_seconds, _, _ = timed([*SEGMENT, str(cases), "--out", str(folder / "one"), "--part", "1/1"])
    parts = _killed_parts(cases, folder / "parts")
    parts["different"] = _different(folder / "one", folder / "parts")
    two_seconds = _dask(cases, folder / "two", workers=2, kill_after=None)["seconds"]
    dask = _dask(cases, folder / "three", workers=3, kill_after=count // 5)
    dask["different"] = _different(folder / "one", folder / "three")
    return {
        "cases": count,
        "one_per_s": round(count / one_seconds, 2),
        "two_per_s": round(count / two_seconds, 2),
        "factor": round(one_seconds / two_seconds, 2),
        "parts": parts,
        "dask": dask,
    }


def _killed_parts(cases: Path, out: Path) -> dict[str, Any]:
    """Run four parts, two at a time, and kill one after another until each was killed once."""
    random, kills = Random(SEED), 0
    todo = [f"{number}/4" for number in range(1, 5)]
    killed: set[str] = set()
    while todo:
        pair = [todo.pop(0) for _ in range(min(2, len(todo)))]
        running = [
            subprocess.Popen(
                [*SEGMENT, str(cases), "--out", str(out), "--part", part],
                cwd=ROOT, stdout=subprocess.PIPE, text=True,
            )
            for part in pair
        ]  # fmt: skip
        for process, part in zip(running, pair, strict=True):
            if part in killed:
                continue
            assert process.stdout is not None
            stop = random.randrange(3, 8)
            for number, _ in enumerate(process.stdout):
                if number == stop:
                    process.kill()
                    kills += 1
            killed.add(part)
            todo.append(part)
        for process in running:
            process.communicate()
    done = subprocess.run(
        [*SEGMENT, str(cases), "--out", str(out), "--summary"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    match = re.search(r"(\d+) of (\d+) cases are segmented", done.stdout)
    if match is None:
        raise GliosliceError(f"--summary: {done.stderr[-300:]}")
    return {"kills": kills, "complete": int(match[1]), "lost": int(match[2]) - int(match[1])}


def _dask(cases: Path, out: Path, workers: int, kill_after: int | None) -> dict[str, Any]:
    """Segment through a scheduler; kill its first worker after some cases."""
    with _scheduler(out.with_suffix(".json"), workers) as (address, processes):
        started, ended = 0.0, Counter[str]()
        command = [*SEGMENT, str(cases), "--out", str(out), "--dask", address]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if match := re.match(r"(\S+): complete", line):
                    started = started or time.monotonic()  # the workers have loaded the engine
                    ended[match[1]] += 1
                    if sum(ended.values()) == kill_after:
                        processes[0].kill()
        if process.returncode:
            raise GliosliceError(f"--dask: exit code {process.returncode}")
        seconds = (time.monotonic() - started) * len(ended) / (len(ended) - 1)
    return {
        "workers": workers,
        "seconds": round(seconds, 1),
        "complete": len(ended),
        "double": sum(times > 1 for times in ended.values()),
    }


@contextmanager
def _scheduler(file: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Yield the address of a Dask scheduler and its workers, each a process with one thread."""
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

        start("scheduler", "--host", "127.0.0.1", "--port", "0")
        options = ("--nthreads", "1", "--no-nanny", "--local-directory", str(file.parent))
        processes = [start("worker", *options) for _ in range(workers)]
        deadline = time.monotonic() + 60
        while not file.exists():
            if time.monotonic() > deadline:
                raise GliosliceError("the Dask scheduler did not start within 60 s")
            time.sleep(0.1)
        yield str(read_json(file)["address"]), processes
