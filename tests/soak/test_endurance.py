"""A hundredth of the runs whose logs are committed: the soak of the link, and the fuzzing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from glioslice.errors import GliosliceError
from glioslice.wire.receiver import Receiver
from tests.conftest import ROOT
from tests.soak import soak


def run(*words: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_ten_thousand_frames_through_faults(tmp_path: Path) -> None:
    said = run("tests/soak/soak.py", "--frames", 10_000, "--seed", 1, "--log", tmp_path / "log")
    assert "wrong: 0\nlost: 0\n" in said
    assert (tmp_path / "log").read_text() in said
    counted = dict(line.split(": ") for line in said.splitlines()[1:])
    assert int(counted["frames"]) >= 10_000
    for what in ("retransmits", "damaged", "duplicates", "restarts", "cuts"):
        assert int(counted[what]) > 0, what


def test_the_same_seed_soaks_alike() -> None:
    assert soak.soak(1500, 3) == soak.soak(1500, 3) != soak.soak(1500, 4)


def test_a_link_that_lets_a_byte_slip_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    add, count = Receiver.add, iter(range(10**9))

    def careless(self: Receiver, offset: int, payload: bytes) -> bool:
        if next(count) == 20:
            payload = payload[:-1] + bytes([payload[-1] ^ 1])
        return add(self, offset, payload)

    monkeypatch.setattr(Receiver, "add", careless)
    with pytest.raises(GliosliceError, match="round 0 of seed 1"):
        soak.soak(3000, 1)


@pytest.mark.slow
def test_a_hundred_thousand_made_up_inputs(tmp_path: Path) -> None:
    words = ["--seed", 1, "--broken", tmp_path, "--keep", tmp_path / "kept"]
    for runs, rounds in ((100_000, 1), (100_100, 2)):  # a round that is done is not done again
        said = run("tests/fuzz/fuzz.py", "--runs", runs, *words, "--log", tmp_path / "log")
        figures = {name: int(value) for name, value in re.findall(r"(\w+): (\d+)", said)}
        assert (tmp_path / "log").read_text() == said
        assert figures["runs"] == runs and figures["rounds"] == rounds
        assert runs <= figures["executed"] < runs + 1000
        assert figures["peak_rss_mb"] < 256


BROKEN = """
import sys
from glioslice.wire import packets
packets.PARSERS[packets.CLOSE] = lambda body: [][len(body)]
from benchmarks import fuzz
sys.argv[0] = fuzz.__file__
fuzz.child(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_reader_that_raises_something_else_is_found_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, "-runs=100000", "-seed=1", f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT, capture_output=True, text=True, errors="replace", check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode != 0
    assert "IndexError" in done.stdout + done.stderr
