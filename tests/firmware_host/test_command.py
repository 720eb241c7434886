"""`stream.py` as a process of its own, with a scripted board on a simulated line."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

from firmware_host import options, stream
from glioslice.wire.codecs import IMAGES
from glioslice.wire.ports import open_port
from tests.conftest import ROOT, Write
from tests.firmware_host.commands import (
    STREAM_TO_SCRIPTED_BOARD,
    left_behind,
    restore_signals,
)
from tests.firmware_host.scripted import SHA256


def start(behaviour: str, case: Path, out: Path) -> subprocess.Popen[str]:
    options = ["--port", "sim://?baud=4000000", "--input", case, "--allow-model", SHA256]
    options += ["--output", out / "m.nii.gz", "--report", out / "r.json"]
    return subprocess.Popen(
        [sys.executable, "-c", STREAM_TO_SCRIPTED_BOARD, behaviour, str(out), *map(str, options)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=restore_signals,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], expected: str) -> str:
    assert process.stderr
    lines = ""
    while expected not in lines:
        line = process.stderr.readline()
        assert line, f"ended without '{expected}': {lines}"
        lines += line
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_keeps_what_arrived(
    number: signal.Signals, write_case: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(f"gate:{tmp_path / 'never'}", write_case(), out)
    wait_for(process, ": 3 of 14")
    process.send_signal(number)
    _, printed = process.communicate(timeout=120)
    assert process.returncode == 130, printed
    match = re.search(
        r"^interrupted; (\d+) of 14 masks are kept in .*m\.partial\.nii\.gz$", printed, re.M
    )
    assert match, printed
    assert "Traceback" not in printed
    report = json.loads((out / "r.json").read_text())
    assert report["complete"] is False
    assert report["masks"] == int(match[1]) >= 3
    assert sorted(p.name for p in out.iterdir()) == ["m.partial.nii.gz", "r.json"]
    kept = nib.Nifti1Image.from_filename(out / "m.partial.nii.gz")
    assert kept.shape == (28, 36, 20)
    assert left_behind(out) == []


@pytest.mark.slow
def test_a_board_that_dies_in_the_middle(write_case: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _, printed = (process := start("exit", write_case(), out)).communicate(timeout=120)
    assert process.returncode == 2
    last = printed.splitlines()[-1]
    assert "the process at the far end has ended (exit code 7)" in last
    assert "4 of 14 masks are kept in" in last
    assert sorted(p.name for p in out.iterdir()) == ["m.partial.nii.gz", "r.json"]
    assert left_behind(out) == []


def exit_code(*options: object) -> int:
    with pytest.raises(SystemExit) as end:
        stream.main([str(option) for option in options])
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "--port is missing"),
        (("--port", "COM3", "--play"), "are for --port sim://"),
        (("--port", "COM3", "--model", "m"), "are for --port sim://"),
        (("--port", "sim://", "--play"), "--play needs CASE"),
        (("A", "--input", "B", "--port", "COM3"), "give one of them"),
        (("--port", "COM3", "--view", "CASE"), "put CASE before --view"),
        (("--port", "COM3", "--images", "jpeg"), "invalid choice: 'jpeg'"),
    ],
)
def test_options_that_do_not_go_together(
    options: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*options) == 2
    assert expected in capsys.readouterr().err


def test_ports_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    near, far = pty.openpty()
    held = open_port(os.ttyname(far))
    try:
        for port, expected in (
            ("/dev/ttyNONE0", "there is no such port"),
            (os.ttyname(far), "another program uses this port"),
            ("sim://?speed=3", "no option 'speed'"),
        ):
            assert exit_code("--port", port) == 2
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1
            assert lines[0].startswith(f"error: {port}: ")
            assert expected in lines[0]
    finally:
        held.close()
        os.close(near)
        os.close(far)
    assert os.listdir(tmp_path) == []


def test_help_shows_an_example_and_the_script_starts_from_anywhere(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "firmware_host" / "stream.py"), "--help"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "glioslice stream CASE --port" in done.stdout


def test_the_codecs_of_the_command_are_those_of_the_wire() -> None:
    assert set(options.CODECS) == {"lossless", *(codec.name for codec in IMAGES.values())}


LOADING = """
import sys, time
from firmware_host import stream
class Slow:
    def find_spec(self, name, *rest):
        if name == "firmware_host.run":
            print("loading", flush=True)
            time.sleep(300)
sys.meta_path.insert(0, Slow())
stream.main(["--port", "sim://"])
"""


def test_ctrl_c_while_modules_load_ends_with_one_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOADING], cwd=ROOT, preexec_fn=restore_signals,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=120)[1]
    assert (process.returncode, printed) == (130, "interrupted\n")


def test_no_pty_or_termios_is_imported_by_the_command_itself() -> None:
    """Windows has neither. pyserial imports termios on POSIX, so only our files are searched."""
    code = "import sys, firmware_host.run, firmware_host.doctor; "
    code += "print('pty' in sys.modules, 'tty' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False False", done.stderr
    for path in (ROOT / "firmware_host").glob("*.py"):
        assert not re.search(r"import (pty|tty|termios|fcntl)\b", path.read_text())


def test_the_command_starts_from_a_checkout() -> None:
    script = [sys.executable, str(ROOT / "firmware_host" / "stream.py"), "--help"]
    done = subprocess.run(script, cwd="/", capture_output=True, text=True, check=True)
    assert "a folder of cases" in done.stdout
