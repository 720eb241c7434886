"""Emulated boards: Debian for another processor, each program emulated by QEMU user emulation.

mmdebstrap makes a root file system in seconds without running anything in it; it is cached in
build/board/. A board is an overlay over such a root, which it cannot change, in a mount namespace
that ends with its last process. This needs Linux, root privileges, and the Debian packages in
`TOOLS`.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.conftest import ROOT

CACHE = ROOT / "build" / "board"
BINFMT = Path("/proc/sys/fs/binfmt_misc")

TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "unshare": "util-linux",
    "ssh": "openssh-client",
    "/usr/sbin/sshd": "openssh-server",
}
"""Programs, and the packages that contain them."""

BASE = (
    "base-passwd", "bash", "coreutils", "dash", "debianutils", "findutils", "grep", "libc-bin",
    "libstdc++6", "mawk", "python3", "python3-venv", "sed", "tar", "util-linux",
)  # fmt: skip

MERGED = "/usr/share/mmdebstrap/hooks/merged-usr"
"""Makes /bin a link to /usr/bin, as on every installed Debian."""

ENTER = """
processor=$1 root=$2 layer=$3; shift 3
mkdir -p "$layer/disk" "$layer/top"
[ -z "${SIZE-}" ] || mount -t tmpfs -o "size=$SIZE" tmpfs "$layer/disk"
mkdir -p "$layer/disk/upper" "$layer/disk/work"
mount -t overlay -o "lowerdir=$root,upperdir=$layer/disk/upper,workdir=$layer/disk/work" \\
  overlay "$layer/top"
cd "$layer/top"
mkdir -p proc sys dev run tmp
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t proc proc proc
mount --bind "$processor" proc/cpuinfo
mount --bind "$layer/cmdline" proc/cmdline
mount -t sysfs -o ro sysfs sys
mount -t tmpfs tmpfs dev
mkdir dev/pts
for name in null zero full random urandom tty; do
  touch "dev/$name"
  mount --bind "/dev/$name" "dev/$name"
done
mount --bind /dev/pts dev/pts
for bind in ${BINDS-}; do
  there="./${bind#*:}"
  mkdir -p "$(dirname "$there")"
  if [ -d "${bind%%:*}" ]; then mkdir -p "$there"; else [ -e "$there" ] || touch "$there"; fi
  mount --bind "${bind%%:*}" "$there"
done
cd /
exec "$@"
"""
"""Mounts a board's file system in a new mount namespace and runs a command of this machine there.
QEMU reads the processor's features from /proc/cpuinfo, XNNPACK from /sys."""


@dataclass(frozen=True)
class Processor:
    """A processor: `debian` is Debian's name for it, `qemu` its entry in binfmt_misc.

    `cpu` is set because QEMU 7.2 computes wrong int8 sums with its default.
    """

    debian: str
    qemu: str
    cpu: str
    cpuinfo: str


ARM64 = Processor(
    "arm64",
    "qemu-aarch64",
    "cortex-a72",
    "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\n"
    "CPU revision\t: 3\n\n",
)
"""A Raspberry Pi 4's, without its other three cores."""

ARMHF = Processor(
    "armhf",
    "qemu-arm",
    "cortex-a7",
    "processor\t: 0\nmodel name\t: ARMv7 Processor rev 5 (v7l)\nBogoMIPS\t: 38.40\n"
    "Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae\n"
    "CPU implementer\t: 0x41\nCPU architecture: 7\nCPU variant\t: 0x0\nCPU part\t: 0xc07\n"
    "CPU revision\t: 5\n\n",
)
"""A Raspberry Pi 2's."""

AMD64 = Processor("amd64", "", "", "")
"""This machine's own: nothing is emulated, so a board costs seconds, not minutes."""


def missing() -> str | None:
    """Return why this machine cannot emulate boards, None if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "an emulated board needs Linux and root privileges (chroot, mount, binfmt_misc)"
    lacking = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if lacking:
        return f"an emulated board needs: apt-get install {' '.join(lacking)}"
    return None


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the lock of what test processes share."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@one_at_a_time()
def register(processor: Processor) -> None:
    """Let the kernel run the processor's programs with QEMU, until the next reboot."""
    if processor == AMD64:
        return
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=True)
    if not (BINFMT / processor.qemu).exists():
        entry = Path(f"/usr/lib/binfmt.d/{processor.qemu}.conf").read_text()
        (BINFMT / "register").write_text(entry.strip())


