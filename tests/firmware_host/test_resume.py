"""Runs that continue after a pulled cable, a killed host or a restarted board."""

import json
import math
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from glioslice.phantom.head import make_phantom
from glioslice.wire import messages
from glioslice.wire.sniffer import Sniffer
from tests.conftest import ROOT
from tests.firmware_host.commands import STREAM, left_behind, restore_signals, stream, write_slab

pytestmark = pytest.mark.slow

LOSSLESS = ("--images", "lossless")
"""So that a run takes its time, and its masks are those of a played one."""

SUPERVISED = """
import subprocess, sys
from firmware_host import stream
stream.main(sys.argv[2:], far_end=lambda arguments: [
    sys.executable, "-m", "tests.firmware_host.supervisor", sys.argv[1], "{port}"])
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty slices of the phantom around its tumour."""
    phantom = make_phantom(0)
    middle = int(np.argmax((phantom.labels > 0).sum(axis=(0, 1))))
    first = min(max(middle - 30, 0), phantom.images.shape[-1] - 60)
    slab: NDArray[np.float32] = phantom.images[..., first : first + 60]
    return write_slab(tmp_path_factory.mktemp("case") / "Muster_1961", slab, "2018")


@pytest.fixture(scope="module")
def wanted(case: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The mask of an undisturbed run."""
    return undisturbed(case, tmp_path_factory.mktemp("wanted"), *LOSSLESS)


def undisturbed(case: Path, folder: Path, *options: str) -> bytes:
    """Return the mask of a run over a clean, fast line."""
    out = folder / "wanted.nii"
    done = stream("--port", "sim://?baud=4000000", "--input", case, "--output", out, *options)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


@pytest.mark.parametrize("options", [LOSSLESS, ("--play",)], ids=["serve", "play"])
def test_a_cable_that_is_unplugged_for_seconds(
    options: tuple[str, ...], case: Path, wanted: bytes, tmp_path: Path
) -> None:
    url = "sim://?baud=460800&errors=1e-5&latency=16ms&unplug=8s&after=2500ms"
    out = tmp_path / "m.nii"
    done = stream("-v", "--port", url, "--input", case, "--output", out, *options)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == wanted
    if options == LOSSLESS:  # a played run may be over by then
        assert "waiting up to 60 s" in done.stderr
        assert "the line is back" in done.stderr


class Relay:
    """A board at one end of a socket, and hosts that connect to it one after the other."""

    def __init__(self, *options: str) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self.server.getsockname()[1]}"
        self.crossed, self.options = bytearray(), options
        self.most = math.inf
        """Masks after which nothing more reaches a host: its run stays half done."""
        self._sniffer, self._lock = Sniffer(), threading.Lock()
        self._session = self._session_before = 0
        command = [sys.executable, "-m", "device", "--port", self.url, *options]
        self.board = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.line, _ = self.server.accept()
        self.host: socket.socket | None = None
        self._cut_off: socket.socket | None = None
        for target in (self._up, self._down):
            threading.Thread(target=target, daemon=True).start()
        self.lines: list[str] = []
        self._log_reader = threading.Thread(target=self._read_log, daemon=True)
        self._log_reader.start()

    def _up(self) -> None:
        with suppress(OSError):
            while True:
                host, _ = self.server.accept()
                self._session_before, self.host = self._session, host
                while data := self._received(host):
                    self._count_masks(data, up=True)
                    self.line.sendall(data)
                self.host = None

    def _down(self) -> None:
        while data := self._received(self.line, 256):
            host = self.host
            if host is not None and host is not self._cut_off:
                with suppress(OSError):
                    host.sendall(data)
            if self._count_masks(data, up=False) >= self.most:
                self._cut_off = host

    def _count_masks(self, data: bytes, up: bool) -> int:
        """Note what crosses; return how many of the case's masks have reached this host with it."""
        last = 0
        with self._lock:
            self.crossed += data
            for frame in self._sniffer.feed(up, data, 0.0):
                self._session = max(self._session, frame.session)
                if up or frame.session <= self._session_before:
                    continue
                for message in map(messages.parse, frame.messages):
                    if isinstance(message, messages.Mask):
                        last = message.index + 1
                    elif isinstance(message, messages.Empty):
                        last = message.stop
        return last

    def _received(self, end: socket.socket, most: int = 4096) -> bytes:
        try:
            return end.recv(most)
        except OSError:
            return b""

    def _read_log(self) -> None:
        assert self.board.stdout
        self.lines.extend(line.strip() for line in self.board.stdout)

    def log(self) -> list[str]:
        """Return the lines of the board, which ends."""
        self.board.terminate()
        self.board.wait(60.0)
        self._log_reader.join()
        return self.lines

    def close(self) -> None:
        self.log()
        self.server.close()
        self.line.close()


@pytest.fixture(params=["serve", "play"])
def relay(request: pytest.FixtureRequest, case: Path) -> Iterator[Relay]:
    made = Relay(*(["--input", str(case)] if request.param == "play" else []))
    yield made
    made.close()


def test_a_host_that_is_killed_and_restarted_continues(
    relay: Relay, case: Path, wanted: bytes, tmp_path: Path
) -> None:
    serve = "--input" not in relay.options
    options = ["--input", str(case), *LOSSLESS] if serve else []
    killed_twice(relay, tmp_path, *options)
    assert (tmp_path / "m.nii").read_bytes() == wanted


def test_a_lossy_run_continues_too(case: Path, tmp_path: Path) -> None:
    relay = Relay()
    try:
        killed_twice(relay, tmp_path, "--input", str(case))
    finally:
        relay.close()
    assert json.loads((tmp_path / "r.json").read_text())["lossless"] is False
    assert (tmp_path / "m.nii").read_bytes() == undisturbed(case, tmp_path)


def killed_twice(relay: Relay, folder: Path, *more: str) -> None:
    """Kill a host in the midst of its run, and the next one; the third ends it."""
    options = ["--port", relay.url, "--output", str(folder / "m.nii"), "--force"]
    options += ["--report", str(folder / "r.json"), *more]
    for number, count in enumerate((12, 24)):
        relay.most = count + 8
        killed = subprocess.Popen(
            [*STREAM, *options], stderr=subprocess.PIPE, text=True, preexec_fn=restore_signals
        )
        assert killed.stderr
        lines = []
        for line in killed.stderr:
            lines.append(line)
            found = re.search(r": (\d+) of 60", line)
            if found and int(found[1]) >= count:
                break
        else:
            raise AssertionError(lines)
        while sum("recalled" in line for line in relay.lines) < number:
            time.sleep(0.05)  # the board sends them all before it goes on
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        killed.stderr.close()
    relay.most = math.inf
    done = stream(*options)
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "r.json").read_text())["masks"] == 60
    log = relay.log()
    known = [int(line.split()[0]) for line in log if "recalled" in line]
    assert len(known) == 2 and 12 <= known[0] <= known[1]
    # No slice is computed twice. A playing board goes on while nobody listens.
    ends = [re.match(r"run ended: (\d+) masks", line) for line in log]
    worked = sum(int(end[1]) for end in ends if end)
    left = 60 - max((number for number in known if number < 60), default=0)
    assert worked == left if "--input" in more else worked <= left


