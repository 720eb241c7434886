"""Run scripts on a board over ssh, probe it, and find the problems that prevent an installation.

ssh uses the keys, configuration and known hosts of the user.
"""

import shlex
import subprocess
from dataclasses import dataclass

from glioslice.errors import GliosliceError

SSH_FAILED = 255
"""The exit code of ssh itself; any other is that of the script."""

UNREACHABLE = "no reply; is the board switched on and in this network?"
ADVICE = {
    "Permission denied": "the board accepts none of your keys; ssh-copy-id installs one",
    "Host key verification failed": "its host key is unknown or has changed; connect with ssh and "
    "compare the fingerprint with the board's",
    "Could not resolve hostname": "no such name in this network; try its IP address",
    "Connection refused": "nothing listens there; enable ssh on the board (raspi-config)",
    "timed out": UNREACHABLE,
    "No route to host": UNREACHABLE,
}
"""What ssh prints, and what to do about it."""

PREFIX = "/opt/glioslice"
PYTHON = f"{PREFIX}/current/venv/bin/python"
"""The folder of everything on a board, and the interpreter of the release that runs."""

REQUIRED_SPACE = 600_000_000
"""Bytes free on the board: wheels and environment, while the previous release is still there."""

GLIBC = {"litert": (2, 28), "tflite": (2, 34), "coral": (2, 34)}
"""The oldest glibc that a runtime's wheels support."""

PYTHONS = {"litert": ((3, 11), (3, 13)), "tflite": ((3, 11), (3, 11)), "coral": ((3, 11), (3, 11))}
"""The first and last Python for which glioslice and a runtime have wheels."""

DISABLE_BLUETOOTH = "add dtoverlay=disable-bt to /boot/firmware/config.txt and restart"

PROBE = r"""
report() { printf '%s=%s\n' "$1" "$2"; }
port=@PORT@
report model "$(cat /proc/device-tree/model 2>/dev/null | tr -d '\0')"
report machine "$(uname -m)"
report bits "$(getconf LONG_BIT 2>/dev/null || true)"
report python "$(python3 -c 'import sys; print(*sys.version_info[:2], sep=".")' 2>/dev/null || true)"
report venv "$(python3 -c 'import ensurepip, venv; print("yes")' 2>/dev/null || true)"
report glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/.* //' || true)"
for place in @ROOT@ /opt /; do [ -d "$place" ] && break; done
report free "$(df -Pk "$place" | awk 'NR == 2 { printf "%.0f", $4 * 1024 }')"
report systemd "$([ -d /run/systemd/system ] && echo yes || true)"
report dialout "$(getent group dialout | cut -d: -f3 || true)"
report device "$(readlink -f "$port" 2>/dev/null || true)"
report exists "$([ -e "$port" ] && echo yes || true)"
name=$(basename "$(readlink -f "$port" 2>/dev/null || echo none)")
report console "$(tr ' ' '\n' < /proc/cmdline | sed -n 's/^console=\([^,]*\).*/\1/p' | tr '\n' ' ')"
report getty "$(systemctl is-active "serial-getty@$name.service" 2>/dev/null || true)"
report bluetooth "$([ ! -e /dev/serial1 ] || readlink -f /dev/serial1)"
report edgetpu "$(ldconfig -p 2>/dev/null | grep -o 'libedgetpu.so.1' | head -n 1 || true)"
report group "$(stat -L -c %G "$port" 2>/dev/null || true)"
report mode "$(stat -L -c %a "$port" 2>/dev/null || true)"
closed=
for place in / /opt @ROOT@ @ROOT@/releases @ROOT@/current/ @ROOT@/current/venv/bin @ROOT@/current/model; do
  [ ! -d "$place" ] || case $(stat -L -c %A "$place") in *[xt]) ;; *) closed="$closed $place" ;; esac
done
report closed "$(echo $closed)"
device=$(readlink -f "$port" 2>/dev/null || echo none)
pids=$(ls -l /proc/[0-9]*/fd 2>/dev/null |
  awk -v device="$device" -F / '/^\/proc/ { pid = $3 } substr($0, length($0) - length(device) + 1) == device { print pid }')
holders=
own=$(systemctl show --property MainPID --value glioslice.service 2>/dev/null || true)
for pid in $pids; do
  [ "$pid" != "$own" ] || continue
  holders="$holders $(cat "/proc/$pid/comm" 2>/dev/null || true)"
done
report holders "$(echo $holders)"
"""  # noqa: E501
"""Prints KEY=VALUE lines. Without root it does not see which processes hold a port."""


