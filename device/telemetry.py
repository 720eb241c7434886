"""A board's name, temperature, clock and throttling, and the memory and age of a process.

Each value is read where Linux or the Raspberry Pi's firmware provides it, and is None elsewhere.
"""

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
CLOCK = "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"

FLAGS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of get_throttled: the state now, and 16 bits higher the state since power-on (Raspberry Pi
documentation, `vcgencmd get_throttled`)."""


@dataclass(frozen=True)
class Telemetry:
    """Degrees Celsius, MHz, and the flags that are set, such as "throttled now"."""

    temperature_c: float | None
    clock_mhz: float | None
    throttled: tuple[str, ...] | None

    def lines(self) -> Iterable[str]:
        """Yield a line for each value."""
        missing = "not available on this board"
        degrees, clock, flags = self.temperature_c, self.clock_mhz, self.throttled
        yield f"temperature: {missing if degrees is None else f'{degrees:.1f} C'}"
        yield f"clock: {missing if clock is None else f'{clock:.0f} MHz'}"
        yield f"throttling: {missing if flags is None else ', '.join(flags) or 'no flag is set'}"


def read_telemetry(root: Path = ROOT) -> Telemetry:
    """Return the board's current state."""
    clock = _read_number(root / CLOCK)
    return Telemetry(
        read_temperature(root), None if clock is None else clock / 1000, _read_throttled(root)
    )


def read_temperature(root: Path = ROOT) -> float | None:
    """Return degrees of the processor's zone ("cpu" or "x86_pkg"), or else of the first."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    zones.sort(key=lambda zone: not re.search("cpu|x86_pkg", _read_text(zone / "type") or ""))
    readings = (_read_number(zone / "temp") for zone in zones)
    return next((value / 1000 for value in readings if value is not None), None)


def board_name(root: Path = ROOT) -> str:
    """Return the board's model from its device tree, or else the architecture."""
    try:
        return (root / "proc/device-tree/model").read_bytes().rstrip(b"\0").decode()
    except (OSError, UnicodeDecodeError):
        return platform.machine().replace("_", "-")


def slug(name: str) -> str:
    """Return a board's or a model's name for use in a file name, without a board's revision."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\bRev\b.*", "", name).lower()).strip("-")


def peak_memory_mb(process: str = "self", root: Path = ROOT) -> float | None:
    """Return the peak resident memory of a process (VmHWM) in units of a million bytes."""
    try:
        status = (root / "proc" / process / "status").read_text()
    except OSError:
        return None
    match = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(match[1]) * 1024 / 1e6 if match else None


def process_age_ms() -> float | None:
    """Return the milliseconds since this process started, to a hundredth of a second."""
    status = _read_text(ROOT / "proc/self/stat")
    if status is None:
        return None
    started = int(status.rpartition(")")[2].split()[19])  # field 22 of proc(5), in ticks
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return (now - started / os.sysconf("SC_CLK_TCK")) * 1000


def _read_throttled(root: Path) -> tuple[str, ...] | None:
    """Read the flags from the kernel, or else from vcgencmd, which not every user may run."""
    text = _read_text(root / THROTTLED)
    try:
        if text is None and (tool := shutil.which("vcgencmd")):
            command = [tool, "get_throttled"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
            text = done.stdout.partition("=")[2]
        bits = int(text or "", 16)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return tuple(
        f"{flag} {when}"
        for offset, when in ((0, "now"), (16, "since power-on"))
        for bit, flag in FLAGS.items()
        if bits >> (bit + offset) & 1
    )


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _read_number(path: Path) -> float | None:
    try:
        return float(_read_text(path) or "")
    except ValueError:
        return None
