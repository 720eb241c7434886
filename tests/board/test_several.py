"""Several boards, one deployment: in parallel, repeatable, and one failure stops no other.

The boards have this machine's processor, so nothing is emulated but systemd (`systemctl.py`).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.board.conftest import NewPi
from tests.board.emulation import AMD64
from tests.board.pi import DEPLOY, PORT, Pi
from tests.conftest import ROOT

pytestmark = [pytest.mark.board, pytest.mark.slow]

NAMES = ("ada", "ben")


@pytest.fixture(scope="module")
def boards(new_pi: NewPi) -> list[Pi]:
    return [new_pi(processor=AMD64) for _ in NAMES]


@pytest.fixture(scope="module")
def inventory(boards: list[Pi], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two boards, and a third between them that nobody can reach."""
    lines = ['model = "nano"', f'port = "{PORT}"']
    for name, options in (
        (NAMES[0], boards[0].options),
        ("cut", ("Port=1",)),
        (NAMES[1], boards[1].options),
    ):
        lines += ["[[board]]", f'name = "{name}"', 'address = "root@127.0.0.1"']
        lines += [f"ssh_options = {json.dumps(options)}"]
    path = tmp_path_factory.mktemp("inventory") / "boards.toml"
    path.write_text("\n".join(lines))
    return path


def deploy(inventory: Path, *options: str) -> dict[str, str]:
    """Deploy to all boards; return the result of each, from the table."""
    command = [*DEPLOY, "--inventory", str(inventory), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "error: 1 of 3 boards failed" in done.stderr
    assert "cut: failed: root@127.0.0.1: nothing listens there" in done.stderr
    assert len([line for line in done.stdout.splitlines() if re.match(r"(ada|ben): ", line)]) == 2
    table = done.stdout[done.stdout.index("board  host") :].splitlines()[1:]
    return {row.split()[0]: row.split()[2] for row in table}


def playbook(boards: list[Pi], folder: Path, *options: str) -> dict[str, tuple[int, int]]:
    """Run the example's playbook; return how many tasks changed and failed on each board."""
    hosts = {
        name: {
            "ansible_host": "127.0.0.1",
            "ansible_user": "root",
            "glioslice_command": [sys.executable, "-m", "glioslice.cli"],
            "glioslice_model": "nano",
            "glioslice_port": PORT,
            "glioslice_ssh_options": list(pi.options),
        }
        for name, pi in zip(NAMES, boards, strict=True)
    }
    (folder / "hosts.json").write_text(json.dumps({"boards": {"hosts": hosts}}))
    program = Path(sys.executable).parent / "ansible-playbook"
    command = [program, "-i", folder / "hosts.json", "examples/ansible/site.yml", *options]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_HOME": str(folder), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    recap = re.findall(r"^(\w+) +: .*changed=(\d+).*failed=(\d+)", done.stdout, re.MULTILINE)
    assert recap, done.stdout + done.stderr
    return {name: (int(changed), int(failed)) for name, changed, failed in recap}


def test_an_inventory_is_deployed_checked_and_removed(
    boards: list[Pi], inventory: Path, tmp_path: Path
) -> None:
    """Every result of both ways to deploy; they call the same steps, so each is seen once."""
    before = [set(pi.files()) for pi in boards]
    assert deploy(inventory, "--check") == {"ada": "ready", "cut": "failed", "ben": "ready"}
    assert [set(pi.files()) for pi in boards] == before
    done = {"ada": "installed", "cut": "failed", "ben": "installed"}
    assert deploy(inventory) == done
    installed = [pi.files() for pi in boards]
    assert playbook(boards, tmp_path) == dict.fromkeys(NAMES, (0, 0))  # in place already
    assert [pi.files() for pi in boards] == installed

    other_port = ("-e", "glioslice_port=" + PORT.replace("/dev/", "/dev/./"))
    assert playbook(boards, tmp_path, *other_port) == dict.fromkeys(NAMES, (1, 0))
    installed = [pi.files() for pi in boards]
    removal = ("-e", "glioslice_state=absent")
    assert playbook(boards, tmp_path, "--check", *removal) == dict.fromkeys(NAMES, (0, 0))
    assert [pi.files() for pi in boards] == installed
    assert playbook(boards, tmp_path, *removal) == dict.fromkeys(NAMES, (1, 0))
    assert [set(pi.files()) for pi in boards] == before
    unchanged = {"ada": "unchanged", "cut": "failed", "ben": "unchanged"}
    assert deploy(inventory, "--uninstall") == unchanged
