"""Deployment as far as it can be tested without a board: problems, messages, release."""

import io
import os
import pty
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from device.deployment import release, remote_board
from device.deployment.release import Payload
from device.deployment.remote_board import (
    BoardState,
    Remote,
    find_board_problems,
    probe_script,
    read_state,
)
from glioslice.errors import GliosliceError
from glioslice.inventory import (
    NotedBoard,
    forget_deployment,
    last_deployment,
    note_deployment,
)
from glioslice.model_card import shipped_folder

PI = {
    "model": "Raspberry Pi 4 Model B Rev 1.4", "machine": "aarch64", "bits": "64",
    "python": "3.11", "venv": "yes", "glibc": "2.36", "free": "20000000000", "systemd": "yes",
    "dialout": "20", "device": "/dev/ttyAMA0", "exists": "yes", "console": "tty1 ",
    "getty": "inactive", "bluetooth": "", "edgetpu": "", "holders": "",
    "group": "dialout", "mode": "660", "closed": "",
}  # fmt: skip


def problems(port: str = "/dev/serial0", runtime: str = "litert", **changed: str) -> list[str]:
    found = find_board_problems(BoardState(PI | changed), port, runtime)
    return [f"{'must' if one.fatal else 'may'}: {one}" for one in found]


def test_a_ready_board_has_nothing_to_change() -> None:
    assert problems() == []
    assert problems(python="3.13") == []
    assert problems(group="root", mode="666") == []  # all may use it
    assert "Raspberry Pi 4 Model B Rev 1.4, aarch64, Python 3.11, glibc 2.36, 20.0 GB free" in (
        BoardState(PI).title
    )


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"bits": "32"}, "must: the board runs armv7l: install a 64-bit system"),
        ({"machine": "armv6l"}, "must: the board runs armv6l: install a 64-bit system"),
        ({"python": "3.9"}, "must: its Python is 3.9: litert needs 3.11 to 3.13"),
        ({"python": ""}, "must: its Python is missing: litert needs 3.11 to 3.13"),
        (
            {"venv": ""},
            "must: it cannot create virtual environments: sudo apt install python3-venv",
        ),
        ({"glibc": "2.24"}, "must: its C library is 2.24: litert needs glibc 2.28"),
        ({"systemd": ""}, "must: it does not run systemd"),
        ({"free": "100000000"}, "must: 100 MB are free: 600 MB are needed in /opt/glioslice"),
        ({"dialout": ""}, "must: it has no group dialout"),
        ({"exists": ""}, "must: /dev/serial0 does not exist: see docs/raspberry-pi.md"),
        ({"console": "ttyAMA0 tty1"}, "must: the kernel's console is on /dev/serial0"),
        ({"console": "serial0 tty1"}, "must: the kernel's console is on /dev/serial0"),
        ({"getty": "active", "holders": "agetty"}, "must: a login prompt uses /dev/serial0"),
        ({"holders": "minicom"}, "must: minicom uses /dev/serial0"),
        ({"bluetooth": "/dev/ttyAMA0"}, "must: Bluetooth uses /dev/serial0"),
        ({"closed": "/opt"}, "must: the service's user cannot enter /opt: sudo chmod o+x /opt"),
        (
            {"closed": "/opt/glioslice/releases /opt/glioslice/current/"},
            "may: the service's user cannot enter /opt/glioslice/releases and",
        ),
        ({"group": "tty", "mode": "620"}, "may: /dev/serial0 belongs to the group tty"),
        ({"group": "dialout", "mode": "600"}, "may: /dev/serial0 belongs to the group dialout"),
        ({"device": "/dev/ttyS0"}, "may: /dev/serial0 is the mini UART"),
    ],
)
def test_each_problem_is_named_with_its_remedy(changed: dict[str, str], wanted: str) -> None:
    [one] = problems(**changed)
    assert one.startswith(wanted)


def test_runtimes_have_different_requirements() -> None:
    assert problems(runtime="tflite", python="3.13") == [
        "must: its Python is 3.13: tflite needs 3.11",
    ]
    assert problems(runtime="coral") == [
        "must: libedgetpu.so.1 is missing: sudo apt install libedgetpu1-std"
    ]
    assert problems(runtime="coral", edgetpu="libedgetpu.so.1") == []


def test_the_probe_finds_the_processes_that_hold_a_port() -> None:
    near, far = pty.openpty()
    try:
        printed = subprocess.run(
            ["sh", "-eu", "-c", probe_script(os.ttyname(far))],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    finally:
        os.close(near)
        os.close(far)
    found = read_state(printed).values
    assert found["exists"] == "yes"
    assert "python" in found["holders"] or "pytest" in found["holders"]
    assert found["machine"] == os.uname().machine
    assert int(found["free"]) > 0


def test_the_probe_finds_folders_that_the_service_cannot_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_board, "PREFIX", str(tmp_path / "opt"))
    (tmp_path / "opt" / "releases").mkdir(parents=True)
    (tmp_path / "opt" / "releases").chmod(0o700)
    (tmp_path / "opt").chmod(0o755)
    printed = subprocess.run(
        ["sh", "-eu", "-c", probe_script("/dev/null")], capture_output=True, text=True, check=True
    ).stdout
    found = read_state(printed).values
    assert str(tmp_path / "opt" / "releases") in found["closed"].split()
    assert str(tmp_path / "opt") not in found["closed"].split()
    assert found["mode"] == "666"


