"""The baud rate that two ends agree on, in virtual time."""

import random
from collections.abc import Callable

import pytest

from glioslice.wire import packets
from glioslice.wire.baud_negotiation import (
    BASE,
    EXCLUSIVE,
    FALLBACK_SILENCE,
    PROBES,
    offered_rates,
    pattern,
)
from glioslice.wire.framing import FrameReader
from glioslice.wire.link import Link, Settings, State
from glioslice.wire.packets import Probe, Rate
from glioslice.wire.simulator.line import Fault, LineQuality, dropping, unharmed
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.transport import RATES

ALL = Settings(rates=RATES)


class Pair:
    """Two ends that offer rates, and a line whose fastest rate a test may change."""

    def __init__(
        self,
        quality: LineQuality,
        host: Settings = ALL,
        board: Settings = ALL,
        fault: Callable[["Pair"], Fault] | None = None,
    ) -> None:
        self.host = Link(host, active=True, session=0x1001)
        self.board = Link(board, active=False, session=0x2002)
        up, down = (fault(self), fault(self)) if fault else (unharmed, unharmed)
        self.line = VirtualLine(self.host, self.board, quality, host_fault=up, board_fault=down)
        self.sent: list[bytes] = []

    def wait(self, seconds: float) -> None:
        self.line.run(lambda: False, seconds)

    def send(self, messages: int, size: int = 20_000) -> None:
        for _ in range(messages):
            self.sent.append(bytes([len(self.sent) % 256]) * size)
            self.host.sender.send(self.sent[-1])

    def arrives(self, seconds: float) -> bool:
        received = self.line.board.received
        done = self.line.run(lambda: len(received) == len(self.sent), seconds)
        assert received == self.sent[: len(received)]
        return done

    @property
    def rates(self) -> tuple[int | None, int | None]:
        return self.host.rate, self.board.rate


@pytest.mark.parametrize("latency", [0.0, 0.016])
@pytest.mark.parametrize("fastest", RATES)
def test_the_fastest_rate_that_the_line_carries_is_found(fastest: int, latency: float) -> None:
    both = Pair(LineQuality(fastest, latency=latency))
    both.send(1)
    assert both.arrives(8.0)
    both.wait(3.0)
    assert both.rates == (fastest, fastest)


@pytest.mark.parametrize("fastest", [BASE, 921600, 4_000_000])
def test_a_rate_is_found_within_seconds_and_data_waits_for_it(fastest: int) -> None:
    both = Pair(LineQuality(fastest))
    both.send(1, 10)
    assert both.arrives(3.0)
    assert both.rates == (fastest, fastest)
    assert both.host.counts.retransmits == 0


@pytest.mark.parametrize(
    ("host", "board", "agreed"),
    [
        ((), RATES, (None, BASE)),
        (RATES, (), (BASE, None)),
        ((BASE, 460800, 921600), (BASE, 230400, 460800), (460800, 460800)),
        ((921600,), (460800,), (BASE, BASE)),
        ((1234567,), RATES, (BASE, BASE)),
    ],
)
def test_only_rates_that_both_ends_offer_are_tried(
    host: tuple[int, ...], board: tuple[int, ...], agreed: tuple[int | None, int | None]
) -> None:
    # A port with a fixed rate has the one that all begin with.
    both = Pair(
        LineQuality(BASE if None in agreed else 4_000_000),
        Settings(rates=host),
        Settings(rates=board),
    )
    both.send(1, 100)
    assert both.arrives(5.0)
    both.wait(2.0)
    assert both.rates == agreed


def lossy_above(limit: int, share: float) -> Callable[[Pair], Fault]:
    """Return a fault that loses this share of frames at rates above `limit`."""

    def make(both: Pair) -> Fault:
        chance = random.Random(5)
        fault = dropping(share)(chance)
        return lambda frame: fault(frame) if (both.host.rate or 0) > limit else frame

    return make


def test_errors_that_rise_with_the_rate_lower_it() -> None:
    both = Pair(LineQuality(4_000_000), fault=lossy_above(921600, 0.6))
    both.send(150)
    assert both.arrives(60.0)
    assert both.rates == (921600, 921600)


