"""Deployment, as far as it goes without a board: what is found, what is said, what is sent."""

import io
import os
import pty
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from device.deployment import payload, service
from device.deployment.board_state import BoardState, findings, probe, read_state
from device.deployment.payload import Payload, chosen_model
from device.deployment.remote import Remote
from glioslice.errors import GliosliceError
from tests.conftest import ROOT

PI = {
    "model": "Raspberry Pi 4 Model B Rev 1.4", "machine": "aarch64", "bits": "64",
    "python": "3.11", "venv": "yes", "glibc": "2.36", "free": "20000000000", "systemd": "yes",
    "dialout": "20", "device": "/dev/ttyAMA0", "exists": "yes", "console": "tty1 ",
    "getty": "inactive", "bluetooth": "", "edgetpu": "", "holders": "",
}  # fmt: skip


def said(port: str = "/dev/serial0", runtime: str = "litert", **changed: str) -> list[str]:
    found = findings(BoardState(PI | changed), port, runtime)
    return [f"{'must' if f.fatal else 'may'}: {f}" for f in found]


def test_a_ready_board_has_nothing_to_change() -> None:
    assert said() == []
    assert said(python="3.13") == []
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
        ({"venv": ""}, "must: it cannot make environments: sudo apt install python3-venv"),
        ({"glibc": "2.24"}, "must: its C library is 2.24: litert needs glibc 2.28"),
        ({"systemd": ""}, "must: it does not run systemd"),
        ({"free": "100000000"}, "must: 100 MB are free: 600 MB are needed in /opt/glioslice"),
        ({"dialout": ""}, "must: it has no group dialout"),
        ({"exists": ""}, "must: /dev/serial0 does not exist: see docs/raspberry-pi.md"),
        ({"console": "ttyAMA0 tty1"}, "must: the kernel's console is on /dev/serial0"),
        ({"console": "serial0 tty1"}, "must: the kernel's console is on /dev/serial0"),
        ({"getty": "active", "holders": "agetty"}, "must: a login prompt holds /dev/serial0"),
        ({"holders": "minicom"}, "must: minicom holds /dev/serial0"),
        ({"bluetooth": "/dev/ttyAMA0"}, "must: Bluetooth holds /dev/serial0"),
        ({"device": "/dev/ttyS0"}, "may: /dev/serial0 is the mini UART"),
    ],
)
def test_what_has_to_change_is_named(changed: dict[str, str], wanted: str) -> None:
    [one] = said(**changed)
    assert one.startswith(wanted)


def test_a_runtime_has_needs_of_its_own() -> None:
    assert said(runtime="tflite", python="3.13") == [
        "must: its Python is 3.13: tflite needs 3.11",
    ]
    assert said(runtime="coral") == [
        "must: libedgetpu.so.1 is missing: sudo apt install libedgetpu1-std"
    ]
    assert said(runtime="coral", edgetpu="libedgetpu.so.1") == []


def test_the_probe_sees_who_holds_a_port() -> None:
    master, line = pty.openpty()
    try:
        printed = subprocess.run(
            ["sh", "-eu", "-c", probe(os.ttyname(line))],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    finally:
        os.close(master)
        os.close(line)
    found = read_state(printed).found
    assert found["exists"] == "yes"
    assert "python" in found["holders"] or "pytest" in found["holders"]
    assert found["machine"] == os.uname().machine
    assert int(found["free"]) > 0


def test_a_login_that_prints_something_else_is_refused() -> None:
    with pytest.raises(GliosliceError, match="did not say its bits, bluetooth"):
        read_state("Welcome!\nmachine=aarch64\n")


@pytest.mark.parametrize("port", ["COM3", "/dev/x'; reboot", "/dev/a b", "/dev/$(id)"])
def test_a_port_that_is_none_reaches_no_shell(port: str) -> None:
    with pytest.raises(GliosliceError, match="expected a device of the board"):
        probe(port)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")
def test_a_board_that_does_not_answer_is_named_with_what_to_do() -> None:
    with pytest.raises(GliosliceError, match=r"127.0.0.1: nothing listens there; enable"):
        Remote("nobody@127.0.0.1", ("Port=1",)).run("true")
    with pytest.raises(GliosliceError, match="expected a board such as pi@"):
        Remote("-oProxyCommand=reboot")


def test_the_archive_is_the_same_bytes_and_names_each_digest(tmp_path: Path) -> None:
    one = Payload({"wheels/a.whl": b"a", "model/m.tflite": b"m"}, "model/m.tflite")
    two = Payload({"model/m.tflite": b"m", "wheels/a.whl": b"a"}, "model/m.tflite")
    assert one.archive == two.archive
    assert one.release == two.release
    assert Payload({"model/m.tflite": b"n"}, "model/m.tflite").release != one.release
    with tarfile.open(fileobj=io.BytesIO(one.archive)) as archive:
        archive.extractall(tmp_path, filter="data")
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path, check=True)
    (tmp_path / "model" / "m.tflite").write_bytes(b"")  # cut on its way
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode


