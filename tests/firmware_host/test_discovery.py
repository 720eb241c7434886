"""Finding the board: pseudo-terminals with the real device process and with other devices."""

import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firmware_host import discovery, stream
from firmware_host.discovery import PortStatus, resolve_port
from glioslice.errors import GliosliceError
from glioslice.files import sha256
from glioslice.model_card import find_model
from glioslice.wire.messages import VERSION
from glioslice.wire.ports import PortError, open_port
from tests.conftest import ROOT, Write
from tests.firmware_host.scripted import HELLO, SHA256

GPS = b"$GPGGA,123519,4807.038,N,01131.000,E*47\r\n"
STREAM_WITH_PORTS = """
import json, sys
from firmware_host import discovery, stream
ports = json.loads(sys.argv[1])
discovery.DISCOVERY_TIMES = discovery.ProbeTimes(listen=2.0, reply=6.0)  # on a busy machine
discovery.PROBE_LIMIT = 60.0
discovery.serial_ports = lambda: [(port, "a converter") for port in ports]
stream.main(sys.argv[2:])
"""


@dataclass
class OtherDevice:
    """A port with another device than a board: it sends `sends` again and again."""

    sends: bytes = b""
    received: bytearray = field(default_factory=bytearray)
    reply: Callable[[bytes], bytes] = lambda data: b""
    over: bool = False

    def __post_init__(self) -> None:
        self.near, self.far = pty.openpty()
        tty.setraw(self.far)
        os.set_blocking(self.near, False)
        self.port = os.ttyname(self.far)
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while not self.over:
            if select.select([self.near], [], [], 0.01)[0]:
                data = os.read(self.near, 4096)
                self.received += data
                os.write(self.near, self.reply(data))
            elif self.sends:
                with suppress(BlockingIOError):  # nobody reads it
                    os.write(self.near, self.sends)

    def close(self) -> None:
        self.over = True
        self.thread.join()
        os.close(self.far)
        os.close(self.near)


