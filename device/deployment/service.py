"""The scripts that change a board, and the systemd unit that runs there.

    /opt/glioslice/releases/<digest>/   wheels/, model/, venv/, and `complete` when all are in place
    /opt/glioslice/current              a link to the release that runs
    /etc/systemd/system/glioslice.service

A release is installed beside the one that runs, and is marked `complete` only when it is on the
disk. If the connection or the power is lost, the old release keeps running and the next deployment
starts the new one again.
"""

from device.deployment.remote_board import PREFIX, PYTHON

UNIT = "/etc/systemd/system/glioslice.service"

MEMORY = "400M"


OPEN_TO_SERVICE = f"""umask 022
mkdir -p {PREFIX}/releases
chmod 755 {PREFIX} {PREFIX}/releases"""
"""The service runs as another user than root, whose umask may close what root makes."""


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
