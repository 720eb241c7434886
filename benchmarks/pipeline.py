"""Measure the way from scan to mask: its stages, and the whole beside two other ways.

    python benchmarks/pipeline.py              # measure, and write docs/performance.md
    python benchmarks/pipeline.py --page       # the page alone, from the last measurement
    python benchmarks/pipeline.py --gate       # compare with the plain script; exit code 2 if worse

The case is a phantom of 240 x 240 x 155 voxels, written as four .nii.gz files of 16-bit integers.
Each way runs in a process of its own, on one thread; the least processor time of some rounds
counts. Ratios within one run are comparable, times of different machines are not.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks import ROOT
from benchmarks.pages import fill, processor, table
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import read_json, write_json

RESULT = ROOT / "benchmarks" / "pipeline.json"
PAGE = ROOT / "docs" / "performance.md"
ROUNDS = 3
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
SEGMENT, PLAIN = "glioslice segment", "plain script"

MOST_TIME, MOST_MEMORY = 0.85, 0.5
"""The gate: processor time and peak memory of `glioslice segment` as shares of the plain script's,
in one run. Measured: about 0.6 and 0.3; warnings, checks and Dice included."""

WAYS = {
    SEGMENT: (ROUNDS, ("-m", "device.segment", "CASE", "--out", "OUT", "--force")),
    PLAIN: (ROUNDS, ("benchmarks/pipeline_plain.py", "CASE", "MODEL", "OUT")),
    "MONAI, 3-D network": (1, ("-m", "benchmarks.pipeline_volumes", "CASE", "OUT")),
}
"""Rounds and arguments of Python for each way."""


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line, measure, and write the page."""
    parser = cli.parser(
        "Measure the way from scan to mask: its stages, and the whole beside two other ways.",
        "python benchmarks/pipeline.py",
    )
    parser.add_argument("--page", action="store_true", help="write the page alone")
    parser.add_argument("--gate", action="store_true", help="compare with the plain script alone")
    parser.add_argument("--phantom", type=Path, metavar="CASE", help=argparse.SUPPRESS)
    parser.add_argument("--stages", type=Path, metavar="CASE", help=argparse.SUPPRESS)
    parser.add_argument("--host", type=Path, metavar="CASE", help=argparse.SUPPRESS)
    cli.run(run_benchmark, parser.parse_args(argv))


def run_benchmark(arguments: argparse.Namespace) -> None:
    """Run what the options choose: a step of a measurement, the gate, or all steps and the page."""
    if arguments.phantom:
        write_phantom(arguments.phantom)
        return
    if arguments.stages:
        print(json.dumps(measure_stages(arguments.stages)))
        return
    if arguments.host:
        print(json.dumps(measure_host(arguments.host)))
        return
    if arguments.gate:
        with tempfile.TemporaryDirectory() as folder:
            print(check_gate(measure_ways(Path(folder), (SEGMENT, PLAIN), rounds=1)))
        return
    if not arguments.page:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder))
    write_page(read_json(RESULT))


def measure(folder: Path) -> None:
    """Measure and write the result again after each way; `folder` is for files."""
    case = make_phantom_case(folder)
    run_python("-m", "benchmarks.pipeline", "--stages", str(case))  # compiles the modules
    runs = [json.loads(run_python("-m", "benchmarks.pipeline", "--stages", str(case))[0])
            for _ in range(ROUNDS)]  # fmt: skip
    hosts = [json.loads(run_python("-m", "benchmarks.pipeline", "--host", str(case))[0])
             for _ in range(ROUNDS)]  # fmt: skip
    result: dict[str, Any] = {
        "machine": f"{processor()}, one thread",
        "stages": min(runs, key=lambda run: float(sum(stage["milliseconds"] for stage in run))),
        "host": min(hosts, key=lambda run: float(run["seconds"])),
    }
    result["ways"] = measure_ways(folder, tuple(WAYS))
    write_json(RESULT, result)


def make_phantom_case(folder: Path) -> Path:
    """Write the phantom into `folder`, by a process of its own, and return its folder."""
    case = folder / "phantom"
    if not case.exists():
        run_python("-m", "benchmarks.pipeline", "--phantom", str(case))
    return case


def measure_ways(
    folder: Path, names: Sequence[str], rounds: int | None = None
) -> dict[str, dict[str, float]]:
    """Return the least processor time and peak memory of some ways; `folder` is for files."""
    model = ROOT / "models" / "compact" / "compact-int8.tflite"
    places = {"CASE": str(make_phantom_case(folder)), "OUT": str(folder), "MODEL": str(model)}
    found = {}
    for name in names:
        usual, arguments = WAYS[name]
        command = [places.get(argument, argument) for argument in arguments]
        used = [run_python(*command)[1] for _ in range(rounds or usual)]
        found[name] = {k: min(u[k] for u in used) for k in ("seconds", "megabytes")}
    return found


def check_gate(ways: dict[str, dict[str, float]]) -> str:
    """Return the ratios of one run as a line; raises GliosliceError if one is above its limit."""
    own, plain = ways[SEGMENT], ways[PLAIN]
    seconds, memory = (own[k] / plain[k] for k in ("seconds", "megabytes"))
    line = (
        f"{SEGMENT} takes {seconds:.2f} of the processor time of a plain script (at most "
        f"{MOST_TIME}) and {memory:.2f} of its memory (at most {MOST_MEMORY})"
    )
    if seconds > MOST_TIME or memory > MOST_MEMORY:
        raise GliosliceError(f"{line}: find what became slower with --stages, and remove it")
    return line


