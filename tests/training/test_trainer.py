"""The loss against values computed manually."""

import math
import os
import signal

import pytest
import torch

from training.dataset import IGNORE
from training.trainer import GRACE, BatchProgress, RegionLoss, deferred_interrupt, format_duration


def test_perfect_and_wrong_predictions() -> None:
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[0, 2:6, 2:6] = 2
    labels[0, 3:5, 3:5] = 3
    regions = torch.stack([labels > 0, labels == 3, labels == 3], 1).float()
    sure = 40 * regions - 20
    assert RegionLoss()(sure, labels).item() == pytest.approx(0, abs=1e-3)
    assert RegionLoss()(-sure, labels).item() == pytest.approx(1 + 20, abs=0.1)


def test_probability_one_half() -> None:
    labels = torch.full((1, 4, 4), 3, dtype=torch.uint8)
    # Probability one half everywhere: Dice 2 * 8 / (8 + 16), cross-entropy ln 2.
    value = RegionLoss()(torch.zeros(1, 3, 4, 4), labels).item()
    assert value == pytest.approx(1 - 16 / 24 + math.log(2), abs=1e-4)


def test_dice_is_taken_over_the_batch() -> None:
    """A slice without tumour must not pull the Dice of the others."""
    labels = torch.zeros(2, 4, 4, dtype=torch.uint8)
    labels[0] = 3
    logits = torch.where(labels[:, None] == 3, 20.0, -20.0).expand(2, 3, 4, 4)
    assert RegionLoss()(logits, labels).item() == pytest.approx(0, abs=1e-3)


def test_ignored_pixels_do_not_count() -> None:
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[0, 2:6, 2:6] = 3
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wider = torch.full((2, 8, 12), IGNORE, dtype=torch.uint8)
    wider[:, :, :8] = labels
    beside = torch.cat([logits, torch.full((2, 3, 8, 4), 9.0)], 3).requires_grad_()
    loss = RegionLoss()(beside, wider)
    assert loss.item() == pytest.approx(RegionLoss()(logits, labels).item(), abs=1e-5)
    loss.backward()
    assert beside.grad is not None
    assert not beside.grad[..., 8:].any()
    assert RegionLoss()(logits, torch.full_like(labels, IGNORE)).isfinite()


def test_target_mixes_labels_and_teachers() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 8, 8), generator=generator, dtype=torch.uint8)
    labels[0, 0] = IGNORE
    taught = torch.rand(2, 3, 8, 8, generator=generator)
    loss, agreeing = RegionLoss(), torch.logit(taught, eps=1e-6)

    def entropy(logits: torch.Tensor) -> float:
        """Cross-entropy over known pixels."""
        chances = torch.sigmoid(logits.double())
        each = -taught * chances.log() - (1 - taught) * (1 - chances).log()
        known = (labels != IGNORE)[:, None].expand_as(each)
        return float(each[known].mean())

    # Where the student equals the teacher, the Dice loss is 0.
    whole = loss(agreeing, labels, taught, 1.0).item()
    assert whole == pytest.approx(entropy(agreeing), abs=1e-4)
    assert loss(agreeing + 0.5, labels, taught, 1.0).item() > whole + 0.01
    assert loss(agreeing - 0.5, labels, taught, 1.0).item() > whole + 0.01
    assert loss(agreeing, labels, taught, 0.0) == loss(agreeing, labels)
    regions = torch.stack([labels > 0, (labels == 1) | (labels == 3), labels == 3], 1).float()
    halfway = loss(agreeing, labels, (taught + regions) / 2, 1.0).item()
    assert loss(agreeing, labels, taught, 0.5).item() == pytest.approx(halfway, abs=1e-5)
    # Each image may have its own weight, as phantoms have none.
    one_of_two = torch.tensor([1.0, 0.0])[:, None, None, None]
    mixed = torch.where(one_of_two > 0, taught, regions)
    expected = loss(agreeing, labels, mixed, 1.0).item()
    assert loss(agreeing, labels, taught, one_of_two).item() == pytest.approx(expected, abs=1e-5)


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
    monkeypatch.setattr("training.trainer.time.monotonic", clock)
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


def test_an_interrupt_that_is_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    with deferred_interrupt() as interrupted:
        os.kill(os.getpid(), signal.SIGINT)
    assert not interrupted.is_set()


def test_one_of_several_processes_stops_at_once() -> None:
    with deferred_interrupt(enabled=False), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
