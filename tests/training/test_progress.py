"""What a run shows, and when: lines, times, and the deferral of Ctrl-C."""

import os
import signal

import pytest

from training.progress import GRACE, BatchProgress, deferred_interrupt, format_duration


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_within_five_seconds_and_then_twice_a_minute(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock, losses = Clock(), []

    def loss() -> float:
        losses.append(clock.now)
        return 0.5

    with BatchProgress(3, 100, done=50, clock=clock) as progress:
        for done in range(51, 151):  # a second a batch
            clock.now += 1
            progress.show(done, loss)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1 of 3, batch 53 of 100, loss 0.500, 4 min left"
    assert [time - 100 for time in losses] == [3, 33, 63, 93]  # a loss costs a GPU a wait
    assert lines[-1] == "epoch 2 of 3, batch 43 of 100, loss 0.500, 3 min left"


def test_only_one_process_shows(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with BatchProgress(1, 10, done=0, shown=False, clock=clock) as progress:
        clock.now += 100
        progress.show(1, lambda: 0.5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_ctrl_c_is_deferred_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("training.progress.time.monotonic", clock)
    with deferred_interrupt() as interrupted:
        assert not interrupted.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.is_set()
        clock.now += GRACE + 1
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_one_of_several_processes_stops_at_once() -> None:
    with deferred_interrupt(enabled=False), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
