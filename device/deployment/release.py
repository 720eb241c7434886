"""A release: what is sent to a board, the scripts that install it, and the unit that runs it.

A payload holds wheels for the board's Python and machine, a model, and their digests. On the board:

    /opt/glioslice/releases/<digest>/   wheels/, model/, venv/, and `complete` when all are in place
    /opt/glioslice/current              a link to the release that runs
    /etc/systemd/system/glioslice.service

A release is installed beside the one that runs, and is marked `complete` only when it is on the
disk. If the connection or the power is lost, the old release keeps running and the next deployment
starts the new one again.
"""

import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from shutil import rmtree

from device.deployment.remote_board import GLIBC, PREFIX, PYTHON
from device.goldens import GOLDENS
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.model_card import CARD, read_verified_card

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "build" / "deploy"

RUNTIME_PINS = {
    "litert": "ai-edge-litert==2.3.0",
    "tflite": "tflite-runtime==2.14.0",
    "coral": "tflite-runtime==2.14.0",
}
"""The runtime that a board gets, as the models were tested with it. libedgetpu needs tflite."""

DIGESTS = "SHA256SUMS"

UNIT = "/etc/systemd/system/glioslice.service"

MEMORY = "400M"

OPEN_TO_SERVICE = f"""umask 022
mkdir -p {PREFIX}/releases
chmod 755 {PREFIX} {PREFIX}/releases"""
"""The service runs as another user than root, whose umask may close what root makes."""


@dataclass(frozen=True)
class Payload:
    """The files of a release by their path in it; `model` is the path of the model file."""

    files: dict[str, bytes]
    model: str

    @property
    def digests(self) -> bytes:
        """The contents of SHA256SUMS, for sha256sum -c."""
        lines = [
            f"{sha256(content).hexdigest()}  {n}\n" for n, content in sorted(self.files.items())
        ]
        return "".join(lines).encode()

    @property
    def release(self) -> str:
        """The release's name, which changes with any byte."""
        return sha256(self.digests).hexdigest()[:16]

    @property
    def archive(self) -> bytes:
        """All files and their digests as a tar archive, deterministic."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, content in sorted({**self.files, DIGESTS: self.digests}.items()):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


def make_payload(model: Path, machine: str, python: tuple[int, int], runtime: str) -> Payload:
    """Return everything a board needs, so that the board itself downloads nothing.

    Raises GliosliceError if a wheel is not available, or the model does not match its card.
    """
    read_verified_card(model)
    with only_process():
        wheels = fetch_wheels(machine, python, runtime)
        files = {f"wheels/{path.name}": path.read_bytes() for path in wheels}
    goldens = model.parent / GOLDENS  # a float file has none
    for path in (model, model.parent / CARD, *([goldens] if goldens.is_file() else [])):
        files[f"model/{path.name}"] = path.read_bytes()
    return Payload(files, f"model/{model.name}")


@contextmanager
def only_process() -> Iterator[None]:
    """Wait until no other process makes a payload: Ansible deploys to several boards at once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        try:
            import fcntl
        except ImportError:  # Windows
            yield
            return
        fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
        yield


def fetch_wheels(machine: str, python: tuple[int, int], runtime: str) -> list[Path]:
    """Return the wheels: ours is always built again, the others are cached in build/deploy/.

    Raises GliosliceError if pip cannot build or find one.
    """
    tag = f"cp{python[0]}{python[1]}"
    folder = CACHE / f"{machine}-{tag}-{runtime}"
    ours, others, request = folder / "ours", folder / "others", folder / "request"
    rmtree(ours, ignore_errors=True)
    _pip("wheel", "--no-deps", "--wheel-dir", str(ours), str(ROOT))
    [wheel] = ours.glob("*.whl")
    pins = _pins(python)
    options = [part for name in _platforms(machine, runtime) for part in ("--platform", name)]
    options += [part for abi in (tag, "abi3", "none") for part in ("--abi", abi)]
    options += ["--python-version", ".".join(map(str, python)), RUNTIME_PINS[runtime]]
    options += [] if runtime == "litert" else ["numpy<2"]
    wanted = "\n".join([*options, pins, (ROOT / "pyproject.toml").read_text()])
    if not request.is_file() or request.read_text() != wanted:
        request.unlink(missing_ok=True)
        rmtree(others, ignore_errors=True)  # pip refuses a folder with two versions of a package
        (folder / "constraints.txt").write_text(pins)
        _pip(
            "download", "--only-binary=:all:", "--implementation", "cp", *options, str(wheel),
            "--constraint", str(folder / "constraints.txt"), "--dest", str(others),
        )  # fmt: skip
        (others / wheel.name).unlink()
        write_bytes(request, wanted.encode())
    return sorted([wheel, *others.glob("*.whl")], key=lambda path: path.name)