@one_at_a_time()
def make_root(processor: Processor, *more: str, suite: str = "bookworm") -> Path:
    """Return a root of Debian with the packages `BASE` and `more`, made if it is not cached.

    Nothing runs in it, so the necessary parts of the packages' setup are done here.
    """
    packages = ",".join(sorted({*BASE, *more}))
    recipe = sha256(packages.encode() + Path(__file__).read_bytes()).hexdigest()[:8]
    name = f"{suite}-{processor.debian}-{recipe}"
    root, new = CACHE / name, CACHE / f".{os.getpid()}-{name}"
    if root.is_dir():
        return root
    run(
        "mmdebstrap", "--quiet", f"--arch={processor.debian}", "--variant=extract",
        f"--hook-dir={MERGED}", f"--include={packages}", suite, new,
        f"deb {archive()} {suite} main",
    )  # fmt: skip
    for table in ("passwd", "group"):
        shutil.copy(new / f"usr/share/base-passwd/{table}.master", new / "etc" / table)
    (new / "usr/bin/awk").symlink_to("mawk")
    (new / "etc/systemd/system").mkdir(parents=True, exist_ok=True)
    for name in ("fstab", "machine-id"):  # empty: nothing to mount, a new machine
        (new / "etc" / name).write_text("")
    if suite == "bookworm":  # the same Python as here: programs start faster
        library = new / "usr/lib/python3.11"
        run(sys.executable, "-m", "compileall", "-q", "-s", new, "-p", "/", library)
    new.rename(root)
    return root


def archive() -> str:
    """Return the archive of this machine's own Debian packages."""
    command = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages")
    return run(*command, "Component: main").split()[0]


def run(*command: object) -> str:
    """Run a command of this machine that must succeed; return its output."""
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(wheels: Sequence[Path], folder: Path) -> None:
    """Unpack wheels of another processor into a folder of a root."""
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
        "--target", folder, "--only-binary=:all:", "--implementation", "cp",
        "--python-version", "3.11", "--abi", "cp311", "--abi", "abi3", "--abi", "none",
        *(part for name in platforms(wheels) for part in ("--platform", name)), *wheels,
    )  # fmt: skip


def platforms(wheels: Sequence[Path]) -> list[str]:
    """Return the platform tags of wheels."""
    tags = {tag for path in wheels for tag in path.stem.rsplit("-", 1)[1].split(".")}
    return sorted(tags - {"any"})


@dataclass(frozen=True)
class EmulatedBoard:
    """A board: its root, the layer with everything it wrote, and the size limit of that layer."""

    processor: Processor
    root: Path
    layer: Path
    size: str = ""
    binds: tuple[str, ...] = ()
    """HERE:THERE, a file or folder of this machine and its path on the board."""

    @property
    def top(self) -> Path:
        """The board's file system, as seen within its namespace."""
        return self.layer / "top"

    def namespace_command(self, *command: object, alone: bool = False) -> list[str]:
        """Return a command line that runs `command` of this machine in the board's namespace.

        `alone`: it is the board's first process, and all its processes end with it.
        """
        cpuinfo = self.processor.cpuinfo or Path("/proc/cpuinfo").read_text()
        for name, text in (("cpuinfo", cpuinfo), ("cmdline", "console=tty1\n")):
            self.layer.mkdir(parents=True, exist_ok=True)
            if not (self.layer / name).exists():
                (self.layer / name).write_text(text)
        variables = [f"SIZE={self.size}", f"BINDS={' '.join(self.binds)}"]
        arguments = (self.layer / "cpuinfo", self.root, self.layer, *command)
        namespaces = ["--pid", "--fork", "--kill-child"] if alone else []
        return [
            "unshare", "--mount", "--propagation", "private", *namespaces, "env",
            f"QEMU_CPU={self.processor.cpu}", *variables, "sh", "-eu", "-c", ENTER, "enter",
            *map(str, arguments),
        ]  # fmt: skip

    def site_command(self, *command: object) -> list[str]:
        """Return a command line that runs a program of the board with the wheels of /opt/site."""
        return self.namespace_command(*self.program_command("PYTHONPATH=/opt/site", *command))

    def program_command(self, *command: object) -> list[str]:
        """Return a command line for a program of the board within its namespace."""
        clean = ["env", "-i", f"QEMU_CPU={self.processor.cpu}", "HOME=/root", "LANG=C.UTF-8"]
        clean += ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        return [*clean, "chroot", str(self.top), "env", *map(str, command)]
