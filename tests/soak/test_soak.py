"""Soak the link: masks through every fault at once, restarts and unplugged cables among them.

pytest tests/soak -s                            a hundredth of the run whose totals are committed
pytest tests/soak -s --soak-frames 1000000      that run: tests/soak/soak.log
"""

from dataclasses import asdict

import pytest

from glioslice.wire.receiver import Receiver
from tests.soak.rounds import soak

SEED = 1


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_mask_arrives_once_and_unchanged(pytestconfig: pytest.Config) -> None:
    frames = int(pytestconfig.getoption("--soak-frames"))
    totals = asdict(soak(frames, SEED))
    print(f"soak: at least {frames} frames, seed {SEED}")
    print(*(f"{name}: {value:.0f}" for name, value in totals.items()), sep="\n")
    assert totals["frames"] >= frames
    for fault in ("retransmits", "damaged", "duplicates", "restarts", "cuts"):
        assert totals[fault] > 0, fault


def test_a_seed_repeats_a_run() -> None:
    assert soak(1500, 3) == soak(1500, 3) != soak(1500, 4)


def test_a_changed_byte_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    add, count = Receiver.add, iter(range(10**9))

    def careless(self: Receiver, offset: int, payload: bytes) -> bool:
        if next(count) == 20:
            payload = payload[:-1] + bytes([payload[-1] ^ 1])
        return add(self, offset, payload)

    monkeypatch.setattr(Receiver, "add", careless)
    with pytest.raises(AssertionError, match="round 0 of seed 1"):
        soak(3000, 1)
