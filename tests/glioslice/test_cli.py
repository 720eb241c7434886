"""The command that finds the others, and what all of them share: options, exit codes, logs."""

import argparse
import logging
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from glioslice import __version__, cli
from glioslice.errors import GliosliceError
from tests.conftest import ROOT

COUNT = """
import resource, sys
import numpy as np
from glioslice.cli import configure_malloc
if sys.argv[1] == "configured":
    configure_malloc()

def slices(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        one = [np.ones(size, np.uint8) for size in (490_000, 370_000, 120_000)]
        del one
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

volume = [np.ones(30 << 20, np.uint8) for _ in range(2)]
del volume
slices(5)
print(slices(100))
before = resident()
volume = [np.ones(8 << 20, np.uint8) for _ in range(5)]
del volume
print(resident() - before)
"""


def glioslice(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "glioslice.cli", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def ended(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    return end.value.code


def test_help_lists_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--help") == 0
    out = capsys.readouterr().out
    for name, entry in cli.available_commands().items():
        assert f"  {name:10} {cli.summary_of(entry)}" in out
        assert cli.summary_of(entry)
    assert {"stream", "serve", "segment", "train", "convert"} <= set(cli.available_commands())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("--version") == 0
    assert capsys.readouterr().out == f"glioslice {__version__}\n"


def test_a_typo_suggests_the_nearest_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("segmnt") == 2
    assert "did you mean 'segment'?" in capsys.readouterr().err


def test_without_a_command_help_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended() == 2
    assert "segment" in capsys.readouterr().out


def test_a_command_that_is_not_installed_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("check", "glioslice.check:main", cli.GROUP),
        EntryPoint("gone", "glioslice.no_such_module:main", cli.GROUP),
        EntryPoint("lost", "no_such_package.module:main", cli.GROUP),
    ]
    monkeypatch.setattr(cli, "entry_points", lambda group: entries)
    assert list(cli.available_commands()) == ["check"]


def test_a_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a program that `2>&-` or a supervisor started."""
    monkeypatch.setattr(sys, "stderr", None)
    given = argparse.Namespace(debug=False, verbose=0, log_file=None)
    cli.run(lambda _: print(list(cli.track([1, 2], "counting"))), given)


@pytest.mark.parametrize(
    ("convert", "text"),
    [(cli.positive, "0"), (cli.positive, "-3"), (cli.positive, "x"), (cli.http_port, "65536")],
)
def test_numbers_of_options(convert: Callable[[str], int], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not"):
        convert(text)
    assert convert("7") == 7


def test_a_command_gets_its_arguments_and_its_name() -> None:
    done = glioslice("check", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: glioslice check ")
    assert "example:\n" in done.stdout


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (GliosliceError("case x:\n  is broken"), "error: case x: is broken\n"),
        (FileNotFoundError(2, "No such file", "m.tflite"), "error: m.tflite: No such file\n"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: argparse.Namespace) -> None:
        raise error

    parser = cli.parser("Fail.", "fail")
    with pytest.raises(SystemExit) as end:
        cli.run(fail, parser.parse_args([]))
    assert end.value.code == 2
    assert capsys.readouterr().err == line
    with pytest.raises(type(error)):
        cli.run(fail, parser.parse_args(["--debug"]))


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], "warning: w\n"),
        (["-v"], "warning: w\ni\n"),
        (["-vv"], "warning: w\ni\nglioslice.test: d\n"),
    ],
)
def test_verbosity(options: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    logger, foreign = logging.getLogger("glioslice.test"), logging.getLogger("somebody.else")

    def log(_: argparse.Namespace) -> None:
        logger.warning("w")
        logger.info("i")
        logger.debug("d")
        foreign.warning("not ours")

    cli.run(log, cli.parser("Log.", "log").parse_args(options))
    assert capsys.readouterr().err == shown


def test_a_log_file_holds_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.log"

    def log(_: argparse.Namespace) -> None:
        logging.getLogger("device.test").debug("a frame")

    cli.run(log, cli.parser("Log.", "log").parse_args(["--log-file", str(file)]))
    assert "DEBUG" in file.read_text() and "device.test: a frame" in file.read_text()
    assert capsys.readouterr().err == ""


def test_a_log_file_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser = cli.parser("Log.", "log")
        cli.run(lambda _: None, parser.parse_args(["--log-file", "/no/such/folder/run.log"]))
    assert end.value.code == 2
    assert "/no/such/folder/run.log: No such file" in capsys.readouterr().err


def measure(setting: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, setting], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_slices_cause_no_page_faults_and_volumes_are_returned() -> None:
    faults, kept = measure("configured")
    assert faults < 100  # a slice has 240 pages
    assert kept < 4 << 20
    assert measure("default")[1] > kept + (8 << 20)
