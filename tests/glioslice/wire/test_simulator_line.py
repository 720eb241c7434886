"""One direction of a simulated line, in virtual time."""

import pytest

from glioslice.wire.simulator.line import BLOCK, Damage, Lane, LineQuality


def through(lane: Lane, data: bytes, piece: int = 1 << 30) -> tuple[bytes, float]:
    """Push `data` through a lane, at most `piece` bytes at once; return what came and when."""
    now, arrived = 0.0, b""
    while data:
        if room := min(lane.room(now), piece):
            lane.put(data[:room], now)
            data = data[room:]
        now = lane.next_time(now)
        arrived += lane.take(now)
    while lane.in_transit:
        now = lane.next_time(now)
        arrived += lane.take(now)
    return arrived, now


@pytest.mark.parametrize("baud", [9600, 115200, 921600, 4_000_000])
def test_a_byte_takes_ten_bits_of_the_baud_rate(baud: int) -> None:
    data = bytes(range(256)) * 40
    arrived, now = through(Lane(LineQuality(baud)), data)
    assert arrived == data
    assert now == pytest.approx(len(data) * 10 / baud, rel=1e-6)


def test_a_pause_is_not_made_up_for() -> None:
    lane = Lane(LineQuality(9600))
    lane.put(b"abc", 0.0)
    assert lane.take(0.0025) == b""
    assert lane.take(0.004) == b"abc"
    lane.put(b"", 1.0)
    lane.put(b"abc", 2.0)
    assert lane.take(2.003) == b""
    assert lane.next_time(2.0) == pytest.approx(2.003125)


def test_a_late_mover_of_a_busy_line_makes_up_a_little() -> None:
    lane = Lane(LineQuality(9600))
    lane.put(b"abc", 0.0)
    lane.put(b"def", 0.02)  # the line was free since 0.003 and had bytes waiting
    assert lane.take(0.02) == b"abcdef"


def test_latency_holds_every_byte_back() -> None:
    lane = Lane(LineQuality(115200, latency=0.016))
    lane.put(b"x", 1.0)
    assert lane.room(1.001) > 0
    assert lane.next_time(1.001) == pytest.approx(1.016 + 10 / 115200)
    assert lane.take(1.016) == b""
    assert lane.take(1.0161) == b"x"


@pytest.mark.parametrize("rate", [1e-4, 1e-3, 1e-2])
def test_bits_flip_at_the_given_rate(rate: float) -> None:
    data = bytes(400_000)
    damaged = Damage(LineQuality(errors=rate, seed=5), "up").apply(data)
    assert len(damaged) == len(data)
    flipped = int.from_bytes(damaged, "little").bit_count()
    expected = rate * 8 * len(data)
    assert abs(flipped - expected) < 5 * expected**0.5


def test_blocks_vanish_at_the_given_rate() -> None:
    damage = Damage(LineQuality(loss=0.1, seed=2), "up")
    kept = [len(damage.apply(bytes(BLOCK))) for _ in range(20_000)]
    assert set(kept) == {0, BLOCK}
    assert sum(kept) / (20_000 * BLOCK) == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("piece", [1, 7, 64, 1000])
def test_the_damage_does_not_depend_on_how_bytes_are_cut(piece: int) -> None:
    data = bytes(range(256)) * 40
    quality = LineQuality(921600, errors=1e-3, loss=0.05, seed=9)
    whole, _ = through(Lane(quality), data)
    assert whole != data
    assert through(Lane(quality), data, piece)[0] == whole


def test_each_direction_and_each_seed_has_its_own_damage() -> None:
    data = bytes(4000)
    results = {
        Damage(LineQuality(errors=1e-3, seed=seed), direction).apply(data)
        for seed in (1, 2)
        for direction in ("up", "down")
    }
    assert len(results) == 4
