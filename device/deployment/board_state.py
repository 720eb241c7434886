"""What a board is, and what has to change before anything can be installed on it."""

from dataclasses import dataclass

from glioslice.errors import GliosliceError

ROOT = "/opt/glioslice"
PYTHON = f"{ROOT}/current/venv/bin/python"
"""Where things stand on a board: everything, and the interpreter of the release that runs."""

NEEDED = 600_000_000
"""Bytes free on the board: wheels, environment, and the release before, kept until the end."""

GLIBC = {"litert": (2, 28), "tflite": (2, 34), "coral": (2, 34)}
"""The oldest that a runtime's wheels take."""

PYTHONS = {"litert": ((3, 11), (3, 13)), "tflite": ((3, 11), (3, 11)), "coral": ((3, 11), (3, 11))}
"""The first and last Python that this kit and a runtime have wheels for."""

PROBE = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
port=@PORT@
say model "$(cat /proc/device-tree/model 2>/dev/null | tr -d '\0')"
say machine "$(uname -m)"
say bits "$(getconf LONG_BIT 2>/dev/null || true)"
say python "$(python3 -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null || true)"
say venv "$(python3 -c 'import ensurepip, venv; print("yes")' 2>/dev/null || true)"
say glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/.* //' || true)"
for place in @ROOT@ /opt /; do [ -d "$place" ] && break; done
say free "$(df -Pk "$place" | awk 'NR == 2 { printf "%.0f", $4 * 1024 }')"
say systemd "$([ -d /run/systemd/system ] && echo yes || true)"
say dialout "$(getent group dialout | cut -d: -f3 || true)"
say device "$(readlink -f "$port" 2>/dev/null || true)"
say exists "$([ -e "$port" ] && echo yes || true)"
name=$(basename "$(readlink -f "$port" 2>/dev/null || echo none)")
say console "$(tr ' ' '\n' < /proc/cmdline | sed -n 's/^console=\([^,]*\).*/\1/p' | tr '\n' ' ')"
say getty "$(systemctl is-active "serial-getty@$name.service" 2>/dev/null || true)"
say bluetooth "$([ ! -e /dev/serial1 ] || readlink -f /dev/serial1)"
say edgetpu "$(ldconfig -p 2>/dev/null | grep -o 'libedgetpu.so.1' | head -n 1 || true)"
device=$(readlink -f "$port" 2>/dev/null || echo none)
pids=$(ls -l /proc/[0-9]*/fd 2>/dev/null |
  awk -v device="$device" -F / '/^\/proc/ { pid = $3 } substr($0, length($0) - length(device) + 1) == device { print pid }')
holders=
own=$(systemctl show --property MainPID --value glioslice.service 2>/dev/null || true)
for pid in $pids; do
  [ "$pid" != "$own" ] || continue
  holders="$holders $(cat "/proc/$pid/comm" 2>/dev/null || true)"
done
say holders "$(echo $holders)"
"""  # noqa: E501
"""Prints KEY=VALUE lines; run as root, or the holders of a port are not seen."""


@dataclass(frozen=True)
class BoardState:
    """What the probe found, by key."""

    found: dict[str, str]

    @property
    def python(self) -> tuple[int, int]:
        """The version of the board's python3; (0, 0) if it has none."""
        return _version(self.found["python"])

    @property
    def machine(self) -> str:
        """The architecture that its programs are built for: aarch64, or armv7l on 32 bits."""
        narrow = self.found["machine"] == "aarch64" and self.found["bits"] == "32"
        return "armv7l" if narrow else self.found["machine"]

    @property
    def title(self) -> str:
        """A line that says what the board is."""
        what = self.found["model"] or "no Raspberry Pi"
        return (
            f"{what}, {self.machine}, Python {self.found['python'] or 'none'}, glibc "
            f"{self.found['glibc'] or 'none'}, {int(self.found['free'] or 0) / 1e9:.1f} GB free"
        )


def probe(port: str) -> str:
    """Return the script that looks at a board whose line is `port`.

    Raises GliosliceError if the port is no path of a device.
    """
    if not port.startswith("/dev/") or any(not ("!" <= c <= "~") or c in "'\"\\$`" for c in port):
        raise GliosliceError(f"--port {port}: expected a device of the board such as /dev/serial0")
    return PROBE.replace("@PORT@", f"'{port}'").replace("@ROOT@", ROOT)


