"""The firmware's C as a library in this process, built by a host compiler with sanitizers.

GLIOSLICE_FIRMWARE_BUILD names the compiler and the sanitizers, as in "clang address,undefined".
AddressSanitizer has to be loaded before Python: `test_sanitizers.py` runs the tests in such a
process.
"""

import ctypes
import math
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from glioslice.wire.framing import MAX_ENCODED
from glioslice.wire.link import Settings, State
from glioslice.wire.receiver import MAX_MESSAGE
from tests.conftest import ROOT

FIRMWARE = ROOT / "device" / "firmware"
TESTS = ROOT / "tests" / "firmware"
STAND_IN = TESTS / "standin"
"""A network that tests can compute themselves."""

BUILD = ROOT / "build" / "firmware" / "host"
CHOICE = os.environ.get("GLIOSLICE_FIRMWARE_BUILD", "gcc undefined")
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wno-sign-conversion"]
WARNINGS += ["-Wshadow", "-Werror"]

STATES = (State.OPENING, State.OPEN, State.RESTARTED, State.CLOSED, State.REFUSED)
NEVER = 0xFFFFFFFF


def host_sources() -> list[Path]:
    """Return the firmware's sources that know no board."""
    parts = [path for name in ("wire", "server") for path in (FIRMWARE / name).iterdir()]
    return sorted(path for path in parts if path.suffix in (".c", ".S"))


def compile_host(target: Path, compiler: str, options: list[str], sources: list[Path]) -> Path:
    """Compile firmware and `sources` for this machine with every warning an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f"{target.name}.{os.getpid()}")
    folders = [f"-I{folder}" for folder in (FIRMWARE / "wire", FIRMWARE / "server", STAND_IN)]
    tables = f'-DMASK_TABLES="{ROOT / "glioslice" / "wire" / "mask_tables.bin"}"'
    paths = map(str, [*host_sources(), STAND_IN / "network.c", *sources])
    command = [compiler, *WARNINGS, "-g", *options, *folders, tables, *paths, "-o", str(made)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    made.replace(target)
    return target


def compile_main(target: Path, options: list[str]) -> Path:
    """Compile main.c for host_board.c, which has a `main` of its own; `options` name headers."""
    command = ["gcc", *WARNINGS, *options, "-Dmain=serve_forever"]
    command += ["-c", str(FIRMWARE / "main.c"), "-o", str(target)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return target


@cache
def library() -> Any:
    """Return the library."""
    compiler, sanitizers = CHOICE.split()
    options = ["-O1", "-shared", "-fPIC", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    if compiler == "clang" and "address" in sanitizers:
        options.append("-shared-libasan")
    target = BUILD / f"{CHOICE.replace(' ', '-').replace(',', '-')}-{os.getpid()}.so"
    path = compile_host(target, compiler, options, [TESTS / "shim.c"])
    loaded = ctypes.CDLL(str(path))
    path.unlink()
    loaded.shim_open.restype = ctypes.c_void_p
    for name in ("next_frame", "encode_frame", "decode_frame", "runs", "change"):
        getattr(loaded, f"shim_{name}").restype = ctypes.c_size_t
    for name in ("due", "write", "receive", "peer", "unacknowledged", "retransmits"):
        getattr(loaded, f"shim_{name}").restype = ctypes.c_uint32
    for name in ("send", "write_length", "vp8"):
        getattr(loaded, f"shim_{name}").restype = ctypes.c_bool
    return loaded


def milliseconds(now: float) -> int:
    """Return the link's clock, which starts close to its end: it wraps in every test."""
    return (math.floor(now * 1000 + 1e-6) - 5000) % (1 << 32)


class CLink:
    """The link in C, with what tests use of `glioslice.wire.link.Link`."""

    rate = None

    def __init__(
        self, settings: Settings | None = None, *, active: bool, session: int, transmit: int = 2048
    ) -> None:
        settings = settings or Settings()
        self.session = session
        self.sender = self.receiver = self
        self._c = library()
        sizes = (settings.payload, min(settings.window, 32768), transmit)
        end = self._c.shim_open(active, *sizes, session)
        assert end, "the settings were refused"
        self._end = ctypes.c_void_p(end)
        self._queue = bytearray()
        self._messages: list[tuple[int, bytes]] = []
        self._now = 0.0

    def __del__(self) -> None:
        self._c.shim_free(self._end)

    @property
    def state(self) -> State:
        return STATES[self._c.shim_state(self._end)]

    @property
    def _peer(self) -> int:
        return int(self._c.shim_peer(self._end))

    @property
    def buffered(self) -> int:
        return 0

    @property
    def retransmits(self) -> int:
        return int(self._c.shim_retransmits(self._end))

    def send(self, message: bytes) -> None:
        self._messages.append((len(message), message))
        self._write()

    @property
    def unacknowledged(self) -> int:
        waiting = len(self._queue) + len(self._messages)
        return int(self._c.shim_unacknowledged(self._end)) + waiting

    def _write(self) -> None:
        """Fill the ring, as a program does that waits for room."""
        while True:
            if self._queue:
                taken = self._c.shim_write(self._end, bytes(self._queue), len(self._queue))
                del self._queue[:taken]
                if self._queue:
                    return
            if not self._messages or not self._c.shim_write_length(self._end, self._messages[0][0]):
                return
            self._queue += self._messages.pop(0)[1]

    def close(self) -> None:
        self._c.shim_close(self._end)

    def receive_bytes(self, data: bytes, now: float) -> None:
        self._now = now
        self._c.shim_take(self._end, data, ctypes.c_size_t(len(data)), milliseconds(now))
        self._write()

    def outgoing(self, now: float) -> bytes:
        self._now = now
        self._write()
        frame = ctypes.create_string_buffer(MAX_ENCODED + 2)
        size = self._c.shim_next_frame(self._end, milliseconds(now), frame)
        return frame.raw[:size]

    def next_time(self) -> float:
        wait = self._c.shim_due(self._end, milliseconds(self._now))
        if wait in (0, NEVER):
            return math.inf if wait else -math.inf
        return float(math.floor(self._now * 1000 + 1e-6) + wait) / 1000

    def next_message(self) -> bytes | None:
        size = self._c.shim_receive(self._end)
        if not size:
            return None
        assert size <= MAX_MESSAGE
        message = ctypes.create_string_buffer(size)
        self._c.shim_message(self._end, message)
        return message.raw
