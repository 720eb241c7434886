"""A full disk, and the memory that the host needs for a whole head."""

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from benchmarks.scale_runs import NarrowPipe
from glioslice.cases import MODALITIES
from glioslice.nifti import Space
from glioslice.phantom.head import make_phantom
from tests.conftest import BRATS_2018, ROOT, Write, save
from tests.firmware_host.commands import STREAM_TO_SCRIPTED_BOARD, left_behind, restore_signals

pytestmark = pytest.mark.slow

SMALL = 700
"""Bytes: a JSON report is larger, and so is a mask."""

MEMORY = 400e6
PROGRESS = 150
"""Bytes: a line of it, and not those of a whole case."""

PORT = "sim://?baud=3000000"
PEAK = """
import atexit, sys
from firmware_host import stream
def write_peak():
    status = open("/proc/self/status").read()
    open(sys.argv[1], "w").write(next(l for l in status.splitlines() if l.startswith("VmHWM")))
atexit.register(write_peak)
stream.main(sys.argv[2:])
"""


def small_disk() -> None:
    """Let every file of this process end at SMALL bytes: the system's own error, as a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


@pytest.mark.parametrize("behaviour", ["serve", "exit"])
def test_files_that_do_not_fit(behaviour: str, write_case: Write, tmp_path: Path) -> None:
    """No partial file is left, the last line is the error, and the process has ended."""
    out, case = tmp_path / "out", write_case()
    from tests.firmware_host.scripted import SHA256

    options = ["--port", "sim://?baud=4000000", "--input", case, "--allow-model", SHA256]
    options += ["--output", out / "m.nii.gz", "--report", out / "r.json"]
    done = subprocess.run(
        [sys.executable, "-c", STREAM_TO_SCRIPTED_BOARD, behaviour, str(out), *map(str, options)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, preexec_fn=small_disk, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "File too large" in last
    if behaviour == "exit":  # why the run ended comes first
        assert "the process at the far end has ended" in last
    assert "Traceback" not in done.stderr
    assert not out.exists() or list(out.iterdir()) == []
    assert left_behind(out) == []


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole heads of 240 x 240 x 155."""
    folder, phantom = tmp_path_factory.mktemp("heads"), make_phantom(0)
    affine = Space.lps((240, 240, 155)).affine
    labels = np.where(phantom.labels == 3, 4, phantom.labels).astype(np.uint8)
    for suffix, array in zip((*MODALITIES, "seg"), (*phantom.images, labels), strict=True):
        path = save(folder / "One" / f"One{BRATS_2018[suffix]}.nii", array, affine)
        (folder / "Two").mkdir(exist_ok=True)
        shutil.copy(path, folder / "Two" / path.name.replace("One", "Two"))
    return folder


def look_at(url: str, seen: list[str]) -> None:
    """Be a tab: take all that comes, and fetch every volume of each case; `seen` are their names.

    It ends with the page.
    """
    origin = Origin(url.rsplit("/", 2)[0])
    with suppress(Exception), connect(url.replace("http", "ws") + "feed", origin=origin) as feed:
        for message in feed:
            content = json.loads(message) if isinstance(message, str) else {}
            if content.get("kind") == "case":
                seen.append(content["name"])
                for modality in MODALITIES:
                    with urllib.request.urlopen(url + f"volume/{modality}") as response:
                        response.read()


def peak_while_looked_at(tmp_path: Path, *options: object) -> list[str]:
    """Stream with a page and a tab that fetches all, check the memory, return the cases it saw.

    Nobody reads the progress until the tab is there, so no case is over before.
    """
    pipe = NarrowPipe(PROGRESS)
    process = subprocess.Popen(
        [sys.executable, "-c", PEAK, str(tmp_path / "peak"), *map(str, options), "--view"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=pipe.writer, text=True,
        preexec_fn=restore_signals,
    )  # fmt: skip
    assert process.stdout
    found = re.match(r"page: (\S+) ", process.stdout.readline())
    assert found
    seen: list[str] = []
    tab = threading.Thread(target=look_at, args=(found[1], seen), daemon=True)
    tab.start()
    while not seen:
        assert tab.is_alive()
        time.sleep(0.05)
    printed = []
    for line in pipe.lines():
        printed.append(line)
        if "stays open until Ctrl-C" in line:
            process.send_signal(signal.SIGINT)
    tab.join()
    assert process.wait(300) == 0, printed
    peak = 1024 * int((tmp_path / "peak").read_text().split()[1])
    print(f"{peak / 1e6:.0f} MB")
    assert peak < MEMORY
    return seen


def test_a_case_takes_less_than_400_mb(heads: Path, tmp_path: Path) -> None:
    options = ("--port", PORT, "--input", heads / "One", "--output", tmp_path / "m.nii.gz")
    assert peak_while_looked_at(tmp_path, *options) == [
        "One"
    ]  # several masks a message: no new run


def test_a_folder_takes_less_than_400_mb(heads: Path, tmp_path: Path) -> None:
    """The second case does not come on top of the first."""
    options = ("--port", PORT, "--input", heads, "--output", tmp_path / "out")
    assert peak_while_looked_at(tmp_path, *options) == ["One", "Two"]
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2
