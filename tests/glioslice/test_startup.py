"""Ctrl-C while a program starts: one line, exit code 130, nothing written."""

import ast
import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest

from glioslice import cli, startup
from tests.conftest import ROOT, Write
from tests.firmware_host.commands import restore_signals

SCRIPTS = ("glioslice", "device", "firmware_host", "scanner", "training", "convert")
"""Packages whose modules people run."""

GUARD = "if __name__ == '__main__':"
START = f"{GUARD}\n    from glioslice import startup\n    startup.begin()"

MOMENTS, WINDOW = 5, 1.0
"""Interrupts of each program, within this many seconds from its first line on."""

TRACED = "import time:"
"""What `python -X importtime` prints for each module."""


def console_script() -> list[str]:
    """What `glioslice` runs, as pip writes it from pyproject.toml; there may be none here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["glioslice"].partition(":")
    return ["-c", f"from {module} import {name}; {name}()"]


Options = Callable[[Path, Path], list[str]]
"""A program's options, from a case and an empty folder."""

PROGRAMS: dict[str, tuple[list[str], Options]] = {
    "glioslice segment": (
        [*console_script(), "segment"], lambda case, out: [str(case), "--out", str(out)]
    ),
    "glioslice prepare": (
        [*console_script(), "prepare"], lambda case, out: [str(case), "--out", str(out / "case")]
    ),
    "python -m device": (["-m", "device"], lambda case, out: ["--port", "loop://"]),
    "stream.py": (
        ["firmware_host/stream.py"],
        lambda case, out: [str(case), "--port", "sim://", "--output", str(out / "m.nii.gz")],
    ),
    "train.py": (
        ["training/train.py"],
        lambda case, out: ["--data", str(case.parent), "--out", str(out / "run")],
    ),
    "to_tflite.py": (
        ["convert/to_tflite.py"], lambda case, out: ["--out", str(out / "models")]
    ),
    "segment.py": (["device/segment.py"], lambda case, out: [str(case), "--out", str(out)]),
}  # fmt: skip


def interrupted(program: str, case: Path, out: Path, delay: float) -> tuple[int, str]:
    """Run a program and interrupt it `delay` seconds after its first line; code and stderr."""
    command, options = PROGRAMS[program]
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", *command, *options(case, out)], cwd=ROOT, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=restore_signals,
    )  # fmt: skip
    assert process.stderr
    while "glioslice.startup" not in (line := process.stderr.readline()):
        assert line, "ended before its first line"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[1]
    return process.returncode, "\n".join(s for s in printed.splitlines() if TRACED not in s)


def check_interrupted(program: str, case: Path, out: Path, delay: float) -> None:
    out.mkdir()
    code, printed = interrupted(program, case, out, delay)
    assert "Traceback" not in printed and "KeyboardInterrupt" not in printed, (delay, printed)
    assert code == 130 or delay > WINDOW / 4, (delay, code, printed)
    if code == 130:
        assert printed.splitlines()[-1].startswith("interrupted"), (delay, printed)
    else:  # it had ended: prepare gets no study; or it is the server, which stops without an error
        assert code == (2 if program == "glioslice prepare" else 0), (delay, printed)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert not [path for path in files if path.name.startswith(".")]
    for path in out.rglob("*.nii.gz"):
        assert nib.Nifti1Image.from_filename(path).get_fdata().shape == (28, 36, 20)


def test_an_interrupt_while_modules_load_is_one_line(write_case: Write, tmp_path: Path) -> None:
    check_interrupted("segment.py", write_case(), tmp_path / "out", 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_an_interrupt_within_the_first_second(
    program: str, write_case: Write, tmp_path: Path
) -> None:
    draw, case = random.Random(program), write_case(folder=tmp_path / "cases")
    for number in range(MOMENTS):
        delay = (number + draw.random()) / MOMENTS * WINDOW
        check_interrupted(program, case, tmp_path / f"out-{number}", delay)


def test_every_program_starts_like_this() -> None:
    programs = []
    for path in (path for package in SCRIPTS for path in (ROOT / package).rglob("*.py")):
        blocks = [ast.unparse(node) for node in ast.parse(path.read_text()).body[1:]]
        if any(block.startswith(GUARD) for block in blocks):
            programs.append(path.relative_to(ROOT))
            assert blocks[0] == START, path
    assert len(programs) >= 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "package", "extra"),
    [
        ("training/train.py", "torch", "[train]"),
        ("convert/to_tflite.py", "torch", "[convert]"),
        ("device/segment.py", "numpy", "[device]"),
        ("glioslice/check.py", "nibabel", ""),
        ("glioslice train", "monai", "[train]"),
    ],
)
def test_a_missing_package_is_one_line(program: str, package: str, extra: str) -> None:
    run = f"runpy.run_path({program!r}, run_name='__main__')"
    if program == "glioslice train":
        run = f"sys.argv = ['glioslice', 'train']; {console_script()[1]}"
    done = subprocess.run(
        [sys.executable, "-c", f"import runpy, sys; sys.modules[{package!r}] = None; {run}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    install = f"run: pip install 'glioslice{extra}'"
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {package} is not installed; {install}\n"


def test_a_package_that_a_running_command_misses(capsys: pytest.CaptureFixture[str]) -> None:
    def need(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    given = cli.parser("d", "e").parse_args([])
    with pytest.raises(SystemExit) as end:
        cli.run(lambda _: need("scipy.ndimage"), given)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: scipy is not installed; run: pip install")
    with pytest.raises(ModuleNotFoundError):  # a defect
        cli.run(lambda _: need("glioslice.nowhere"), given)


def test_a_command_that_runs_gets_a_keyboard_interrupt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_programs", [])

    def interrupt(_arguments: object) -> None:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        os.kill(os.getpid(), signal.SIGINT)

    startup.begin()
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    with pytest.raises(SystemExit) as end:
        cli.run(interrupt, cli.parser("d", "e").parse_args([]))
    assert end.value.code == 130 and capsys.readouterr().err == "interrupted\n"
    os.kill(os.getpid(), signal.SIGINT)  # a second one, as of `timeout -s INT`, changes nothing


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "_programs", [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    startup.begin()
    with startup.importing():
        os.kill(os.getpid(), signal.SIGINT)
    startup.end()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_handlers_return_after_the_imports() -> None:
    signal.signal(signal.SIGTERM, handler := lambda *_: None)
    with startup.importing():
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_c_code_does_not_meet_an_interrupt() -> None:
    """It would make another error of it, as LiteRT does while it imports numpy."""
    done = []
    with pytest.raises(KeyboardInterrupt), startup.delayed_interrupt():
        signal.raise_signal(signal.SIGINT)
        done.append("the block went on")
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
