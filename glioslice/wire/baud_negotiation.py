"""Which baud rate a link runs at: found by trial, left when errors rise or nothing is heard.

A session opens at `BASE`. The active end then looks, by halves, for the fastest rate that both ends
offer and the line holds. One trial, at the rate of the moment until the guard has passed:

    active   PROPOSE  ............  guard, new rate, 16 PROBE ...........  kept, or back
    passive  ........  ACCEPT, guard, new rate ..........  PROBE each  ..  kept, or back

New data waits meanwhile, and a trial begins when nothing is in flight. A trial of whose probes a
quarter comes back is kept; the passive end keeps it when it hears anything else. An end that has
heard nothing for two seconds returns to `BASE`, whatever it was doing: whoever lost the other meets
it there. Every 64 frames the rate with the most good bytes a second is taken, of those measured
within a minute; the best is assumed of the next higher one if it was not, and, if many frames are
lost twice in a row, of the next lower one that was not.
"""

import math
from collections.abc import Sequence
from enum import Enum

from glioslice.wire.packets import ACCEPT, PATTERN, PROPOSE, Probe, Rate
from glioslice.wire.transport import BAUD, RATES

BASE = BAUD
SILENCE = 2.0
"""Seconds without a good packet after which an end returns to `BASE`."""

GUARD = 0.05
"""Seconds between the last byte at one rate and the first at another: adapters hold bytes back."""

TRIAL = 0.3
"""Seconds that a trial waits for the next probe, beside two round trips."""

QUIET = 1.0
"""Seconds that a trial waits at most for what is in flight."""

RETRY = 0.1
PROBES, ENOUGH = 16, 4
"""How many a trial sends, and how many must come back: noise never looks like one, and losses are
weighed later."""

STRIKES = 3
"""Times that a rate may fail before it is not tried again in this session."""

ANNOUNCEMENTS = 4
"""ACKs that leave at once when a rate is kept: the passive end has to hear one."""

FRAMES, TOO_MANY = 64, 0.25
"""Frames after which losses are weighed, and the share of them that calls for another rate."""

FRESH = 60.0
"""Seconds that a measured loss holds."""


class Phase(Enum):
    """What an end is doing about its rate."""

    STEADY = "steady"
    ASKING = "asking"
    LEAVING = "leaving"
    TRYING = "trying"
    RETURNING = "returning"