def test_models_by_size_or_file() -> None:
    assert chosen_model("nano") == ROOT / "models" / "nano" / "nano-int8.tflite"
    assert chosen_model("x/y.tflite") == Path("x/y.tflite")
    with pytest.raises(GliosliceError, match=r"--model huge: a .tflite file, or one of nano"):
        chosen_model("huge")


def test_the_unit_opens_one_device_and_no_network() -> None:
    text = service.unit("/dev/ttyGS0", "model/compact-int8.tflite", coral=False)
    wanted = (
        "DeviceAllow=/dev/ttyGS0 rw", "DevicePolicy=closed", "PrivateNetwork=yes",
        "ProtectSystem=strict", "DynamicUser=yes", "MemoryMax=400M", "NoNewPrivileges=yes",
    )  # fmt: skip
    assert set(wanted) < set(text.splitlines())
    assert "--delegate" not in text
    coral = service.unit("/dev/ttyGS0", "model/m.tflite", coral=True)
    assert set(text.splitlines()) - set(coral.splitlines()) >= {"ProtectClock=yes"}
    assert text.splitlines().count("") == coral.splitlines().count("")
    assert "--delegate libedgetpu.so.1" in coral
    assert "DeviceAllow=char-usb_device rw" in coral


def test_wheels_are_downloaded_once_and_goldens_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def pip(*words: str) -> None:
        asked.append(list(words))
        flag = "--wheel-dir" if words[0] == "wheel" else "--dest"
        folder = Path(words[words.index(flag) + 1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "glioslice-0-py3-none-any.whl").write_bytes(b"ours")
        if words[0] == "download":
            (folder / f"numpy-{len(asked)}.whl").write_bytes(b"numpy")

    monkeypatch.setattr(payload, "CACHE", tmp_path)
    monkeypatch.setattr(payload, "_pip", pip)
    board = ("aarch64", (3, 11), "tflite")
    made = payload.make_payload(chosen_model("nano"), *board)
    assert set(made.files) == {
        "wheels/glioslice-0-py3-none-any.whl", "wheels/numpy-2.whl", "model/nano-int8.tflite",
        "model/card.json", "model/goldens.json",
    }  # fmt: skip
    assert payload.make_payload(chosen_model("nano"), *board) == made
    assert [words[0] for words in asked] == ["wheel", "download", "wheel"]
    # tflite-runtime's wheels ask for a newer C library than LiteRT's.
    assert "manylinux_2_34_aarch64" in asked[1] and "manylinux_2_17_aarch64" in asked[1]
    assert "manylinux_2_36_aarch64" not in asked[1]
    pins = (tmp_path / "aarch64-cp311-tflite" / "constraints.txt").read_text()
    assert "numpy==1.26.4" in pins

    (tmp_path / "aarch64-cp311-tflite" / "asked").unlink()  # as when a pin has changed
    names = {path.name for path in payload.fetched(*board)}
    assert names == {"glioslice-0-py3-none-any.whl", "numpy-5.whl"}
    payload.fetched("aarch64", (3, 13), "litert")
    assert "manylinux_2_34_aarch64" not in asked[-1]
    assert "numpy==" not in (tmp_path / "aarch64-cp313-litert" / "constraints.txt").read_text()
