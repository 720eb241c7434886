#!/usr/bin/python3 -S
"""A replacement for systemctl on an emulated board, which has no systemd.

It starts a unit's process by its ExecStart and Environment, waits for READY=1, and stops it
later. It has no users, sandbox, limits or restarts: `test_whole_pi.py` tests those on a
machine with its own kernel and systemd.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

UNITS = "/etc/systemd/system"
WANTED = f"{UNITS}/multi-user.target.wants"
RUNNING = "/run/systemd/system"
PATIENCE = 120.0


def main() -> int:
    """Execute one command; return the exit code that systemctl has for it."""
    verb, *units = [one for one in sys.argv[1:] if not one.startswith("--")]
    unit = units[-1] if units else ""
    if verb == "default":  # at power-on
        return max(map(start, os.listdir(WANTED))) if os.path.isdir(WANTED) else 0
    if verb == "is-active":
        print("active" if pid_of(unit) else "inactive")
        return 0 if pid_of(unit) else 3
    if verb == "show":
        print(pid_of(unit))
    elif verb == "enable":
        os.makedirs(WANTED, exist_ok=True)
        with suppress(FileExistsError):
            os.symlink(f"{UNITS}/{unit}", f"{WANTED}/{unit}")
    elif verb == "restart":
        stop(unit)
        return start(unit)
    elif verb == "disable":
        with suppress(FileNotFoundError):
            os.unlink(f"{WANTED}/{unit}")
        with suppress(OSError):
            os.rmdir(WANTED)
        stop(unit)
    elif verb not in ("daemon-reload", "reset-failed"):
        sys.exit(f"{verb}: this replacement has no such command")
    return 0


def start(unit: str) -> int:
    """Start a unit and wait until it is ready; return 1 if it is not."""
    with open(f"{UNITS}/{unit}") as file:
        lines = [line.strip().split("=", 1) for line in file if "=" in line]
    command = next(value.split() for key, value in lines if key == "ExecStart")
    environment = dict(value.split("=", 1) for key, value in lines if key == "Environment")
    address = f"{RUNNING}/{unit}.notify"
    with suppress(FileNotFoundError):
        os.unlink(address)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel,
        open(f"/run/{unit}.log", "a") as log,
    ):
        channel.bind(address)
        process = subprocess.Popen(
            command, cwd="/", env={**os.environ, **environment, "NOTIFY_SOCKET": address},
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        with open(f"{RUNNING}/{unit}.pid", "w") as file:
            file.write(str(process.pid))
        channel.settimeout(0.5)
        until = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < until:
            with suppress(TimeoutError):
                if b"READY=1" in channel.recv(1024):
                    return 0
    print(f"Job for {unit} failed, see /run/{unit}.log", file=sys.stderr)
    return 1


def stop(unit: str) -> None:
    """Stop a unit's process."""
    pid = pid_of(unit)
    if not pid:
        return
    os.kill(pid, signal.SIGTERM)
    for _ in range(600):
        if not pid_of(unit):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)


def pid_of(unit: str) -> int:
    """Return the process id of a unit, 0 if it does not run."""
    try:
        with open(f"{RUNNING}/{unit}.pid") as file:
            pid = int(file.read())
        with open(f"/proc/{pid}/stat") as file:
            return 0 if file.read().rpartition(")")[2].split()[0] == "Z" else pid
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    sys.exit(main())
