"""The doctor's verdicts, at pseudo-terminals with scripted peers."""

import os
import pty
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from firmware_host import discovery, doctor, stream
from firmware_host.diagnosis import ADVICE, Verdict, verdict
from glioslice.errors import GliosliceError
from glioslice.wire import packets
from glioslice.wire.connection import Connection
from glioslice.wire.framing import encode
from glioslice.wire.messages import VERSION
from glioslice.wire.packets import Open
from glioslice.wire.ports import LineLost, PortError, open_port
from tests.firmware_host.scripted import SHA256, ScriptedBoard

TIMES = discovery.Times(listen=0.3, call=1.0, short_call=0.4)


class NearEnd:
    """A port at the near end of a pseudo-terminal: where a scripted peer sits.

    It hears and speaks only while the far end is set to `rate`, if one is given.
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


def answering(answer: Callable[[bytes], bytes]) -> Peer:
    """Return a peer that answers whatever it reads, until the end is closed."""

    def work(end: NearEnd) -> None:
        with suppress(LineLost):
            while True:
                if data := end.read(0.05):
                    end.write(answer(data))

    return work


def runner(behaviour: str) -> Peer:
    def work(end: NearEnd) -> None:
        with suppress(GliosliceError), Connection(end, active=False) as connection:
            while end.open:
                with suppress(GliosliceError, AssertionError):
                    ScriptedBoard(connection, behaviour, lambda: None).open()

    return work


def login(data: bytes) -> bytes:
    return data.replace(b"\n", b"\r\nDebian GNU/Linux 12 pi ttyAMA0\r\n\r\npi login: ")


def newer_link(data: bytes) -> bytes:
    return encode(packets.to_bytes(Open(7, 0, 512, 32768, version=9), False))


def examine(line: tuple[int, str], peer: Peer, rate: int | None = None) -> Verdict:
    end = NearEnd(line[0], rate)
    thread = threading.Thread(target=peer, args=(end,), daemon=True)
    thread.start()
    try:
        return doctor.examine(line[1], 115200, times=TIMES)
    finally:
        end.close()
        thread.join(10.0)


PEERS: dict[str, tuple[Peer, str, str]] = {
    "silence": (lambda end: None, "nothing is heard", "start the runner"),
    "login console": (answering(login), "a login console answers", "disable its serial console"),
    "loop-back": (answering(lambda data: data), "our own bytes", "loop-back plug"),
    "wrong baud rate": (answering(lambda data: b"\xfe\x80\xf8" * 9), "none of them", "--baud"),
    "old protocol": (runner("version"), f"speaks version {VERSION + 1} of", "same glioslice"),
    "mute runner": (runner("mute"), "does not introduce itself", "restart it"),
    "healthy": (runner("serve"), "a board answers", "stream to it"),
}


@pytest.mark.parametrize("name", PEERS)
def test_what_is_at_the_far_end(
    name: str, line: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "RATES", (9600, 921600))
    peer, seen, advice = PEERS[name]
    found = examine(line, peer)
    assert found.name == name, found
    assert seen in found.seen
    assert advice in found.advice
    assert found.healthy == (name == "healthy")
    if found.healthy:
        for words in ("rule", SHA256, "not known here", "serve", "32 x 40", "webp"):
            assert words in found.seen


def test_an_older_link(line: tuple[int, str]) -> None:
    found = examine(line, answering(newer_link))
    assert found.name == "old protocol", found
    assert "version 9 of the link" in found.seen


def test_a_shell_is_a_console_too(line: tuple[int, str]) -> None:
    found = examine(line, answering(lambda data: b"\r\nroot@pi:~# "))
    assert found.name == "login console", found


@pytest.mark.slow
def test_a_board_at_another_rate(line: tuple[int, str]) -> None:
    found = examine(line, runner("serve"), termios.B921600)
    assert found.name == "wrong baud rate", found
    assert "answers at 921600 baud, not at 115200" in found.seen
    assert "--baud 921600" in found.advice


@pytest.mark.parametrize(
    ("reason", "name", "advice"),
    [
        ("missing", "no such port", "take one of the ports"),
        ("denied", "no permission", "usermod -aG dialout"),
        ("busy", "busy", "fuser -v /dev/ttyX"),
        ("invalid", "unusable", "COM3"),
        ("lost", "lost", "cable and power"),
    ],
)
def test_a_port_that_does_not_open(
    reason: str, name: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*words: object, **more: object) -> None:
        raise PortError("it does not open", reason)  # type: ignore[arg-type]

    monkeypatch.setattr(discovery, "open_port", refuse)
    found = doctor.examine("/dev/ttyX")
    assert (found.name, found.healthy) == (name, False)
    assert advice in found.advice


def test_ports_as_the_system_refuses_them(line: tuple[int, str], tmp_path: Path) -> None:
    assert doctor.examine("/dev/ttyNONE0").name == "no such port"
    (tmp_path / "file").write_text("")
    assert doctor.examine(str(tmp_path / "file")).name == "unusable"
    held = open_port(line[1])
    try:
        assert doctor.examine(line[1]).name == "busy"
    finally:
        held.close()


def consult(*words: str, ports: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command on a machine with these serial ports; return its exit code."""
    monkeypatch.setattr(discovery, "listed", lambda: [(name, "an adapter") for name in ports])
    with pytest.raises(SystemExit) as end:
        stream.main(["--doctor", *words], far_end=far_end)
    return int(end.value.code or 0)


def far_end(arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.firmware_host.scripted", "{port}", "serve", "doctor"]


def test_without_a_port_the_ports_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert consult(ports=[], monkeypatch=monkeypatch) == 2
    assert "no port: this machine has no serial port" in capsys.readouterr().out
    assert consult(ports=["/dev/ttyA", "/dev/ttyB"], monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().out
    assert "/dev/ttyA  an adapter  no board: there is no such port" in said
    assert "several ports: 2 serial ports, a board at none" in said
    assert "what to do: name the board's: --doctor --port PORT" in said
    assert consult(ports=["/dev/ttyNONE1"], monkeypatch=monkeypatch) == 2  # the only one is it
    assert "no such port: /dev/ttyNONE1" in capsys.readouterr().out


def test_exit_code_zero_for_a_healthy_board_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--port", "sim://?baud=921600")
    assert consult(*words, ports=[], monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith("healthy: sim://?baud=921600: a board answers")
    assert consult("--port", "/dev/ttyNONE0", ports=[], monkeypatch=monkeypatch) == 2


def test_every_verdict_has_advice_without_gaps() -> None:
    for name in ADVICE:
        advice = verdict(name, "seen", port="P", baud="", rate="R").advice
        assert advice
        assert "{" not in advice
