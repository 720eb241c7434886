"""A board set up by deploy.py: `pytest tests/device --device ssh://pi@raspberrypi.local`."""

import pytest

from benchmarks import board_baseline
from device.deployment.remote_board import PYTHON, Remote

MAX_MS = "100"


@pytest.fixture
def target(request: pytest.FixtureRequest) -> str:
    named = request.config.getoption("--device")
    if not named:
        pytest.skip("no board: --device ssh://pi@raspberrypi.local names one")
    return str(named)


@pytest.mark.board
def test_the_self_test_passes(target: str) -> None:
    assert "self-test passed" in Remote(target).run(f"{PYTHON} -m device selftest")


@pytest.mark.board
def test_a_slice_is_fast_enough(target: str) -> None:
    board_baseline.main([target, "--max-ms", MAX_MS])
