"""The command, connected in memory to a scripted board, and a folder of cases."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firmware_host import run as run_module
from firmware_host import stream
from glioslice.errors import GliosliceError
from glioslice.wire.connection import Connection
from glioslice.wire.transport import MemoryPort, Port, pair
from tests.conftest import BRATS_2023, Write
from tests.firmware_host.scripted import SHA256, ScriptedBoard

NAMES = ("Ada", "Ben", "Cleo")
"""The cases of `folder`."""

SILENCE = 3.0
"""Seconds until a board that has fallen silent is given up."""

Script = Callable[[ScriptedBoard], None]


class Mutable:
    """A port that can stop sending, like a board that hangs."""

    def __init__(self, port: MemoryPort) -> None:
        self.name, self.port, self.muted = port.name, port, False
        self.read, self.close = port.read, port.close
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data
        if not self.muted:
            self.port.write(data)

    def mute(self) -> None:
        self.muted = True


@dataclass
class Ended:
    """How a command ended: exit code, the board and what it received, the bytes that were sent."""

    code: int
    board: ScriptedBoard
    sent: bytes
    troubles: list[BaseException] = field(default_factory=list)


Host = Callable[..., Ended]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Return a function that runs the command, with options, against a scripted board."""
    threads: list[threading.Thread] = []

    def run(behaviour: str, script: Script, *options: object, allow: bool = True) -> Ended:
        near, far = pair()
        host_port, board_port = Mutable(near), Mutable(far)
        connection = Connection(board_port, active=False)
        hosts: list[Connection] = []

        def connect(port: Port, *, active: bool) -> Connection:
            hosts.append(Connection(port, active=active))
            return hosts[-1]

        def fall_silent() -> None:
            """Send no more; until now a busy machine may have taken its time."""
            board_port.mute()
            hosts[0].silence = SILENCE

        board = ScriptedBoard(connection, behaviour, fall_silent)
        troubles: list[BaseException] = []

        def work() -> None:
            try:
                script(board)
                while connection.receive(60.0) is not None:
                    pass  # until the host closes the session
            except GliosliceError:  # the host is gone
                pass
            except BaseException as error:
                troubles.append(error)
            finally:
                connection.close()

        thread = threading.Thread(target=work)
        threads.append(thread)
        thread.start()
        monkeypatch.setattr(run_module, "open_port", lambda *_, **__: host_port)
        monkeypatch.setattr(run_module, "Connection", connect)
        allowed = ("--allow-model", SHA256.upper()) if allow else ()
        code = 0
        try:
            stream.main([str(w) for w in ("--port", "memory", *allowed, *options)])
        except SystemExit as end:
            code = int(end.code or 0)
        thread.join(60.0)
        assert not thread.is_alive()
        assert not troubles
        return Ended(code, board, bytes(host_port.written))

    yield run
    for thread in threads:
        thread.join(60.0)


@pytest.fixture
def listing(tmp_path: Path) -> Callable[[], list[str]]:
    """Return a function that lists all files in `tmp_path/out`, hidden ones too."""
    folder = tmp_path / "out"
    return lambda: sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def folder(write_case: Write, tmp_path: Path) -> Path:
    """Three cases, the second of another edition, and other files."""
    cases = tmp_path / "cases"
    for name in NAMES:
        edition = {"suffixes": BRATS_2023, "enhancing": 3} if name == "Ben" else {}
        write_case(name, folder=cases, **edition)
    (cases / "notes").mkdir()
    (cases / ".hidden").mkdir()
    (cases / "readme.txt").write_text("three patients")
    return cases
