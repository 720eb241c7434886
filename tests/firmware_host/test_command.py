"""The command as a process of its own, with a scripted board behind a simulated line."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import pytest

from firmware_host import options as command_line
from firmware_host import stream
from glioslice.wire.codecs import IMAGES
from glioslice.wire.ports import open_port
from tests.conftest import ROOT, Write
from tests.firmware_host.scripted import SHA256

RUN = """
import sys
from firmware_host import stream
behaviour, tag, *words = sys.argv[1:]
board = [sys.executable, "-m", "tests.firmware_host.scripted", "{port}", behaviour, tag]
stream.main(words, far_end=lambda arguments: board)
"""


def start(behaviour: str, case: Path, out: Path) -> subprocess.Popen[str]:
    words = ["--port", "sim://?baud=4000000", "--input", case, "--allow-model", SHA256]
    words += ["--output", out / "m.nii.gz", "--report", out / "r.json"]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, behaviour, str(out), *map(str, words)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=hear_signals,
    )  # fmt: skip


def wait_for(process: subprocess.Popen[str], words: str) -> str:
    assert process.stderr
    heard = ""
    while words not in heard:
        line = process.stderr.readline()
        assert line, f"ended without '{words}': {heard}"
        heard += line
    return heard


def processes() -> list[str]:
    """Return the process id and the whole command line of everything that runs."""
    listed = subprocess.run(["ps", "-ewwo", "pid=,args="], capture_output=True, text=True)
    return listed.stdout.splitlines()


def hear_signals() -> None:
    """Undo in a child what a shell's `&` does, which ignores Ctrl-C, and nohup, which SIGHUP."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def left_behind(tag: Path, patience: float = 10.0) -> list[str]:
    """Return the processes that still bear `tag` in their command line."""
    deadline = time.monotonic() + patience
    while True:
        found = [line for line in processes() if str(tag) in line]
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_keeps_what_arrived(
    number: signal.Signals, write_case: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start("slow", write_case(), out)
    wait_for(process, ": 3 of 14")
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    match = re.search(
        r"^interrupted; (\d+) of 14 masks are kept in .*m\.partial\.nii\.gz$", said, re.M
    )
    assert match, said
    assert "Traceback" not in said
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
    _, said = (process := start("exit", write_case(), out)).communicate(timeout=30)
    assert process.returncode == 2
    last = said.splitlines()[-1]
    assert "the process at the far end has ended (exit code 7)" in last
    assert "4 of 14 masks are kept in" in last
    assert sorted(p.name for p in out.iterdir()) == ["m.partial.nii.gz", "r.json"]
    assert left_behind(out) == []


def ends(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        stream.main([str(word) for word in words])
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--port is missing"),
        (("--port", "COM3", "--play"), "are for --port sim://"),
        (("--port", "COM3", "--model", "m"), "are for --port sim://"),
        (("--port", "sim://", "--play"), "--play needs --input"),
        (("--port", "COM3", "--images", "jpeg"), "invalid choice: 'jpeg'"),
    ],
)
def test_words_that_do_not_go_together(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends(*words) == 2
    assert said in capsys.readouterr().err


def test_ports_that_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    near, far = pty.openpty()
    held = open_port(os.ttyname(far))
    try:
        for port, said in (
            ("/dev/ttyNONE0", "there is no such port"),
            (os.ttyname(far), "another program holds this port"),
            ("sim://?speed=3", "no option 'speed'"),
        ):
            assert ends("--port", port) == 2
            lines = capsys.readouterr().err.splitlines()
            assert len(lines) == 1
            assert lines[0].startswith(f"error: {port}: ")
            assert said in lines[0]
    finally:
        held.close()
        os.close(near)
        os.close(far)
    assert os.listdir(tmp_path) == []


def test_help_shows_an_example_and_the_script_starts_from_anywhere(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "firmware_host" / "stream.py"), "--help"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "python firmware_host/stream.py --port sim:// --input CASE" in done.stdout


def test_names_of_the_wire_are_those_of_the_command() -> None:
    assert set(command_line.CODECS) == {"lossless", *(codec.name for codec in IMAGES.values())}


LOADING = """
import sys, time
from firmware_host import stream
class Slow:
    def find_spec(self, name, *rest):
        if name == "firmware_host.run":
            print("loading", flush=True)
            time.sleep(20)
sys.meta_path.insert(0, Slow())
stream.main(["--port", "sim://"])
"""


def test_ctrl_c_while_the_command_loads_ends_with_a_line() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LOADING], cwd=ROOT, preexec_fn=hear_signals,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=20)[1]
    assert (process.returncode, said) == (130, "interrupted\n")


def test_no_pty_or_termios_is_imported_by_the_command_itself() -> None:
    """Windows has neither; pyserial imports termios on POSIX, so ours are looked for by name."""
    code = "import sys, firmware_host.run, firmware_host.doctor; "
    code += "print('pty' in sys.modules, 'tty' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False False", done.stderr
    for path in (ROOT / "firmware_host").glob("*.py"):
        assert not re.search(r"import (pty|tty|termios|fcntl)\b", path.read_text())
