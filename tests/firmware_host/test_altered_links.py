"""Links that eat or double bytes are told from bad ones, within seconds."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from firmware_host import diagnosis
from glioslice.wire.connection import Connection
from glioslice.wire.link import Counts
from tests.conftest import ROOT, Write
from tests.firmware_host import commands
from tests.firmware_host.scripted import SHA256

pytestmark = pytest.mark.slow

Relay = Callable[..., Path]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """Return a function that connects a board, scripted or real, to FOLDER/host by a link."""
    started: list[subprocess.Popen[str]] = []

    def start(kind: str, *, real: bool = False) -> Path:
        folder = tmp_path / kind
        folder.mkdir()
        board: list[object] = ["tests.firmware_host.scripted", folder / "board", "serve", folder]
        if real:
            board = ["device", "--port", folder / "board"]
        for module in (["tests.firmware_host.relay", kind, folder], board):
            process = subprocess.Popen(
                [sys.executable, "-m", *map(str, module)], cwd=ROOT, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            started.append(process)
            assert process.stdout and process.stdout.readline().lower().startswith("ready")
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
    done = commands.stream(write_case(), "--port", relay("xonxoff"), *options)
    assert done.returncode == 2
    assert "XON/XOFF" in done.stderr
    assert time.monotonic() - began < 150  # on a busy machine; without the watch 300 s


@pytest.mark.parametrize(
    ("kind", "cause", "advice"),
    [
        ("xonxoff", "0x11, 0x13 do not cross: software flow control", "-ixon -ixoff"),
        ("telnet", "0xFF does not cross: a telnet or RFC 2217 server", "raw, not telnet"),
        ("parmrk", "every 0xFF arrives twice: the host's port marks", "-parmrk"),
        ("crlf", "0x0D does not cross: line ends are translated", "raw"),
        ("cooked", "0x15, 0x1A, 0x7F do not cross: a terminal", "raw"),
    ],
)
def test_the_doctor_names_the_cause(kind: str, cause: str, advice: str, relay: Relay) -> None:
    done = commands.stream("--doctor", "--port", relay(kind, real=True))
    assert done.returncode == 2
    finding, what_to_do = done.stdout.splitlines()[-2:]
    assert finding.startswith("bytes altered: ") and cause in finding
    assert what_to_do.startswith("what to do: ") and advice in what_to_do


@pytest.mark.parametrize(
    ("kind", "name", "hint"),
    [("seven", "silence", "8 data bits"), ("nul", "silence", "no flow control")],
)
def test_what_lets_no_frame_through_is_silence(
    kind: str, name: str, hint: str, relay: Relay
) -> None:
    done = commands.stream("--doctor", "--port", relay(kind, real=True))
    assert done.returncode == 2
    finding, what_to_do = done.stdout.splitlines()[-2:]
    assert finding.startswith(f"{name}: ")
    assert hint in what_to_do


def test_the_same_link_unaltered(relay: Relay, write_case: Write, tmp_path: Path) -> None:
    options = ("--output", tmp_path / "m.nii.gz", "--allow-model", SHA256, "--quiet")
    done = commands.stream(write_case(), "--port", relay("clean"), *options)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("unplugged", [False, True])
def test_what_failed_while_a_cable_was_pulled_does_not_count(
    unplugged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first frames may come just when the counts are looked at."""
    link = SimpleNamespace(name="P", progress=(1, 0, 0), counts=Counts())
    now = 0.0
    monkeypatch.setattr(diagnosis, "time", SimpleNamespace(monotonic=lambda: now))
    watch = diagnosis.LinkWatch(cast(Connection, link))
    while now < diagnosis.STUCK:
        watch.check()
        now += 0.5
        heard = 0 if unplugged else int(now)
        link.counts = Counts(retransmits=int(2 * now), frames_received=heard)
    link.counts = replace(link.counts, frames_received=9)
    with nullcontext() if unplugged else pytest.raises(diagnosis.LinkAltersBytes):
        watch.check()
