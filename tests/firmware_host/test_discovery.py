"""The board among the ports: pseudo-terminals with the real device process, and with strangers."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firmware_host import discovery
from firmware_host.discovery import Found, port_of
from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.model_card import default_model
from glioslice.wire.messages import VERSION
from glioslice.wire.ports import PortError, open_port
from tests.conftest import ROOT, Write

GPS = b"$GPGGA,123519,4807.038,N,01131.000,E*47\r\n"
RUN = """
import json, sys
from firmware_host import finding, stream
ports = json.loads(sys.argv[1])
finding.listed = lambda: [(port, "a converter") for port in ports]
stream.main(sys.argv[2:])
"""


@dataclass
class Stranger:
    """A port at whose far end is no board: it says `says` ten times a second, and hears."""

    says: bytes = b""
    heard: bytearray = field(default_factory=bytearray)
    answers: Callable[[bytes], bytes] = lambda data: b""
    over: bool = False

    def __post_init__(self) -> None:
        self.near, self.far = pty.openpty()
        tty.setraw(self.far)
        self.port = os.ttyname(self.far)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while not self.over:
            if select.select([self.near], [], [], 0.1)[0]:
                data = os.read(self.near, 4096)
                self.heard += data
                os.write(self.near, self.answers(data))
            elif self.says:
                os.write(self.near, self.says)

    def close(self) -> None:
        self.over = True
        self.thread.join(5)
        os.close(self.far)
        os.close(self.near)


@pytest.fixture
def stranger() -> Iterator[Callable[..., Stranger]]:
    made: list[Stranger] = []

    def make(*words: object, **more: object) -> Stranger:
        made.append(Stranger(*words, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


class Board:
    """The real device's process at one pseudo-terminal, joined to another, which is the desk's."""

    def __init__(self) -> None:
        self.ends = [pty.openpty(), pty.openpty()]
        for _, far in self.ends:
            tty.setraw(far)
        own, self.port = (os.ttyname(far) for _, far in self.ends)
        self.over = False
        self.threads = [
            threading.Thread(target=self._pass, args=way, daemon=True) for way in ((0, 1), (1, 0))
        ]
        for thread in self.threads:
            thread.start()
        command = [sys.executable, "-m", "device", "--port", own, "--baud", "115200"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert self.process.stdout.readline().startswith("READY")

    def _pass(self, one: int, other: int) -> None:
        while not self.over:
            if select.select([self.ends[one][0]], [], [], 0.1)[0]:
                os.write(self.ends[other][0], os.read(self.ends[one][0], 4096))

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=20)
        self.over = True
        for thread in self.threads:
            thread.join(5)
        for near, far in self.ends:
            os.close(near)
            os.close(far)


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    made = Board()
    yield made
    made.close()


def desk(
    ports: list[str], *words: object, seconds: float = 120
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN, json.dumps(ports), *map(str, words)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )


@pytest.mark.slow
def test_the_board_among_strangers_is_found_and_streamed_to(
    board: Board, stranger: Callable[..., Stranger], write_case: Write, tmp_path: Path
) -> None:
    silent, speaking = stranger(), stranger(GPS)
    held = open_port((busy := stranger()).port)
    ports = [silent.port, speaking.port, busy.port, board.port, "/dev/ttyNONE0"]
    out = tmp_path / "m.nii.gz"
    try:
        done = desk(ports, "--port", "auto", "--input", write_case(), "--output", out)
    finally:
        held.close()
    assert done.returncode == 0, done.stderr
    assert out.is_file()
    told = dict(line.split(": ", 1) for line in done.stderr.splitlines() if line.startswith("/dev"))
    assert told[silent.port].startswith("no board: opens, but nothing is heard")
    assert told[speaking.port].startswith("no board: something else speaks there, '$GPGGA,123519")
    assert told[busy.port].startswith("no board: another program holds this port")
    assert told["/dev/ttyNONE0"].startswith("no board: there is no such port")
    assert told[board.port].startswith("board: model compact, SHA-256 ")
    assert bytes(speaking.heard) == bytes(busy.heard) == b""  # not a byte
    assert len(silent.heard) < 1000


@pytest.mark.slow
def test_the_list(board: Board, stranger: Callable[..., Stranger]) -> None:
    silent = stranger()
    began = time.monotonic()
    done = desk([silent.port, board.port], "--list")
    assert time.monotonic() - began < discovery.LIMIT + 12  # the modules load, too
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{silent.port}  a converter") and "no board: opens, but" in first
    assert second.startswith(f"{board.port}  a converter")
    digest = sha256(default_model())
    assert f"board: model compact, SHA-256 {digest[:16]}..., protocol {VERSION}" in second
    done = desk([silent.port, board.port], "--list", "--json")
    one, other, end = (json.loads(line) for line in done.stdout.splitlines())
    assert (one["port"], one["model"]) == (silent.port, None)
    assert other == {
        "event": "port", "port": board.port, "description": "a converter",
        "model": {"name": "compact", "sha256": digest}, "protocol": VERSION, "wrong": None,
    }  # fmt: skip
    assert end == {"event": "end", "state": "complete", "error": None}


@pytest.mark.slow
def test_two_hosts_on_one_port(board: Board, write_case: Write, tmp_path: Path) -> None:
    """The second is told so, and the first does not feel it."""
    case, out = write_case(), tmp_path / "m.nii.gz"
    words = ["--port", board.port, "--baud", "115200", "--input", str(case)]
    first = subprocess.Popen(
        [sys.executable, "-c", RUN, "[]", *words, "--output", str(out)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stderr
    line = first.stderr.readline()
    while "of 14" not in line and line:
        line = first.stderr.readline()
    board.process.send_signal(signal.SIGSTOP)  # the first one's run goes on only after the second
    try:
        second = desk([board.port], *words, "--output", tmp_path / "n.nii.gz")
        listed = desk([board.port], "--list")
    finally:
        board.process.send_signal(signal.SIGCONT)
    _, rest = first.communicate(timeout=120)
    assert first.returncode == 0, rest
    assert out.is_file() and not (tmp_path / "n.nii.gz").exists()
    assert second.returncode == 2
    assert f"error: {board.port}: another program holds this port" in second.stderr
    assert "no board: another program holds this port" in listed.stdout


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "this machine has no serial port; plug the board in"),
        ([("A", ""), ("B", "busy")], "no board answers at any port (A: silent; B: busy)"),
    ],
)
def test_no_board(
    found: list[tuple[str, str]], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [Found(port, "", wrong=wrong or "silent") for port, wrong in found]
    monkeypatch.setattr(discovery, "find", lambda baud: ports)
    said: list[str] = []
    with pytest.raises(GliosliceError) as error:
        port_of("AUTO", None, said.append)
    assert words in str(error.value)
    assert len(said) == len(ports)


def test_several_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.firmware_host.scripted import HELLO

    ports = [Found("A", "", HELLO), Found("B", "", wrong="silent"), Found("C", "", HELLO)]
    monkeypatch.setattr(discovery, "find", lambda baud: ports)
    with pytest.raises(GliosliceError, match=r"boards answer at A \(rule\) and C \(rule\); name"):
        port_of("auto", None, lambda line: None)
    monkeypatch.setattr(discovery, "find", lambda baud: ports[1:])
    assert port_of("auto", None, lambda line: None) == "C"
    assert port_of("/dev/ttyX", None, lambda line: None) == "/dev/ttyX"  # nothing is asked


def test_bluetooth_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [("/dev/rfcomm0", "n/a"), ("COM7", "Standard Serial over Bluetooth link (COM7)")]
    monkeypatch.setattr(discovery, "listed", lambda: ports)
    monkeypatch.setattr(discovery, "asked", lambda *words, **more: pytest.fail("it was opened"))
    assert [one.wrong for one in discovery.find()] == ["Bluetooth, not asked"] * 2


def test_a_port_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*words: object, **more: object) -> None:
        release.wait(20)
        raise PortError("at last", "lost")

    monkeypatch.setattr(discovery, "listed", lambda: [("/dev/ttyHANGS", "")])
    monkeypatch.setattr(discovery, "open_port", hang)
    monkeypatch.setattr(discovery, "LIMIT", 0.3)
    began = time.monotonic()
    [one] = discovery.find()
    assert time.monotonic() - began < 2
    assert one.hello is None and "no answer within" in one.wrong
    release.set()


def test_a_console_that_boots_is_left_alone(
    stranger: Callable[..., Stranger], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = stranger(b"Debian GNU/Linux 12 pi ttyAMA0\r\n\r\npi login: ")
    monkeypatch.setattr(discovery, "listed", lambda: [(console.port, "")])
    [one] = discovery.find()
    assert "a login console answers" in one.wrong
    assert console.heard == b""


def test_what_only_answers_is_told_apart(
    stranger: Callable[..., Stranger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop-back plug is silent until it is asked."""
    plug = stranger(answers=lambda data: data)
    monkeypatch.setattr(discovery, "listed", lambda: [(plug.port, "")])
    [one] = discovery.find()
    assert one.wrong == "our own bytes come back"