def test_no_name_or_header_of_a_scan_crosses_the_link(
    relay: Relay, case: Path, tmp_path: Path
) -> None:
    serve = "--input" not in relay.options
    options = ["--port", relay.url, "--output", str(tmp_path / "m.nii")]
    assert stream(*options, *(["--input", str(case)] if serve else [])).returncode == 0
    crossed = bytes(relay.crossed).lower()
    assert len(crossed) > 3000 and b"compact" in crossed  # the model's name does cross
    secrets = {*case.parts[1:], *(path.name for path in case.iterdir()), "muster", "1961", "2018"}
    secrets |= {"flair", "t1ce", ".nii", "n+1\0", "nibabel", str(tmp_path)}
    for secret in (one for one in secrets if len(one) > 3):  # shorter ones come by chance
        for coding in ("ascii", "utf-16-le", "utf-16-be"):
            assert secret.lower().encode(coding) not in crossed, secret


def test_a_board_that_dies_and_restarts_gets_the_missing_slices(
    case: Path, wanted: bytes, tmp_path: Path
) -> None:
    options = ["--port", "sim://?baud=460800", "--input", str(case), *LOSSLESS]
    options += ["--output", str(tmp_path / "m.nii"), "--report", str(tmp_path / "r.json")]
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISED, str(tmp_path), *options],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "the board has restarted" in done.stderr
    assert (tmp_path / "m.nii").read_bytes() == wanted
    assert json.loads((tmp_path / "r.json").read_text())["complete"] is True
    runs = (tmp_path / "runs").read_text().split()
    assert len(runs) == 2 and int(runs[1]) < 60  # the second board had less to do
    assert left_behind(tmp_path) == []