def _platforms(machine: str, runtime: str) -> list[str]:
    """Return the platform tags whose wheels run on a board that is new enough for `runtime`."""
    minors = range(17, GLIBC[runtime][1] + 1)
    return [*(f"manylinux_2_{minor}_{machine}" for minor in minors), f"manylinux2014_{machine}"]


def _pins(python: tuple[int, int]) -> str:
    """Return the versions that were tested together, as far as they have wheels for `python`."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    if python >= (3, 13):  # the numpy that conversion needs has no wheels for it
        lines = [line for line in lines if not line.startswith("numpy==")]
    return "\n".join(lines)


def _pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise GliosliceError(
            f"pip {arguments[0]}: {(errors or ['failed'])[-1].removeprefix('ERROR: ')}; this "
            "machine needs the internet once, the board does not"
        )


def make_unit(port: str, model: str, *, coral: bool) -> str:
    """Return the unit's text. `model` is a path within the release.

    The process runs as a dynamic user without network or home directories, on a read-only system,
    and may open one device. `coral` allows all USB devices, because a Coral stick re-enumerates on
    its first use.
    """
    delegate = " --delegate libedgetpu.so.1" if coral else ""
    devices = [f"DeviceAllow={port} rw", *(["DeviceAllow=char-usb_device rw"] if coral else [])]
    lines = [
        "# Written by device/deploy.py; each deployment overwrites it.",
        "[Unit]",
        "Description=glioslice: brain tumour segmentation over a serial link (research software)",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "WatchdogSec=60",
        f"ExecStart={PYTHON} -m device --port {port} --model {PREFIX}/current/{model}{delegate}",
        "Restart=always",
        "RestartSec=2",
        "DynamicUser=yes",
        "SupplementaryGroups=dialout" + (" plugdev" if coral else ""),
        "Environment=PYTHONDONTWRITEBYTECODE=1",
        f"MemoryMax={MEMORY}",
        "DevicePolicy=closed",
        *devices,
        "PrivateNetwork=yes",
        "RestrictAddressFamilies=AF_UNIX" + (" AF_NETLINK" if coral else ""),
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "PrivateTmp=yes",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        *([] if coral else ["ProtectClock=yes"]),
        "ProtectHostname=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "UMask=0077",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def status_script(release: str) -> str:
    """Return a script that prints what is in place already.

    `complete`: the release is installed, `current`: it is the selected one, `active`: the service
    runs; then the digest of the unit.
    """
    return f"""
[ ! -e {PREFIX}/releases/{release}/complete ] || echo complete
[ "$(readlink {PREFIX}/current || true)" != releases/{release} ] || echo current
[ "$(systemctl is-active glioslice.service || true)" != active ] || echo active
[ ! -e {UNIT} ] || sha256sum {UNIT} | cut -d' ' -f1
"""


def install_script(release: str) -> str:
    """Return a script that installs a release from the archive on its input."""
    new = f"{PREFIX}/releases/{release}"
    return f"""
{OPEN_TO_SERVICE}
rm -rf {new}
mkdir -p {new}
trap 'rm -rf {new}' EXIT
cd {new}
tar -x -f - || {{ echo "the files arrived incomplete (no space left?)" >&2; exit 1; }}
sha256sum --check --strict --quiet SHA256SUMS >&2 ||
  {{ echo "a file was damaged in transit; deploy again" >&2; exit 1; }}
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps wheels/*.whl
rm -rf wheels
sync
touch complete
sync
trap - EXIT
"""


def start_script(release: str) -> str:
    """Return a script that starts a release with the unit on its input and removes older ones."""
    return f"""
{OPEN_TO_SERVICE}
cat > {UNIT}.new
mv {UNIT}.new {UNIT}
ln -sfn releases/{release} {PREFIX}/current.new
mv -T {PREFIX}/current.new {PREFIX}/current
systemctl daemon-reload
systemctl enable --quiet glioslice.service
systemctl restart glioslice.service
for old in {PREFIX}/releases/*; do
  [ "$old" = {PREFIX}/releases/{release} ] || rm -rf "$old"
done
"""


def test_script(model: str) -> str:
    """Return a script that runs the self-test of the current release and checks the service."""
    return f"""
cd /
{PYTHON} -m device selftest --model {PREFIX}/current/{model}
systemctl is-active glioslice.service >/dev/null ||
  {{ echo "the service does not run; see journalctl -u glioslice.service" >&2; exit 1; }}
"""


UNINSTALL = f"""
[ ! -e {PREFIX} ] && [ ! -e {UNIT} ] || echo removed
systemctl disable --now --quiet glioslice.service 2>/dev/null || true
rm -f {UNIT} {UNIT}.new
systemctl daemon-reload
systemctl reset-failed glioslice.service 2>/dev/null || true
rm -rf {PREFIX}
"""
"""Removes every trace of a deployment, finished or not; prints whether there was one."""