def test_a_release_is_open_to_the_service_whatever_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "opt"
    (root / "releases").mkdir(parents=True)
    for place in (root, root / "releases"):
        place.chmod(0o700)  # as an earlier version left them
    script = release.install_script("abc").replace(remote_board.PREFIX, str(root))
    made = Payload({"model/m.tflite": b"m", "wheels/a.whl": b"a"}, "model/m.tflite").archive
    script = script.replace("python3 -m venv venv", "mkdir -p venv/bin")  # pip needs a real wheel
    script = "\n".join(line for line in script.splitlines() if "pip install" not in line)
    subprocess.run(["sh", "-euc", f"umask 077\n{script}"], input=made, check=True)
    installed = root / "releases" / "abc"
    assert (installed / "complete").exists()
    for place in (root, root / "releases", *installed.rglob("*"), installed):
        wanted = 0o755 if place.is_dir() else 0o644
        assert place.stat().st_mode & 0o777 == wanted, place


def test_a_deployment_is_noted_for_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert last_deployment() is None
    note_deployment(deployed := NotedBoard("pi@board", "/dev/serial0", "2026-01-02"))
    assert last_deployment() == deployed
    forget_deployment("pi@other")
    assert last_deployment() == deployed
    forget_deployment("pi@board")
    assert last_deployment() is None
    (tmp_path / "glioslice" / "deployed.json").write_text('{"board": 1, "more": 2}')
    assert last_deployment() is None  # a note that cannot be read is none


def test_a_login_that_prints_something_else_is_refused() -> None:
    with pytest.raises(GliosliceError, match="did not report bits, bluetooth"):
        read_state("Welcome!\nmachine=aarch64\n")


@pytest.mark.parametrize("port", ["COM3", "/dev/x'; reboot", "/dev/a b", "/dev/$(id)"])
def test_an_invalid_port_reaches_no_shell(port: str) -> None:
    with pytest.raises(GliosliceError, match="expected a device of the board"):
        probe_script(port)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")
def test_an_unreachable_board_is_reported_with_advice() -> None:
    with pytest.raises(GliosliceError, match=r"127.0.0.1: nothing listens there; enable"):
        Remote("nobody@127.0.0.1", ("Port=1",)).run("true")
    with pytest.raises(GliosliceError, match="expected a board such as pi@"):
        Remote("-oProxyCommand=reboot")


def test_the_archive_is_deterministic_and_has_each_digest(tmp_path: Path) -> None:
    one = Payload({"wheels/a.whl": b"a", "model/m.tflite": b"m"}, "model/m.tflite")
    two = Payload({"model/m.tflite": b"m", "wheels/a.whl": b"a"}, "model/m.tflite")
    assert one.archive == two.archive
    assert one.release == two.release
    assert Payload({"model/m.tflite": b"n"}, "model/m.tflite").release != one.release
    with tarfile.open(fileobj=io.BytesIO(one.archive)) as archive:
        archive.extractall(tmp_path, filter="data")
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path, check=True)
    (tmp_path / "model" / "m.tflite").write_bytes(b"")  # truncated
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode


def test_the_unit_opens_one_device_and_no_network() -> None:
    text = release.make_unit("/dev/ttyGS0", "model/compact-int8.tflite", coral=False)
    wanted = (
        "DeviceAllow=/dev/ttyGS0 rw", "DevicePolicy=closed", "PrivateNetwork=yes",
        "ProtectSystem=strict", "DynamicUser=yes", "MemoryMax=400M", "NoNewPrivileges=yes",
    )  # fmt: skip
    assert set(wanted) < set(text.splitlines())
    assert "--delegate" not in text
    coral = release.make_unit("/dev/ttyGS0", "model/m.tflite", coral=True)
    assert set(text.splitlines()) - set(coral.splitlines()) >= {"ProtectClock=yes"}
    assert text.splitlines().count("") == coral.splitlines().count("")
    assert "--delegate libedgetpu.so.1" in coral
    assert "DeviceAllow=char-usb_device rw" in coral


def test_wheels_are_downloaded_once_and_goldens_are_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def pip(*arguments: str) -> None:
        calls.append(list(arguments))
        flag = "--wheel-dir" if arguments[0] == "wheel" else "--dest"
        folder = Path(arguments[arguments.index(flag) + 1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "glioslice-0-py3-none-any.whl").write_bytes(b"ours")
        if arguments[0] == "download":
            (folder / f"numpy-{len(calls)}.whl").write_bytes(b"numpy")

    monkeypatch.setattr(release, "CACHE", tmp_path)
    monkeypatch.setattr(release, "_pip", pip)
    board = ("aarch64", (3, 11), "tflite")
    made = release.make_payload(shipped_folder("nano") / "nano-int8.tflite", *board)
    assert set(made.files) == {
        "wheels/glioslice-0-py3-none-any.whl", "wheels/numpy-2.whl", "model/nano-int8.tflite",
        "model/card.json", "model/goldens.json",
    }  # fmt: skip
    assert release.make_payload(shipped_folder("nano") / "nano-int8.tflite", *board) == made
    assert [call[0] for call in calls] == ["wheel", "download", "wheel"]
    # tflite-runtime's wheels ask for a newer C library than LiteRT's.
    assert "manylinux_2_34_aarch64" in calls[1] and "manylinux_2_17_aarch64" in calls[1]
    assert "manylinux_2_36_aarch64" not in calls[1]
    pins = (tmp_path / "aarch64-cp311-tflite" / "constraints.txt").read_text()
    assert "numpy==1.26.4" in pins

    (tmp_path / "aarch64-cp311-tflite" / "request").unlink()  # as when a pin has changed
    names = {path.name for path in release.fetch_wheels(*board)}
    assert names == {"glioslice-0-py3-none-any.whl", "numpy-5.whl"}
    release.fetch_wheels("aarch64", (3, 13), "litert")
    assert "manylinux_2_34_aarch64" not in calls[-1]
    assert "numpy==" not in (tmp_path / "aarch64-cp313-litert" / "constraints.txt").read_text()