def read_state(printed: str) -> BoardState:
    """Return what a probe printed; raises GliosliceError if lines are missing."""
    found = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    wanted = {line.split()[1] for line in PROBE.splitlines() if line.startswith("say ")}
    if missing := sorted(wanted - found.keys()):
        raise GliosliceError(f"the board did not say its {', '.join(missing)}; its login prints?")
    return BoardState(found)


@dataclass(frozen=True)
class Finding:
    """Something to change on the board; nothing is installed while one is `fatal`."""

    fatal: bool
    what: str
    mend: str

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.what}: {self.mend}"


def findings(state: BoardState, port: str, runtime: str) -> list[Finding]:
    """Return what stands between a board and a working service, the worst first."""
    found = state.found
    stop = [Finding(True, what, mend) for what, mend in _fatal(state, port, runtime)]
    warn = []
    device = found["device"]
    if device.startswith("/dev/ttyS"):
        warn.append(
            Finding(
                False,
                f"{port} is the mini UART, whose speed follows the core's clock",
                "add dtoverlay=disable-bt to /boot/firmware/config.txt and restart",
            )
        )
    return stop + warn


def _fatal(state: BoardState, port: str, runtime: str) -> list[tuple[str, str]]:
    found, wrong = state.found, []
    if state.machine not in ("aarch64", "x86_64"):
        wrong.append((f"the board runs {state.machine}", "install a 64-bit system"))
    first, last = PYTHONS[runtime]
    if not first <= state.python <= last:
        span = _dotted(first) if first == last else f"{_dotted(first)} to {_dotted(last)}"
        wrong.append((f"its Python is {found['python'] or 'missing'}", f"{runtime} needs {span}"))
    elif not found["venv"]:
        wrong.append(("it cannot make environments", "sudo apt install python3-venv"))
    if _version(found["glibc"]) < GLIBC[runtime]:
        needs = f"{runtime} needs glibc {_dotted(GLIBC[runtime])}"
        wrong.append((f"its C library is {found['glibc'] or 'not glibc'}", needs))
    if not found["systemd"]:
        wrong.append(("it does not run systemd", "the service needs it"))
    if int(found["free"] or 0) < NEEDED:
        free = int(found["free"] or 0) / 1e6
        wrong.append((f"{free:.0f} MB are free", f"{NEEDED / 1e6:.0f} MB are needed in {ROOT}"))
    if not found["dialout"]:
        wrong.append(("it has no group dialout", "sudo groupadd --system dialout"))
    if runtime == "coral" and not found["edgetpu"]:
        wrong.append(("libedgetpu.so.1 is missing", "sudo apt install libedgetpu1-std"))
    return wrong + _line(found, port)


def _line(found: dict[str, str], port: str) -> list[tuple[str, str]]:
    """Return who else uses the serial line, and how to make them leave."""
    if not found["exists"]:
        return [(f"{port} does not exist", "see docs/raspberry-pi.md for GPIO UART and USB gadget")]
    name = found["device"].removeprefix("/dev/")
    wrong = []
    if {name, "serial0" if port == "/dev/serial0" else name} & set(found["console"].split()):
        wrong.append(
            (f"the kernel's console is on {port}", "sudo raspi-config nonint do_serial_cons 1")
        )
    if found["getty"] == "active":
        wrong.append(
            (
                f"a login prompt holds {port}",
                f"sudo systemctl disable --now serial-getty@{name}.service",
            )
        )
    elif found["holders"]:
        wrong.append((f"{found['holders']} holds {port}", "stop it, or choose another --port"))
    if found["bluetooth"] == found["device"] and port != "/dev/serial1":
        wrong.append(
            (
                f"Bluetooth holds {port}",
                "add dtoverlay=disable-bt to /boot/firmware/config.txt and restart",
            )
        )
    return wrong


def _version(text: str) -> tuple[int, int]:
    parts = text.split(".")[:2]
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        return int(parts[0]), int(parts[1])
    return 0, 0


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
