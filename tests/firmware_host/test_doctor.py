"""The diagnoses of the doctor, at pseudo-terminals with scripted peers."""

import os
import pty
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from firmware_host import diagnosis as diagnosis_module
from firmware_host import discovery, doctor, stream
from firmware_host.diagnosis import ADVICE, Diagnosis, diagnosis, find_cause
from glioslice.errors import GliosliceError
from glioslice.inventory import NotedBoard, note_deployment
from glioslice.wire import packets
from glioslice.wire.connection import Connection
from glioslice.wire.framing import FrameReader, encode_frame
from glioslice.wire.link import Counts
from glioslice.wire.messages import VERSION, BoardHello
from glioslice.wire.packets import Open
from glioslice.wire.ports import LineLost, PortError, open_port
from tests.firmware_host.scripted import HELLO, SHA256, ScriptedBoard

NO_REPLY = discovery.ProbeTimes(listen=0.3, reply=2.5, other_rate=1.0)
"""For peers that never reply."""

REPLY = discovery.ProbeTimes(listen=0.3, reply=60.0, other_rate=60.0)
"""For peers that do, however busy the machine is: the diagnosis is made as soon as they have."""

LATE = discovery.ProbeTimes(listen=0.3, reply=6.0, other_rate=6.0)
"""For peers that reply once, of whom more is expected."""


class NearEnd:
    """A port at the near end of a pseudo-terminal: where a scripted peer sits.

    It receives and sends only while the far end is set to `rate`, if one is given.
    """

    name = "peer"

    def __init__(self, near: int, rate: int | None = None) -> None:
        self.near, self.rate, self.open = near, rate, True

    def right_rate(self) -> bool:
        return self.rate is None or termios.tcgetattr(self.near)[4] == self.rate

    def read(self, timeout: float) -> bytes:
        if not self.open:
            raise LineLost("the test is over")
        if not select.select([self.near], [], [], timeout)[0]:
            return b""
        data = os.read(self.near, 4096)
        return data if self.right_rate() else b""

    def write(self, data: bytes) -> None:
        if self.right_rate():
            os.write(self.near, data)

    def close(self) -> None:
        self.open = False


Peer = Callable[[NearEnd], None]


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """A pseudo-terminal: the peer's descriptor, and the path that the doctor opens."""
    near, far = pty.openpty()
    tty.setraw(far)
    yield near, os.ttyname(far)
    os.close(far)
    os.close(near)


def replying(reply: Callable[[bytes], bytes]) -> Peer:
    """Return a peer that replies to whatever it reads, until the end is closed."""

    def work(end: NearEnd) -> None:
        with suppress(LineLost):
            while True:
                if data := end.read(0.05):
                    end.write(reply(data))

    return work


def board(behaviour: str, hello: BoardHello = HELLO) -> Peer:
    def work(end: NearEnd) -> None:
        with suppress(GliosliceError), Connection(end, active=False) as connection:
            while end.open:
                with suppress(GliosliceError, AssertionError):
                    scripted = ScriptedBoard(connection, behaviour, lambda: None)
                    if behaviour in ("serve", "lie"):
                        scripted.serve(hello)
                    else:
                        scripted.open(hello)

    return work


