"""Links that eat or double bytes are told from bad ones, within seconds."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Write
from tests.firmware_host import commands
from tests.firmware_host.scripted import SHA256

pytestmark = pytest.mark.slow

Relay = Callable[[str], Path]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """Return a function that connects a scripted board to FOLDER/host by a link of a kind."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str) -> Path:
        folder = tmp_path / kind
        folder.mkdir()
        for module in (("relay", kind, folder), ("scripted", folder / "board", "serve", folder)):
            command = [sys.executable, "-m", f"tests.firmware_host.{module[0]}"]
            process = subprocess.Popen(
                [*command, *map(str, module[1:])], cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            started.append(process)
            if module[0] == "relay":
                assert process.stdout and process.stdout.readline() == "ready\n"
        return folder / "host"

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_run_over_xon_xoff_ends_within_seconds(
    relay: Relay, write_case: Write, tmp_path: Path
) -> None:
    began = time.monotonic()
    options = ("--output", tmp_path / "m.nii.gz", "--allow-model", SHA256, "--quiet")
    done = commands.stream(write_case(), "--port", relay("xonxoff"), *options, seconds=120)
    assert done.returncode == 2
    assert "short frames arrive" in done.stderr
    assert "XON/XOFF" in done.stderr
    assert time.monotonic() - began < 60  # on a busy machine; without the watch 300 s


def test_the_doctor_names_the_cause(relay: Relay) -> None:
    done = commands.stream("--doctor", "--port", relay("xonxoff"), seconds=120)
    assert done.returncode == 2
    assert done.stdout.startswith("bytes altered: ")
    assert "what to do: make the link transparent" in done.stdout


def test_the_same_link_unaltered(relay: Relay, write_case: Write, tmp_path: Path) -> None:
    options = ("--output", tmp_path / "m.nii.gz", "--allow-model", SHA256, "--quiet")
    done = commands.stream(write_case(), "--port", relay("clean"), *options, seconds=120)
    assert done.returncode == 0, done.stderr