def write_phantom(folder: Path) -> None:
    """Write the phantom as a case with its ground truth."""
    import nibabel as nib
    import numpy as np

    from glioslice.cases import MODALITIES, phantom_case
    from glioslice.labels import BRATS_2018, to_scheme

    case = phantom_case(0)
    assert case.labels is not None
    folder.mkdir()
    volumes = dict(zip(MODALITIES, np.rint(case.images).astype(np.int16), strict=True))
    volumes["seg"] = to_scheme(case.labels, BRATS_2018)
    for name, volume in volumes.items():
        image = nib.Nifti1Image(volume, case.space.affine)
        nib.save(image, folder / f"{folder.name}_{name}.nii.gz")


def run_python(*arguments: str) -> tuple[str, dict[str, float]]:
    """Run Python on one thread; return its stdout, its processor time and its peak memory.

    Linux counts the memory of this process into that peak, so it must stay small.
    Raises GliosliceError if it fails.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, env=compiled_environment(), stdout=output,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise GliosliceError(f"{' '.join(arguments)}: exit code {process.returncode}")
        output.seek(0)
        seconds, megabytes = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        return output.read(), {"seconds": round(seconds, 3), "megabytes": round(megabytes)}


def compiled_environment() -> dict[str, str]:
    """Return the environment of a process on one thread; compiled modules are kept, as usual."""
    kept = {k: value for k, value in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | ONE_THREAD | {"PYTHONPATH": str(ROOT)}


class Terminal(io.StringIO):
    """A text that looks like a terminal, to which progress is reported."""

    def isatty(self) -> bool:
        """Return True."""
        return True


def measure_host(path: Path) -> dict[str, Any]:
    """Stream a case to a simulated board; return what the host needs until slices leave.

    That is the processor time since the start of this process, its peak memory, and the lines on
    stderr until then: what a user sees meanwhile.
    """
    from firmware_host import session, stream

    errors, send_slices = Terminal(), session.send_slices
    found: dict[str, Any] = {}

    def send_and_note(*arguments: Any) -> session.SliceSender:
        found["seconds"] = round(time.process_time(), 3)
        found["megabytes"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        found["lines"] = [line.replace(str(path), "CASE") for line in errors.getvalue().split("\n")]
        return send_slices(*arguments)

    noting = patch.object(session, "send_slices", send_and_note)
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(errors), noting:
        mask = Path(folder) / "mask.nii.gz"
        with redirect_stdout(io.StringIO()):
            stream.main([str(path), "--port", "sim://", "--output", str(mask)])
    found["peak"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return found


def measure_stages(path: Path) -> list[dict[str, Any]]:
    """Return name, milliseconds of processor, and peak memory so far of each stage, in order."""
    stages: list[dict[str, Any]] = []
    began = 0.0

    def end(name: str) -> None:
        nonlocal began
        now = time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        milliseconds = round((now - began) * 1000, 1)
        stages.append({"stage": name, "milliseconds": milliseconds, "megabytes": round(peak)})
        began = now

    from device.engine import Engine
    from glioslice.cases import read_case
    from glioslice.cli import configure_malloc
    from glioslice.metrics import region_dice, volumes_ml
    from glioslice.model_card import find_model
    from glioslice.montage import montage_png
    from glioslice.nifti import write_mask
    from glioslice.preprocessing import iterate_slices
    from glioslice.sanity_checks import case_warnings

    configure_malloc()
    engine = Engine(find_model())
    end("interpreter and imports")
    case = read_case(path)
    end("reading five files")
    _, slices = iterate_slices(case.volumes, engine.card.window, engine.card.clip)
    prepared = [engine.prepare(one) for one in slices]
    end("slices, z-scores, quantization")
    for one in prepared:
        engine.invoke(one)
    end("network")
    case_warnings(case)
    end("warnings")
    assert case.labels is not None
    with tempfile.TemporaryDirectory() as folder:
        write_mask(Path(folder) / "mask.nii.gz", case.labels, case.space)
        end("writing the mask")
    montage_png(case.volumes, case.labels)
    end("montage")
    region_dice(case.labels, case.labels)
    volumes_ml(case.labels)
    end("Dice and volumes")
    return stages


def write_page(result: dict[str, Any]) -> None:
    """Write the figures of a measurement into the page."""
    ways, stages, host = result["ways"], result["stages"], result["host"]
    own = ways[SEGMENT]
    rows = [
        (name, f"{way['seconds']:.2f}", f"{way['seconds'] / own['seconds']:.1f}",
         way["megabytes"], f"{way['megabytes'] / own['megabytes']:.1f}")
        for name, way in ways.items()
    ]  # fmt: skip
    network = next(s["milliseconds"] for s in stages if s["stage"] == "network")
    outside = sum(s["milliseconds"] for s in stages[1:]) - network
    heads = ("way", "processor seconds", "ratio", "peak MB", "ratio of memory")
    fill(
        PAGE,
        {
            "ways": table(heads, rows),
            "stages": table(
                ("stage", "milliseconds", "peak MB so far"),
                [(s["stage"], f"{s['milliseconds']:.0f}", s["megabytes"]) for s in stages],
            ),
            "limit": f"The network takes {network:.0f} ms, and all the rest after the imports "
            f"{outside:.0f} ms.",
            "host": f"`glioslice stream` needs {host['seconds']:.2f} s of processor and "
            f"{host['megabytes']} MB from the command to the first slice that leaves, and "
            f"{host['peak']} MB at most until the mask is written. Meanwhile it prints: "
            + ", ".join(f"*{line}*" for line in host["lines"] if line)
            + ".",
            "machine": f"{result['machine']}; the least of {ROUNDS} rounds, the 3-D network once.",
        },
    )


if __name__ == "__main__":
    main()