def login(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\nDebian GNU/Linux 12 pi ttyAMA0\r\n\r\npi login: ")


def newer_link(data: bytes) -> bytes:
    return encode_frame(packets.to_bytes(Open(7, 0, 512, 32768, version=9), False))


def examine(
    line: tuple[int, str], peer: Peer, times: discovery.ProbeTimes, rate: int | None = None
) -> Diagnosis:
    end = NearEnd(line[0], rate)
    thread = threading.Thread(target=peer, args=(end,), daemon=True)
    thread.start()
    try:
        return doctor.diagnose_port(line[1], 115200, times=times)
    finally:
        end.close()
        thread.join(60.0)


FAULT = b"\r\nglioslice: fault at 0x000001a4, called from 0x000001b1, status 0x00010000\r\n"

PEERS: dict[str, tuple[Peer, discovery.ProbeTimes, str, str]] = {
    "silence": (lambda end: None, NO_REPLY, "no reply at any rate", "start the server"),
    "login console": (replying(login), NO_REPLY, "login console", "disable its serial console"),
    "loop-back": (replying(lambda data: data), NO_REPLY, "our own bytes", "loop-back plug"),
    "wrong baud rate": (
        replying(lambda data: b"\xfe\x80\xf8" * 9), NO_REPLY, "no valid frame", "--baud"
    ),
    "protocol mismatch": (
        board("version"), REPLY, f"uses version {VERSION + 1} of", "same glioslice"
    ),
    "no hello": (board("mute"), LATE, "sends no hello", "restart it:"),
    "firmware fault": (
        replying(lambda data: FAULT), NO_REPLY, "fault at 0x000001a4, called", "0x000001a4"
    ),
    "healthy": (board("serve"), REPLY, "3 slices of noise", "stream to it"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_what_is_at_the_far_end(
    name: str, line: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "CANDIDATE_RATES", (9600, 921600))
    peer, times, seen, advice = PEERS[name]
    found = examine(line, peer, times)
    assert found.name == name, found
    assert seen in found.finding
    assert advice in found.advice
    assert found.healthy == (name == "healthy")
    if found.healthy:
        for expected in ("rule", SHA256, "not known here", "serve", "32 x 40", "webp"):
            assert expected in found.finding


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", ["serve", "lie"])
def test_a_microcontroller_has_no_service(
    behaviour: str, line: tuple[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where one was deployed to another board."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    note_deployment(NotedBoard("pi@pi.local", "/dev/ttyAMA0", "2026-01-01"))
    hello = replace(HELLO, largest_payload=7168, kernels="reference")
    found = examine(line, board(behaviour, hello), REPLY)
    if behaviour == "serve":
        assert found.healthy and "firmware of a microcontroller" in found.finding
    else:
        assert found.name == "check failed", found
        assert "reset the microcontroller" in found.advice and "--baud" in found.advice
        assert "systemctl" not in found.advice and "flash" in found.advice


def test_an_older_link(line: tuple[int, str]) -> None:
    found = examine(line, replying(newer_link), REPLY)
    assert found.name == "protocol mismatch", found
    assert "version 9 of the link" in found.finding


@pytest.mark.slow
def test_a_shell_is_a_console_too(line: tuple[int, str]) -> None:
    found = examine(line, replying(lambda data: b"\r\nroot@pi:~# "), NO_REPLY)
    assert found.name == "login console", found


@pytest.mark.slow
def test_a_board_at_another_rate(line: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CANDIDATE_RATES", (9600, 921600))
    found = examine(line, board("serve"), LATE, termios.B921600)
    assert found.name == "wrong baud rate", found
    assert "921600 baud, not at 115200" in found.finding
    assert "--baud 921600" in found.advice


@pytest.mark.parametrize(
    ("reason", "name", "advice"),
    [
        ("missing", "no such port", "choose one of the ports"),
        ("denied", "no permission", "usermod -aG dialout"),
        ("busy", "busy", "fuser -v /dev/ttyX"),
        ("invalid", "unusable port", "COM3"),
        ("lost", "connection lost", "cable and power"),
    ],
)
def test_a_port_that_does_not_open(
    reason: str, name: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*options: object, **more: object) -> None:
        raise PortError("it does not open", reason)  # type: ignore[arg-type]

    monkeypatch.setattr(discovery, "open_port", refuse)
    found = doctor.diagnose_port("/dev/ttyX")
    assert (found.name, found.healthy) == (name, False)
    assert advice in found.advice


def test_ports_as_the_system_refuses_them(line: tuple[int, str], tmp_path: Path) -> None:
    assert doctor.diagnose_port("/dev/ttyNONE0").name == "no such port"
    (tmp_path / "file").write_text("")
    assert doctor.diagnose_port(str(tmp_path / "file")).name == "unusable port"
    held = open_port(line[1])
    try:
        assert doctor.diagnose_port(line[1]).name == "busy"
    finally:
        held.close()


def consult(*options: str, ports: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command on a machine with these serial ports; return its exit code."""
    monkeypatch.setattr(discovery, "serial_ports", lambda: [(name, "an adapter") for name in ports])
    with pytest.raises(SystemExit) as end:
        stream.main(["--doctor", *options], far_end=far_end)
    return int(end.value.code or 0)


def far_end(arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.firmware_host.scripted", "{port}", "serve", "doctor"]


def test_without_a_port_the_ports_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert consult(ports=[], monkeypatch=monkeypatch) == 2
    assert "no port: this machine has no serial port" in capsys.readouterr().out
    assert consult(ports=["/dev/ttyA", "/dev/ttyB"], monkeypatch=monkeypatch) == 2
    printed = capsys.readouterr().out
    assert "/dev/ttyA  an adapter  no board: there is no such port" in printed
    assert "several ports: 2 serial ports" in printed
    assert "--port PORT" in printed
    assert consult(ports=["/dev/ttyNONE1"], monkeypatch=monkeypatch) == 2  # the only one is it
    assert "no such port: /dev/ttyNONE1" in capsys.readouterr().out


@pytest.mark.slow
def test_exit_code_zero_for_a_healthy_board_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--port", "sim://?baud=921600")
    assert consult(*options, ports=[], monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith("healthy: sim://?baud=921600: a board replies")
    assert consult("--port", "/dev/ttyNONE0", ports=[], monkeypatch=monkeypatch) == 2


def test_every_diagnosis_has_complete_advice() -> None:
    for name in ADVICE:
        advice = diagnosis(name, "seen", port="P", baud="", rate="R").advice
        assert advice
        assert "{" not in advice


def test_the_advice_knows_a_deployed_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert "python -m device --port" in diagnosis("silence", "seen").advice
    note_deployment(NotedBoard("pi@board", "/dev/serial0", "2026-01-02"))
    advice = diagnosis("silence", "seen").advice
    assert "ssh pi@board systemctl status glioslice" in advice
    assert "python -m device --port" not in advice


def test_frames_with_altered_bytes_are_told_from_a_wrong_rate() -> None:
    body = packets.to_bytes(Open(7, 0, 512, 32768, rates=0x7FF), False)
    sent = 9 * encode_frame(body)
    assert b"\xff" in sent
    doubled = sent.replace(b"\xff", b"\xff\xff").replace(b"\0", b"")
    found = discovery.diagnose_silence("P", doubled[-256:], Counts(bytes_received=500))
    assert found.name == "bytes altered"
    seven = bytes(byte & 0x7F for byte in sent)
    found = discovery.diagnose_silence("P", seven, Counts(bytes_received=500))
    assert found.name == "bytes altered" and "7 data bits" in found.finding
    noise = np.random.default_rng(1).bytes(256)
    assert discovery.diagnose_silence("P", noise, Counts()).name == "wrong baud rate"


class BusyBoard:
    """A port with a board that replies to every OPEN but those with the numbers `missed`."""

    name = "board"

    def __init__(self, missed: range) -> None:
        self._missed, self._opens, self._reply = missed, count(), b""

    def write(self, data: bytes) -> None:
        [body] = FrameReader().feed(data)
        offer = packets.from_bytes(body)[0]
        assert isinstance(offer, Open)
        reply = encode_frame(packets.to_bytes(Open(7, offer.session, 512, 32768), False))
        self._reply = b"" if next(self._opens) in self._missed else reply

    def read(self, timeout: float) -> bytes:
        reply, self._reply = self._reply, b""
        if not reply:
            time.sleep(timeout)
        return reply

    def close(self) -> None:
        pass


def test_a_busy_board_is_no_link_that_alters_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis_module, "REPLY", 0.02)
    for first in (1, 2, 4):
        assert find_cause(BusyBoard(range(first, first + 5)), "P") is None


def test_the_doctor_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        doctor.main(["--port", "/dev/ttyNONE0"])
    assert end.value.code == 2
    assert "no such port: /dev/ttyNONE0" in capsys.readouterr().out