@pytest.mark.slow
def test_errors_that_do_not_depend_on_the_rate_leave_it() -> None:
    both = Pair(LineQuality(3_000_000, errors=1e-4))
    both.send(100)
    assert both.arrives(60.0)
    assert both.rates == (3_000_000, 3_000_000)


def test_a_line_that_becomes_worse_gets_a_lower_rate_and_a_higher_one_later() -> None:
    both = Pair(LineQuality(3_000_000))
    both.send(10)
    assert both.arrives(5.0)
    both.line.fastest = 460800
    both.send(10)
    assert both.arrives(30.0)
    both.wait(5.0)
    assert both.rates == (460800, 460800)
    both.line.fastest = 3_000_000
    for _ in range(40):  # a rate that failed is tried again after a while
        both.send(3)
        assert both.arrives(20.0)
        both.wait(4.0)
    assert both.rates == (3_000_000, 3_000_000)


@pytest.mark.parametrize("pause", [0.5, 5.0, 60.0])
def test_after_two_silent_seconds_both_ends_return_to_the_first_rate(pause: float) -> None:
    cut = [False]
    both = Pair(LineQuality(921600), fault=lambda _: lambda frame: b"" if cut[0] else frame)
    both.send(5)
    assert both.arrives(8.0)
    both.send(5)
    cut[0] = True
    both.wait(pause)
    assert both.rates == ((BASE, BASE) if pause > FALLBACK_SILENCE + 0.2 else (921600, 921600))
    cut[0] = False
    assert both.arrives(15.0)
    both.wait(3.0)
    assert both.rates == (921600, 921600)
    assert both.host.state is both.board.state is State.OPEN


def test_a_board_whose_host_was_killed_is_ready_for_the_next_in_two_seconds() -> None:
    both = Pair(LineQuality(921600))
    both.send(1)
    assert both.arrives(5.0)
    both.line.host.link = Link(ALL, active=True, session=0x1002)  # it begins at the first rate
    assert both.line.run(lambda: both.board.state is State.RESTARTED, FALLBACK_SILENCE + 1.0)
    assert both.board.rate == BASE


@pytest.mark.parametrize("latency", [0.016, 0.3, 0.4])
def test_nothing_but_rates_and_probes_is_sent_during_a_trial(latency: float) -> None:
    """With a long delay, OPENs that both ends repeated arrive once the session is open."""
    sent = set()

    def recording(both: Pair) -> Fault:
        def record(frame: bytes) -> bytes:
            for body in FrameReader().feed(frame):
                packet, active = packets.from_bytes(body)
                end = both.host if active else both.board
                if end.flow.negotiation.phase in EXCLUSIVE:
                    sent.add(type(packet))
            return frame

        return record

    both = Pair(LineQuality(921600, latency=latency), fault=recording)
    both.send(1)
    assert both.arrives(20.0)
    assert sent == {Rate, Probe}


def test_a_close_is_sent_at_the_rate_of_the_session() -> None:
    both = Pair(LineQuality(921600))
    both.send(1)
    assert both.arrives(5.0)
    both.host.close()
    assert both.host.rate == 921600
    assert both.line.run(lambda: both.board.state is State.CLOSED, 0.5)
    both.wait(0.1)
    assert both.rates == (BASE, BASE)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("share", [0.1, 0.3])
def test_whatever_of_a_trial_is_lost_the_ends_find_each_other(share: float, seed: int) -> None:
    chance = random.Random(seed)
    both = Pair(LineQuality(921600, latency=0.016), fault=lambda _: dropping(share)(chance))
    for _ in range(3):
        both.send(2, 5000)
        assert both.arrives(60.0)
    assert both.rates[0] == both.rates[1]


def test_an_offer_names_the_rates_that_have_a_bit() -> None:
    assert offered_rates(RATES) == 0x1FF
    assert offered_rates((230400, 12345)) == 2
    assert offered_rates(()) == 0


def test_the_probes_hold_every_byte() -> None:
    assert {byte for n in range(PROBES) for byte in pattern(n)} == set(range(256))