@pytest.fixture
def other_device() -> Iterator[Callable[..., OtherDevice]]:
    made: list[OtherDevice] = []

    def make(*options: object, **more: object) -> OtherDevice:
        made.append(OtherDevice(*options, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()


DEVICE = ("device", "--baud", "115200", "--port", "{port}")


class BoardProcess:
    """A board's process on a pseudo-terminal, by default the real one, connected to the host's."""

    def __init__(self, module: tuple[str, ...] = DEVICE) -> None:
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
        command = [sys.executable, "-m", *(part.replace("{port}", own) for part in module)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert self.process.stdout.readline().startswith("READY")

    def _pass(self, one: int, other: int) -> None:
        while not self.over:
            if select.select([self.ends[one][0]], [], [], 0.1)[0]:
                os.write(self.ends[other][0], os.read(self.ends[one][0], 4096))

    def close(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=60)
        self.over = True
        for thread in self.threads:
            thread.join()
        for near, far in self.ends:
            os.close(near)
            os.close(far)


@pytest.fixture(scope="module")
def board() -> Iterator[BoardProcess]:
    made = BoardProcess()
    yield made
    made.close()


def stream_with_ports(
    ports: list[str], *options: object, seconds: float = 300
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", STREAM_WITH_PORTS, json.dumps(ports), *map(str, options)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )


@pytest.mark.slow
def test_the_board_among_other_devices_is_found_and_streamed_to(
    board: BoardProcess, other_device: Callable[..., OtherDevice], write_case: Write, tmp_path: Path
) -> None:
    silent, speaking = other_device(), other_device(GPS)
    held = open_port((busy := other_device()).port)
    ports = [silent.port, speaking.port, busy.port, board.port, "/dev/ttyNONE0"]
    out = tmp_path / "m.nii.gz"
    try:
        done = stream_with_ports(
            ports, "-v", "--port", "auto", "--input", write_case(), "--output", out
        )
    finally:
        held.close()
    assert done.returncode == 0, done.stderr
    assert out.is_file()
    lines = [line.split(": ", 1) for line in done.stderr.splitlines() if ": " in line]
    found = {port: what for port, what in lines if what.startswith(("board: ", "no board: "))}
    assert found[silent.port].startswith("no board: opens, but no reply")
    assert found[speaking.port].startswith("no board: another device sends '$GPGGA,123519")
    assert found[busy.port].startswith("no board: another program uses this port")
    assert found["/dev/ttyNONE0"].startswith("no board: there is no such port")
    assert found[board.port].startswith("board: model compact, SHA-256 ")
    assert bytes(speaking.received) == bytes(busy.received) == b""  # not a byte
    assert len(silent.received) < 1000


@pytest.mark.slow
def test_the_list(board: BoardProcess, other_device: Callable[..., OtherDevice]) -> None:
    silent = other_device()
    began = time.monotonic()
    done = stream_with_ports([silent.port, board.port], "--list")
    assert time.monotonic() - began < 200  # the modules load, too
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{silent.port}  a converter") and "no board: opens, but" in first
    assert second.startswith(f"{board.port}  a converter")
    digest = sha256(find_model())
    assert f"board: model compact, SHA-256 {digest[:16]}..., protocol {VERSION}" in second
    done = stream_with_ports([silent.port, board.port], "--list", "--json")
    one, other, end = (json.loads(line) for line in done.stdout.splitlines())
    assert (one["port"], one["model"]) == (silent.port, None)
    assert other == {
        "event": "port", "port": board.port, "description": "a converter",
        "model": {"name": "compact", "sha256": digest}, "protocol": VERSION, "error": None,
    }  # fmt: skip
    assert end == {"event": "end", "state": "complete", "error": None}


@pytest.mark.slow
def test_two_hosts_on_one_port(
    write_case: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second gets an error, and the first is not disturbed: it ends after the second only."""
    case, out, gate = write_case(), tmp_path / "m.nii.gz", tmp_path / "go"
    board = BoardProcess(("tests.firmware_host.scripted", "{port}", f"gate:{gate}", "tag"))
    options = ["--port", board.port, "--baud", "115200", "--input", str(case)]
    options += ["--allow-model", SHA256]
    first = subprocess.Popen(
        [sys.executable, "-c", STREAM_WITH_PORTS, "[]", *options, "--output", str(out)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert first.stderr
    line = first.stderr.readline()
    while "of 14" not in line and line:
        line = first.stderr.readline()
    with pytest.raises(SystemExit) as end:
        stream.main([*options, "--output", str(tmp_path / "n.nii.gz")])
    probed = discovery.probe_port(board.port).diagnosis
    gate.touch()
    _, rest = first.communicate(timeout=300)
    board.close()
    assert first.returncode == 0, rest
    assert out.is_file() and not (tmp_path / "n.nii.gz").exists()
    assert end.value.code == 2
    assert f"error: {board.port}: another program uses this port" in capsys.readouterr().err
    assert probed.name == "busy"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([], "this machine has no serial port; plug the board in"),
        ([("A", ""), ("B", "busy")], "no board found at any port (A: silent; B: busy)"),
    ],
)
def test_no_board(
    found: list[tuple[str, str]], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [PortStatus(port, "", reason=wrong or "silent") for port, wrong in found]
    monkeypatch.setattr(discovery, "probe_all", lambda baud: ports)
    with pytest.raises(GliosliceError) as error:
        resolve_port("AUTO", None)
    assert expected in str(error.value)


def test_several_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [
        PortStatus("A", "", HELLO),
        PortStatus("B", "", reason="silent"),
        PortStatus("C", "", HELLO),
    ]
    monkeypatch.setattr(discovery, "probe_all", lambda baud: ports)
    with pytest.raises(GliosliceError, match=r"boards found at A \(rule\) and C \(rule\); name"):
        resolve_port("auto", None)
    monkeypatch.setattr(discovery, "probe_all", lambda baud: ports[1:])
    assert resolve_port("auto", None) == "C"
    assert resolve_port("/dev/ttyX", None) == "/dev/ttyX"  # nothing is probed


def test_bluetooth_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [("/dev/rfcomm0", "n/a"), ("COM7", "Standard Serial over Bluetooth link (COM7)")]
    monkeypatch.setattr(discovery, "serial_ports", lambda: ports)
    monkeypatch.setattr(
        discovery, "probe_port", lambda *options, **more: pytest.fail("it was opened")
    )
    assert [one.reason for one in discovery.probe_all()] == ["Bluetooth, not probed"] * 2


def test_a_port_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*options: object, **more: object) -> None:
        release.wait(120)
        raise PortError("at last", "lost")

    monkeypatch.setattr(discovery, "serial_ports", lambda: [("/dev/ttyHANGS", "")])
    monkeypatch.setattr(discovery, "open_port", hang)
    monkeypatch.setattr(discovery, "PROBE_LIMIT", 0.3)
    began = time.monotonic()
    [one] = discovery.probe_all()
    assert time.monotonic() - began < 60  # it would hang for 120
    assert one.hello is None and "no reply within" in one.reason
    release.set()


def test_a_console_that_boots_is_left_alone(
    other_device: Callable[..., OtherDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "DISCOVERY_TIMES", discovery.ProbeTimes(30.0, 1.0))
    monkeypatch.setattr(discovery, "PROBE_LIMIT", 60.0)
    console = other_device(b"Debian GNU/Linux 12 pi ttyAMA0\r\n\r\npi login: ")
    monkeypatch.setattr(discovery, "serial_ports", lambda: [(console.port, "")])
    [one] = discovery.probe_all()
    assert "login console" in one.reason
    assert console.received == b""


@pytest.mark.slow
def test_a_loop_back_plug_is_recognized(
    other_device: Callable[..., OtherDevice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is silent until something is sent."""
    monkeypatch.setattr(discovery, "DISCOVERY_TIMES", discovery.ProbeTimes(0.3, 1.0))
    plug = other_device(reply=lambda data: data)
    monkeypatch.setattr(discovery, "serial_ports", lambda: [(plug.port, "")])
    [one] = discovery.probe_all()
    assert one.reason == "our own bytes come back"


def test_the_ports_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [PortStatus("A", "an adapter", reason="silent")]
    monkeypatch.setattr(discovery, "probe_all", lambda baud: found)
    discovery.main([])
    assert "no board: silent" in capsys.readouterr().out
    discovery.main(["--json"])
    port, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert (port["port"], port["error"], end["event"]) == ("A", "silent", "end")