@dataclass(frozen=True)
class Remote:
    """A board: `target` such as pi@raspberrypi.local; each of `options` is passed to `ssh -o`."""

    target: str
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise GliosliceError for a target that ssh would read as an option."""
        if not self.target or self.target.startswith("-"):
            raise GliosliceError(f"'{self.target}': expected a board such as pi@raspberrypi.local")

    def run(self, script: str, *, root: bool = False, send: bytes = b"") -> str:
        """Run a POSIX shell script on the board with `send` as its input; return its output.

        `root` runs it with sudo, which must not ask for a password. Raises GliosliceError if the
        board cannot be reached or the script fails; the error ends with the script's last line.
        """
        shell = f"sh -eu -c {shlex.quote(script)}"
        if root:
            shell = f'if [ "$(id -u)" = 0 ]; then {shell}; else sudo -n {shell}; fi'
        command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]
        command += [part for option in self.options for part in ("-o", option)]
        done = subprocess.run(
            [*command, "--", self.target, shell], input=send, capture_output=True, check=False
        )
        if done.returncode:
            raise GliosliceError(
                self._explain(done.returncode, done.stderr.decode(errors="replace"))
            )
        return done.stdout.decode(errors="replace")

    def _explain(self, code: int, stderr: str) -> str:
        """Return what failed, and what to do where that is known."""
        lines = [line.strip() for line in stderr.splitlines() if line.strip()]
        if code == SSH_FAILED:
            for symptom, advice in ADVICE.items():
                if symptom in stderr:
                    return f"{self.target}: {advice}"
        if any(line.startswith("sudo:") for line in lines):
            return (
                f"{self.target}: sudo asks for a password there; log in once and run "
                "'sudo visudo' to allow NOPASSWD, or deploy as root"
            )
        return f"{self.target}: {(lines or ['no reason given'])[-1]}"


@dataclass(frozen=True)
class BoardState:
    """What the probe printed: `values` by key."""

    values: dict[str, str]

    @property
    def python(self) -> tuple[int, int]:
        """The version of the board's python3, (0, 0) if it has none."""
        return _parse_version(self.values["python"])

    @property
    def machine(self) -> str:
        """The architecture of its programs: armv7l for a 32-bit system on a 64-bit kernel."""
        is_32_bit = self.values["machine"] == "aarch64" and self.values["bits"] == "32"
        return "armv7l" if is_32_bit else self.values["machine"]

    @property
    def title(self) -> str:
        """One line that describes the board."""
        model = self.values["model"] or "not a Raspberry Pi"
        return (
            f"{model}, {self.machine}, Python {self.values['python'] or 'none'}, glibc "
            f"{self.values['glibc'] or 'none'}, {int(self.values['free'] or 0) / 1e9:.1f} GB free"
        )


def probe_script(port: str) -> str:
    """Return the script that probes a board for a link over its serial port `port`.

    Raises GliosliceError if the port is not the path of a device.
    """
    if not port.startswith("/dev/") or any(not ("!" <= c <= "~") or c in "'\"\\$`" for c in port):
        raise GliosliceError(f"--port {port}: expected a device of the board such as /dev/serial0")
    return PROBE.replace("@PORT@", f"'{port}'").replace("@ROOT@", PREFIX)


def read_state(printed: str) -> BoardState:
    """Return what the probe printed; raises GliosliceError if values are missing."""
    values = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    keys = {line.split()[1] for line in PROBE.splitlines() if line.startswith("report ")}
    if missing := sorted(keys - values.keys()):
        raise GliosliceError(
            f"the board did not report {', '.join(missing)}; does its login print other text?"
        )
    return BoardState(values)


@dataclass(frozen=True)
class Problem:
    """A problem on the board and its remedy; a `fatal` one prevents the installation."""

    fatal: bool
    text: str
    remedy: str

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.text}: {self.remedy}"


