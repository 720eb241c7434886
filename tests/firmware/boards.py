"""The firmware in QEMU: how to build it, and the command that a simulated line starts."""

import subprocess
from pathlib import Path

from tests.firmware.library import FIRMWARE, TESTS

STAND_IN = TESTS / "standin"
BAUD = {"mps2-an500": 921600, "mps3-an547": 921600, "netduinoplus2": 115200}
"""Of each board. QEMU gives the rate of Arm's UART to the terminal, and ignores that of ST's."""


def build(out: Path, board: str, program: str = "firmware", *options: str) -> Path:
    """Build a program for a board, the firmware with the stand-in of the network."""
    options = (f"BAUD={BAUD[board]}", *options)
    command = ["make", "-s", f"BOARD={board}", f"PROGRAM={program}", f"OUT={out}"]
    command += [f"NET={STAND_IN}", "TABLES=/nonexistent", *options]
    result = subprocess.run(command, cwd=FIRMWARE, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return out / f"{Path(program).stem}.elf"


def qemu(board: str, elf: Path, serial: str = "{port}") -> list[str]:
    """Return the command that runs a program; `{port}` is the end of the simulated line."""
    options = ["-display", "none", "-monitor", "none", "-serial", serial]
    options += ["-semihosting-config", "enable=on,target=native", "-kernel", str(elf)]
    return ["qemu-system-arm", "-M", board, *options]
