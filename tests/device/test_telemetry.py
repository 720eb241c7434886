"""Telemetry read from synthetic file trees."""

from pathlib import Path

import pytest

from device import telemetry
from device.telemetry import (
    Telemetry,
    board_name,
    peak_memory_mb,
    process_age_ms,
    read_telemetry,
    slug,
)


def write_tree(root: Path, **files: str) -> Path:
    names = {
        "wireless": "sys/class/thermal/thermal_zone0/temp",
        "cpu": "sys/class/thermal/thermal_zone1/temp",
        "cpu_type": "sys/class/thermal/thermal_zone1/type",
        "clock": telemetry.CLOCK,
        "throttled": telemetry.THROTTLED,
        "model": "proc/device-tree/model",
        "status": "proc/7/status",
    }
    for name, text in files.items():
        path = root / names[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_raspberry_pi(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path, wireless="31000\n", cpu="61832\n", cpu_type="cpu-thermal\n", clock="1800000\n",
        throttled="50004\n", model="Raspberry Pi 4 Model B Rev 1.4\0",
        status="Name:\tx\nVmHWM:\t  100000 kB\n",
    )  # fmt: skip
    state = read_telemetry(root)
    flags = ("throttled now", "under-voltage since power-on", "throttled since power-on")
    assert state == Telemetry(61.832, 1800.0, flags)
    assert "61.8 C" in "\n".join(state.lines())
    assert slug(board_name(root)) == "raspberry-pi-4-model-b"
    assert peak_memory_mb("7", root) == pytest.approx(102.4)


def test_a_machine_without_sensors(tmp_path: Path) -> None:
    state = read_telemetry(tmp_path)
    assert state == Telemetry(None, None, None)
    assert len(list(state.lines())) == 3
    assert peak_memory_mb("7", tmp_path) is None
    assert "_" not in board_name(tmp_path)


@pytest.mark.parametrize(
    ("script", "flags"),
    [("echo throttled=0x0", ()), ("echo throttled=0x2", ("clock capped now",)), ("exit 1", None)],
)
def test_vcgencmd_replaces_a_missing_kernel_file(
    script: str, flags: tuple[str, ...] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "vcgencmd"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert read_telemetry(tmp_path).throttled == flags


def test_this_process() -> None:
    age, memory = process_age_ms(), peak_memory_mb()
    assert age is not None and 10 < age < 24 * 3600 * 1000
    assert memory is not None and 20 < memory < 20_000