def find_board_problems(state: BoardState, port: str, runtime: str) -> list[Problem]:
    """Return what prevents or impairs a working service, the fatal problems first."""
    system, serial = _system_problems(state, runtime), _port_problems(state.values, port)
    problems = [Problem(True, text, remedy) for text, remedy in [*system, *serial]]
    if state.values["device"].startswith("/dev/ttyS"):
        text = f"{port} is the mini UART, whose speed follows the core's clock"
        problems.append(Problem(False, text, DISABLE_BLUETOOTH))
    return [*problems, *_rights_problems(state.values, port)]


def _rights_problems(found: dict[str, str], port: str) -> list[Problem]:
    """Return what keeps the service, a user of its own, from its files or its port."""
    problems = []
    if closed := found["closed"].split():
        ours = [place for place in closed if place.startswith(PREFIX)]
        others = [place for place in closed if place not in ours]
        if others:
            text = f"the service's user cannot enter {' and '.join(others)}"
            problems.append(Problem(True, text, f"sudo chmod o+x {' '.join(others)}"))
        if ours:
            text = f"the service's user cannot enter {' and '.join(ours)}"
            problems.append(Problem(False, text, "a deployment sets the rights"))
    mode = int(found["mode"] or "0", 8)
    if found["exists"] and not (mode & 0o006 == 0o006 or _in_dialout(found["group"], mode)):
        text = f"{port} belongs to the group {found['group']} with mode {found['mode']}"
        remedy = "the service needs a port that the group dialout reads and writes (a udev rule)"
        problems.append(Problem(False, text, remedy))
    return problems


def _in_dialout(group: str, mode: int) -> bool:
    return group == "dialout" and mode & 0o060 == 0o060


def _system_problems(state: BoardState, runtime: str) -> list[tuple[str, str]]:
    """Return what is wrong with the board's system and software, each with its remedy."""
    found, wrong = state.values, []
    if state.machine not in ("aarch64", "x86_64"):
        wrong.append((f"the board runs {state.machine}", "install a 64-bit system"))
    first, last = PYTHONS[runtime]
    if not first <= state.python <= last:
        span = " to ".join(_format_version(one) for one in dict.fromkeys((first, last)))
        wrong.append((f"its Python is {found['python'] or 'missing'}", f"{runtime} needs {span}"))
    elif not found["venv"]:
        wrong.append(("it cannot create virtual environments", "sudo apt install python3-venv"))
    if _parse_version(found["glibc"]) < GLIBC[runtime]:
        needs = f"{runtime} needs glibc {_format_version(GLIBC[runtime])}"
        wrong.append((f"its C library is {found['glibc'] or 'not glibc'}", needs))
    if not found["systemd"]:
        wrong.append(("it does not run systemd", "the service needs it"))
    if int(found["free"] or 0) < REQUIRED_SPACE:
        free = int(found["free"] or 0) / 1e6
        wrong.append(
            (f"{free:.0f} MB are free", f"{REQUIRED_SPACE / 1e6:.0f} MB are needed in {PREFIX}")
        )
    if not found["dialout"]:
        wrong.append(("it has no group dialout", "sudo groupadd --system dialout"))
    if runtime == "coral" and not found["edgetpu"]:
        wrong.append(("libedgetpu.so.1 is missing", "sudo apt install libedgetpu1-std"))
    return wrong


def _port_problems(found: dict[str, str], port: str) -> list[tuple[str, str]]:
    """Return what else uses the serial port, each with its remedy."""
    if not found["exists"]:
        return [(f"{port} does not exist", "see docs/raspberry-pi.md for GPIO UART and USB gadget")]
    name = found["device"].removeprefix("/dev/")
    wrong = []
    if {name, "serial0" if port == "/dev/serial0" else name} & set(found["console"].split()):
        wrong.append(
            (f"the kernel's console is on {port}", "sudo raspi-config nonint do_serial_cons 1")
        )
    if found["getty"] == "active":
        remedy = f"sudo systemctl disable --now serial-getty@{name}.service"
        wrong.append((f"a login prompt uses {port}", remedy))
    elif found["holders"]:
        wrong.append((f"{found['holders']} uses {port}", "stop it, or choose another --port"))
    if found["bluetooth"] == found["device"] and port != "/dev/serial1":
        wrong.append((f"Bluetooth uses {port}", DISABLE_BLUETOOTH))
    return wrong


def _parse_version(text: str) -> tuple[int, int]:
    parts = text.split(".")[:2]
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        return int(parts[0]), int(parts[1])
    return 0, 0


def _format_version(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
