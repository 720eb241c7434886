"""The host's wheel without a checkout: its commands, the page, its viewer and its licence."""

import re
import subprocess
import sys
import sysconfig
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, Write
from tests.firmware_host.commands import restore_signals, run_isolated
from tools.viewer import VENDOR

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheels of the board and of the host."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run_isolated(*pip, "--wheel-dir", folder, ROOT, ROOT / "firmware_host", cwd=folder)
    assert len(list(folder.glob("*.whl"))) == 2
    return folder


@pytest.fixture(scope="module")
def place(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands lie: an environment with both wheels, and the libraries of this one."""
    folder = tmp_path_factory.mktemp("place")
    run_isolated(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    own = Path(
        run_isolated(
            python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder
        ).strip()
    )
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run_isolated(*pip, *wheels.glob("*.whl"), cwd=folder)
    # A line of a .pth names a folder, whose own .pth files are not read: the checkout is in none.
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    where = "import firmware_host, glioslice; print(firmware_host.__file__, glioslice.__file__)"
    assert run_isolated(python, "-c", where, cwd=folder).count(str(own)) == 2
    return python.parent


def test_what_the_wheels_hold(wheels: Path) -> None:
    [host] = wheels.glob("glioslice_host-*.whl")
    [board] = wheels.glob("glioslice-*.whl")
    held, boards = zipfile.ZipFile(host), zipfile.ZipFile(board).namelist()
    names = {name for name in held.namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"firmware_host"}
    assert not [name for name in boards if "niivue" in name or name.startswith("firmware_host")]
    tracked = subprocess.run(
        ["git", "ls-files", "--others", "--cached", "--exclude-standard", "firmware_host"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    left_out = {"firmware_host/pyproject.toml", "firmware_host/README.md"}
    there = {name for name in tracked if (ROOT / name).exists()}
    assert names == there - left_out | {"firmware_host/LICENSE"}
    note = VENDOR / "LICENSE"
    viewer = held.read("firmware_host/viewer/vendor/niivue.umd.js")
    assert viewer == (VENDOR / "niivue.umd.js").read_bytes()
    for path in ("firmware_host/viewer/vendor/LICENSE", *_licences(held)):
        assert held.read(path) == note.read_bytes()
    assert held.read("firmware_host/LICENSE") == (ROOT / "LICENSE").read_bytes()
    metadata = held.read(next(n for n in held.namelist() if n.endswith("METADATA"))).decode()
    assert "Requires-Dist: glioslice[host]" in metadata
    assert "License-Expression: Apache-2.0 AND BSD-2-Clause" in metadata


def _licences(held: zipfile.ZipFile) -> list[str]:
    found = [name for name in held.namelist() if "/licenses/" in name]
    assert found
    return found


def test_the_commands_of_the_host_are_found(place: Path, tmp_path: Path) -> None:
    listing = run_isolated(place / "glioslice", "--help", cwd=tmp_path)
    for command in ("compare", "doctor", "ports", "stream", "view"):
        assert re.search(rf"^  {command} +\w", listing, re.M), command
        usage = run_isolated(place / "glioslice", command, "--help", cwd=tmp_path)
        assert usage.startswith(f"usage: glioslice {command} ")


@pytest.fixture
def page(place: Path, write_case: Write, tmp_path: Path) -> Iterator[str]:
    """The address of the page of a case that was streamed to a board's process just before."""
    glioslice, mask = place / "glioslice", tmp_path / "out" / "m.nii.gz"
    case, report = write_case(), tmp_path / "out" / "r.html"
    options = (case, "--port", "sim://", "--output", mask, "--report", report)
    assert f"mask: {mask}" in run_isolated(glioslice, "stream", *options, cwd=tmp_path)
    assert "<style>" in report.read_text()
    command = [str(glioslice), "view", str(mask), "--case", str(case)]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=restore_signals,
    )
    assert process.stdout and process.stderr
    found = re.match(r"page: (\S+) ", process.stdout.readline())
    assert found
    # One that is stopped while its volumes load ends with 130.
    assert "the page stays open until Ctrl-C" in process.stderr.readline()
    yield found[1]
    process.terminate()
    assert process.wait(60) == 0


def test_a_run_and_its_page(page: str) -> None:
    for name, expected in (("", b"<title>"), ("niivue.js", b"niivue"), ("volume/flair", b"")):
        with urllib.request.urlopen(page + name, timeout=60) as response:
            assert response.status == 200 and expected in response.read()
