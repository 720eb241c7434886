"""The host's side of a board's latency test, over a real ssh server on this machine."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import board_baseline, mobilenet_baseline
from device.deployment.remote_board import Remote
from glioslice.model_card import shipped_folder
from tests.board.sshd import PROGRAM, make_server, wait_until_listening
from tests.conftest import ROOT

NANO = shipped_folder("nano") / "nano-int8.tflite"


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    """A board's address, and the options with which ssh reaches it."""
    if shutil.which(PROGRAM) is None:
        pytest.skip("no ssh server's program on this machine")
    server = make_server(tmp_path_factory.mktemp("ssh"))
    with subprocess.Popen(server.command) as process:
        wait_until_listening(server, process)
        yield f"ssh://127.0.0.1:{server.port}", list(server.options)
        process.terminate()


@pytest.mark.board
@pytest.mark.slow
def test_a_board_is_measured_over_ssh(
    loopback: tuple[str, list[str]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target, options = loopback
    python = tmp_path / "python"  # a board has glioslice installed; here it lies in the checkout
    python.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    given = [part for option in options for part in ("--ssh-option", option)]
    command = [target, *given, "--python", str(python), "--reference", str(NANO)]
    command += ["--boards", str(tmp_path), "--model", str(NANO), "--seconds", "0", "--threads", "1"]
    board_baseline.main([*command, "--max-ms", "60000"])
    output = capfd.readouterr().out
    [path] = tmp_path.glob("*-nano-int8.csv")
    assert "cold start to the first mask" in output and str(path) in output
    assert "self-test passed" in Remote(target, tuple(options)).run(f"{python} -m device selftest")
    with pytest.raises(SystemExit, match="1"):
        board_baseline.main([*command, "--max-ms", "0.001"])
    with pytest.raises(SystemExit, match="2"):
        board_baseline.main([*command, "--python", "/no/python"])
    assert "/no/python: not found" in capfd.readouterr().err


def test_this_machine_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    output = tmp_path / "command"
    output.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv))\n")
    output.chmod(0o755)
    result = board_baseline.measure_here([str(output), "bench"], NANO)
    assert json.loads(json.dumps(result))[1:] == ["bench", "--reference", str(NANO)]


def test_without_the_reference_network_that_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="2"):
        board_baseline.main(["ssh://nobody@nowhere", "--reference", str(tmp_path / "none.tflite")])
    assert "none.tflite: No such file" in capsys.readouterr().err


def test_the_reference_network_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_baseline, "REFERENCE", tmp_path / "reference.tflite")
    monkeypatch.setattr(mobilenet_baseline, "int8_file", iter([b"made"]).__next__)
    assert board_baseline.reference_file() == board_baseline.reference_file()
    assert board_baseline.reference_file().read_bytes() == b"made"
