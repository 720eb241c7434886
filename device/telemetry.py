"""What a board says of itself: its name, temperature, clock and throttling, and a process's memory.

Each is where Linux and the Raspberry Pi's firmware put it, and None on a board without it.
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
"""Bits of get_throttled: now, and 16 higher since power-on (Raspberry Pi documentation, `vcgencmd
get_throttled`)."""


@dataclass(frozen=True)
class Vitals:
    """Degrees Celsius, MHz, and the flags that are set, such as "throttled now"."""

    temperature_c: float | None
    clock_mhz: float | None
    throttled: tuple[str, ...] | None

    def lines(self) -> Iterable[str]:
        """Say all three, absent ones as absent."""
        absent = "absent on this board"
        degrees, clock, flags = self.temperature_c, self.clock_mhz, self.throttled
        yield f"temperature: {absent if degrees is None else f'{degrees:.1f} C'}"
        yield f"clock: {absent if clock is None else f'{clock:.0f} MHz'}"
        yield f"throttling: {absent if flags is None else ', '.join(flags) or 'no flag is set'}"


def read_vitals(root: Path = ROOT) -> Vitals:
    """Return what the board says now."""
    temperature, clock = _temperature(root), _number(root / CLOCK)
    return Vitals(
        None if temperature is None else temperature / 1000,
        None if clock is None else clock / 1000,
        _throttled(root),
    )


def board_name(root: Path = ROOT) -> str:
    """Return the board's model as its device tree names it, elsewhere the architecture."""
    try:
        return (root / "proc/device-tree/model").read_bytes().rstrip(b"\0").decode()
    except (OSError, UnicodeDecodeError):
        return platform.machine().replace("_", "-")


def slug(name: str) -> str:
    """Return a board's or a model's name for a file's name; revisions of a board are alike."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\bRev\b.*", "", name).lower()).strip("-")


def peak_memory_mb(process: str = "self", root: Path = ROOT) -> float | None:
    """Return the most memory that a process had at once (VmHWM), in MB of a million bytes."""
    try:
        status = (root / "proc" / process / "status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else None


def process_age_ms() -> float | None:
    """Return the milliseconds since this process was started, to a hundredth of a second."""
    status = _text(ROOT / "proc/self/stat")
    if status is None:
        return None
    started = int(status.rpartition(")")[2].split()[19])  # field 22 of proc(5), in ticks
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return (now - started / os.sysconf("SC_CLK_TCK")) * 1000


def _temperature(root: Path) -> float | None:
    """Of the processor's zone, which has "cpu" or "x86_pkg" in its type, or else of the first."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    zones.sort(key=lambda zone: not re.search("cpu|x86_pkg", _text(zone / "type") or ""))
    return next((value for zone in zones if (value := _number(zone / "temp")) is not None), None)


def _throttled(root: Path) -> tuple[str, ...] | None:
    """From the kernel, else from the firmware's own tool, which not every user may run."""
    text = _text(root / THROTTLED)
    try:
        if text is None and (tool := shutil.which("vcgencmd")):
            words = [tool, "get_throttled"]
            told = subprocess.run(words, capture_output=True, text=True, timeout=5, check=True)
            text = told.stdout.partition("=")[2]
        bits = int(text or "", 16)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return tuple(
        f"{what} {when}"
        for high, when in ((0, "now"), (16, "since power-on"))
        for bit, what in FLAGS.items()
        if bits >> (bit + high) & 1
    )


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None