class Tuner:
    """The rate of one end of one session. `own` are the rates that its port can take."""

    def __init__(self, active: bool, own: Sequence[int]) -> None:
        self.rate = BASE
        self.phase = Phase.STEADY
        self.announcements = 0
        self._active, self._own = active, frozenset(own)
        self._rates: list[int] = []
        self._low, self._high = 0, 0
        self._target = self._before = BASE
        self._trip = 0.0
        self._trial = TRIAL
        self._due = self._since = self._until = math.inf
        self._changed_at = -math.inf
        self._probes: list[int] = []
        self._answered: set[int] = set()
        self._search_again = False
        self._strikes: dict[int, int] = {}
        self._losses: dict[int, tuple[float, float]] = {}
        self._bad_before = False
        self._marks: tuple[int, ...] = (0, 0, 0, 0)

    @property
    def holding(self) -> bool:
        """Whether new data has to wait."""
        return self.phase is not Phase.STEADY

    @property
    def silent(self) -> bool:
        """Whether nothing but the packets of the tuner may leave."""
        return self.phase in (Phase.LEAVING, Phase.TRYING, Phase.RETURNING)

    def opened(self, theirs: int, trip: float, now: float) -> None:
        """Begin to look for a rate, now that a session is open; `trip` is a round trip."""
        both = self._own & {rate for bit, rate in enumerate(RATES) if theirs >> bit & 1}
        self._rates = sorted({BASE} | both) if both - {BASE} else [BASE]
        self._trip = min(max(trip, 0.0), 1.0)
        if self._active:
            self._trial = TRIAL + 2 * self._trip
            self._search(now)

    def heard(self, packet: Rate | Probe | None, now: float) -> None:
        """Take in a packet of the session; None is any that is not about rates."""
        if isinstance(packet, Rate):
            self._heard_rate(packet, now)
        elif isinstance(packet, Probe):
            self._heard_probe(packet, now)
        elif self.phase is Phase.TRYING and not self._active and self._answered:
            self.phase = Phase.STEADY
        if self._search_again and self.rate == BASE and self.phase is Phase.STEADY:
            self._search_again = False
            self._search(now)

    def tick(self, now: float, heard_at: float) -> None:
        """Do what time alone demands."""
        if self.rate != BASE and now >= max(heard_at, self._changed_at) + SILENCE:
            self._strike(now)
            self._search_again = self._active
            self.phase = Phase.STEADY
            self._switch(BASE, now)
        elif self.phase is Phase.ASKING and now >= self._until:
            self.phase = Phase.STEADY
        elif self.phase is Phase.LEAVING and now >= self._until:
            self._before = self.rate
            self._switch(self._target, now)
            self.phase = Phase.TRYING
            self._answered = set()
            self._probes = list(range(PROBES)) if self._active else []
            self._until = now + self._trial
        elif self.phase is Phase.TRYING and now >= self._until:
            self._judge(now)
        elif self.phase is Phase.RETURNING and now >= self._until:
            self._next_trial(now)

    def next_packet(self, tag: int, idle: bool, now: float) -> Rate | Probe | None:
        """Return what has to leave now; `idle` says that no data is in flight."""
        if self.phase is Phase.ASKING and now >= self._when(idle):
            trial = round(self._trial * 1000)
            if self._active:
                self._due = now + RETRY + self._trip
                return Rate(tag, PROPOSE, self._target, trial)
            self.phase, self._until = Phase.LEAVING, now + GUARD
            return Rate(tag, ACCEPT, self._target, trial)
        if self.phase is Phase.TRYING and self._probes:
            number = self._probes.pop(0)
            if self._active and not self._probes:
                self._until = now + self._trial
            return Probe(tag, number, pattern(number))
        return None

    def next_time(self, idle: bool, heard_at: float) -> float:
        """Return when `tick` or `next_packet` has to be called."""
        silence = math.inf
        if self.rate != BASE:
            silence = max(heard_at, self._changed_at) + SILENCE
        if self.phase is Phase.STEADY:
            return silence
        if self.phase is Phase.TRYING and self._probes:
            return -math.inf
        if self.phase is Phase.ASKING:
            return min(silence, self._until, self._when(idle))
        return min(silence, self._until)

    def weigh(self, lost: int, arrived: int, bad: int, good: int, now: float) -> None:
        """Look for another rate if many frames are lost; all four count since the session began.

        `lost` and `arrived` are frames that left, `bad` and `good` are frames that came.
        """
        counts = (lost, arrived, bad, good)
        waiting = self.holding or self._search_again
        if waiting or len(self._rates) < 2 or not self._active:
            self._marks = counts
            return
        since = [count - mark for count, mark in zip(counts, self._marks, strict=True)]
        if sum(since) < FRAMES:
            return
        self._marks = counts
        if not since[1] + since[3]:
            return  # nothing crosses: that is for the silence to end
        up, down = since[0] + since[1], since[2] + since[3]
        share = max(since[0] / up if up else 0.0, since[2] / down if down else 0.0)
        first, self._bad_before = not self._bad_before, share > TOO_MANY
        if first and self._bad_before:
            return  # a cable that was out for a moment says nothing of the rate
        self._losses[self.rate] = (share, now)
        best = self._best(now)
        if best != self.rate:
            self._low = self._high = self._rates.index(best)
            self._ask(best, now)

    def _best(self, now: float) -> int:
        """Return the rate with the most good bytes a second, as far as is known."""
        known = {
            rate: rate * (1 - share)
            for rate, (share, when) in self._losses.items()
            if now - when < FRESH and self._usable(rate)
        }
        above = [rate for rate in self._rates if rate > self.rate][:1]
        below = [rate for rate in self._rates if rate < self.rate and rate not in known][-1:]
        if self._losses[self.rate][0] <= TOO_MANY:
            below = []
        for rate in above + below:
            if self._usable(rate):
                known.setdefault(rate, float(rate))
        return max(known, key=lambda rate: known[rate], default=self.rate)

    def _usable(self, rate: int) -> bool:
        return self._strikes.get(rate, 0) < STRIKES

    def _search(self, now: float) -> None:
        """Look for the fastest rate; the one of the moment is `BASE`, which holds."""
        self._low, self._high = 0, len(self._rates)
        self._next_trial(now)

    def _next_trial(self, now: float) -> None:
        """Try the middle one of the rates between those that held and those that did not."""
        usable = [
            place for place in range(self._low + 1, self._high) if self._usable(self._rates[place])
        ]
        if usable:
            self._ask(self._rates[usable[len(usable) // 2]], now)
        else:
            self.phase = Phase.STEADY

    def _ask(self, target: int, now: float) -> None:
        self._target, self.phase = target, Phase.ASKING
        self._since = self._due = now
        self._until = now + QUIET + 3 * (self._trial + RETRY + GUARD)

    def _when(self, idle: bool) -> float:
        """Return when the next PROPOSE or the ACCEPT is due."""
        patience = QUIET if self._active else QUIET / 2
        return self._due if idle else max(self._due, self._since + patience)

    def _heard_rate(self, packet: Rate, now: float) -> None:
        asked = self.phase is Phase.ASKING and packet.rate == self._target
        if self._active and packet.step == ACCEPT and asked:
            self.phase, self._until = Phase.LEAVING, now + GUARD + GUARD / 2
        elif not self._active and packet.step == PROPOSE and packet.rate in self._own | {BASE}:
            self._trial = packet.trial / 1000
            if not asked and self.phase is not Phase.LEAVING:
                self._ask(packet.rate, now)

    def _heard_probe(self, packet: Probe, now: float) -> None:
        if self.phase is not Phase.TRYING:
            return
        self._answered.add(packet.number)
        if self._active:
            if len(self._answered) == PROBES:
                self._judge(now)
        elif packet.number < PROBES:
            self._probes.append(packet.number)
            self._until = now + self._trial + 4 * GUARD  # the active end waits a trial to judge

    def _judge(self, now: float) -> None:
        """End a trial: the active end by what came back, the passive one by what did not come."""
        if self._active and len(self._answered) >= ENOUGH:
            self._low = max(self._low, self._rates.index(self.rate))
            self._losses.pop(self.rate, None)
            self.phase = Phase.STEADY
            self.announcements = ANNOUNCEMENTS
            self._next_trial(now)
            return
        tried = self.rate
        self._strike(now)
        self._switch(self._before, now)
        self.phase = Phase.STEADY
        if self._active:
            self._high = min(self._high, self._rates.index(tried))
            self.phase, self._until = Phase.RETURNING, now + GUARD + self._trip

    def _strike(self, now: float) -> None:
        """Note that the rate of the moment has failed."""
        if self.rate != BASE:
            self._strikes[self.rate] = self._strikes.get(self.rate, 0) + 1
        self._losses[self.rate] = (1.0, now)

    def _switch(self, rate: int, now: float) -> None:
        self.rate, self._changed_at = rate, now
        self._probes = []
        self._bad_before = False  # what was in flight is found lost after the change


def pattern(number: int) -> bytes:
    """Return the bytes of a probe: all values come over 16 of them, zeros and 0x55 among them."""
    return bytes((number * PATTERN + place) * 157 & 0xFF for place in range(PATTERN))


def offered(rates: Sequence[int]) -> int:
    """Return the rates as OPEN names them; those it has no bit for are left out."""
    return sum(1 << bit for bit, rate in enumerate(RATES) if rate in rates)
