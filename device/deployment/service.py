"""The scripts that change a board, and the unit that systemd runs there.

    /opt/glioslice/releases/<digest>/   wheels/, model/, venv/, and `complete` once all of it stands
    /opt/glioslice/current              the release that runs
    /etc/systemd/system/glioslice.service

A release is made beside the one that runs and is `complete` only when it is on the disk: a lost
line or lost power leaves the old one in place, and the next deployment begins the new one again.
"""

from device.deployment.board_state import PYTHON, ROOT

UNIT = "/etc/systemd/system/glioslice.service"

MEMORY = "400M"


def unit(port: str, model: str, *, coral: bool) -> str:
    """Return the unit's text. `model` is a path within the release.

    The process is a user of its own making, sees no network and no home, writes nothing, and may
    open one device; a Coral stick is a USB device that appears anew when it is first used.
    """
    delegate = " --delegate libedgetpu.so.1" if coral else ""
    devices = [f"DeviceAllow={port} rw", *(["DeviceAllow=char-usb_device rw"] if coral else [])]
    lines = [
        "# Written by device/deploy.py; it is written anew by each deployment.",
        "[Unit]",
        "Description=glioslice: brain tumour segmentation over a serial line (research software)",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "WatchdogSec=60",
        f"ExecStart={PYTHON} -m device --port {port} --model {ROOT}/current/{model}{delegate}",
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


def standing(release: str) -> str:
    """Return a script that prints `complete`, `current` and `active` for what stands already."""
    return f"""
[ ! -e {ROOT}/releases/{release}/complete ] || echo complete
[ "$(readlink {ROOT}/current || true)" != releases/{release} ] || echo current
[ "$(systemctl is-active glioslice.service || true)" != active ] || echo active
[ ! -e {UNIT} ] || sha256sum {UNIT} | cut -d' ' -f1
"""


def installing(release: str) -> str:
    """Return a script that makes a release of the archive on its input."""
    new = f"{ROOT}/releases/{release}"
    return f"""
rm -rf {new}
mkdir -p {new}
trap 'rm -rf {new}' EXIT
cd {new}
tar -x -f - || {{ echo "the files did not arrive whole (no space left?)" >&2; exit 1; }}
sha256sum --check --strict --quiet SHA256SUMS >&2 ||
  {{ echo "a file was damaged on its way; deploy again" >&2; exit 1; }}
python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps wheels/*.whl
rm -rf wheels
sync
touch complete
sync
trap - EXIT
"""


def starting(release: str) -> str:
    """Return a script that lets a release run, by the unit on its input; older ones are removed."""
    return f"""
cat > {UNIT}.new
mv {UNIT}.new {UNIT}
ln -sfn releases/{release} {ROOT}/current.new
mv -T {ROOT}/current.new {ROOT}/current
systemctl daemon-reload
systemctl enable --quiet glioslice.service
systemctl restart glioslice.service
for old in {ROOT}/releases/*; do
  [ "$old" = {ROOT}/releases/{release} ] || rm -rf "$old"
done
"""


def checking(model: str) -> str:
    """Return a script that tests the release that runs."""
    return f"""
cd /
{PYTHON} -m device selftest --model {ROOT}/current/{model}
systemctl is-active glioslice.service >/dev/null ||
  {{ echo "the service does not run: journalctl -u glioslice.service says why" >&2; exit 1; }}
"""


REMOVING = f"""
systemctl disable --now --quiet glioslice.service 2>/dev/null || true
rm -f {UNIT} {UNIT}.new
systemctl daemon-reload
systemctl reset-failed glioslice.service 2>/dev/null || true
rm -rf {ROOT}
"""
"""Leaves nothing of a deployment, finished or not."""
