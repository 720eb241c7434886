"""The baud rate of a link: found by trials, and changed when losses rise or nothing is received.

A session opens at `BASE`. The active end then searches, by halves, for the fastest rate that both
ends offer and the line carries. One trial, at the old rate until the guard time has passed:

    active   PROPOSE  ............  guard, new rate, 16 PROBE ...........  kept, or back
    passive  ........  ACCEPT, guard, new rate ..........  PROBE each  ..  kept, or back

New data waits meanwhile, and a trial begins when nothing is in flight. A rate is kept if a quarter
of the probes comes back; the passive end keeps it when it receives anything else. An end that has
received nothing for two seconds returns to `BASE`, whatever it was doing: an end that has lost the
other meets it there. Every 64 frames the rate with the most good bytes per second is chosen, of
those measured within a minute. The next higher rate is assumed to lose nothing if it was not
measured. After many losses twice in a row, so is the next lower one.
"""

import math
from collections.abc import Sequence
from enum import Enum

from glioslice.wire.packets import ACCEPT, PATTERN, PROPOSE, Probe, Rate
from glioslice.wire.transport import BAUD, RATES

BASE = BAUD
FALLBACK_SILENCE = 2.0
"""Seconds without a good packet after which an end returns to `BASE`."""

GUARD = 0.05
"""Seconds between the last byte at one rate and the first at another: adapters hold bytes back."""

TRIAL = 0.3
"""Seconds that a trial waits for the next probe, beside two round trips."""

DRAIN = 1.0
"""Seconds that a trial waits at most for what is in flight."""

RETRY = 0.1
PROBES, ENOUGH = 16, 4
"""How many probes a trial sends, and how many must come back: noise never looks like one, and
losses are weighed later."""

MAX_FAILURES = 3
"""Failures after which a rate is not tried again in this session."""

ANNOUNCEMENTS = 4
"""ACKs sent at once when a rate is kept: the passive end has to receive one."""

FRAMES, TOO_MANY = 64, 0.25
"""Frames after which losses are weighed, and the share of losses that calls for another rate."""

FRESH = 60.0
"""Seconds for which a measured loss holds."""

Traffic = tuple[int, int, int, int]
"""Frames sent that were lost and that arrived, frames received that were bad and that were good."""


class Phase(Enum):
    """What an end is doing about its rate."""

    STEADY = "steady"
    PROPOSING = "proposing"
    SWITCHING = "switching"
    TRIAL = "trial"
    RETURNING = "returning"


EXCLUSIVE = (Phase.SWITCHING, Phase.TRIAL, Phase.RETURNING)
"""Phases in which nothing but RATE and PROBE may be sent."""


class BaudNegotiation:
    """The rate of one end of a session. `own` are the rates that its port can change to.

    New data has to wait unless `phase` is STEADY. `announcements` ACKs are to be sent at once.
    """

    def __init__(self, active: bool, own: Sequence[int]) -> None:
        self.rate = BASE
        self.phase = Phase.STEADY
        self.announcements = 0
        self._active, self._own = active, frozenset(own)
        self._rates: list[int] = []
        self._low, self._high = 0, 0
        self._target = self._before = BASE
        self._round_trip = 0.0
        self._trial = TRIAL
        self._due = self._since = self._until = math.inf
        self._changed_at = -math.inf
        self._probes: list[int] = []
        self._replies: set[int] = set()
        self._search_again = False
        self._failures: dict[int, int] = {}
        self._losses: dict[int, tuple[float, float]] = {}
        self._bad_before = False
        self._marks: Traffic = (0, 0, 0, 0)

    def start(self, theirs: int, round_trip: float, now: float) -> None:
        """Start the search for a rate, now that a session is open and the peer offers `theirs`."""
        both = self._own & {rate for bit, rate in enumerate(RATES) if theirs >> bit & 1}
        self._rates = sorted({BASE} | both) if both - {BASE} else [BASE]
        self._round_trip = min(max(round_trip, 0.0), 1.0)
        if self._active:
            self._trial = TRIAL + 2 * self._round_trip
            self._search(now)

    def receive(self, packet: Rate | Probe | None, now: float) -> None:
        """Process a packet of the session; None stands for any other kind."""
        if isinstance(packet, Rate):
            self._receive_rate(packet, now)
        elif isinstance(packet, Probe):
            self._receive_probe(packet, now)
        elif self.phase is Phase.TRIAL and not self._active and self._replies:
            self.phase = Phase.STEADY
        if self._search_again and self.rate == BASE and self.phase is Phase.STEADY:
            self._search_again = False
            self._search(now)

    def check(self, traffic: Traffic, last_received: float, now: float) -> None:
        """Do what is due by time or by the number of frames; `traffic` counts since the start."""
        if self.rate != BASE and now >= max(last_received, self._changed_at) + FALLBACK_SILENCE:
            self._note_failure(now)
            self._search_again = self._active
            self.phase = Phase.STEADY
            self._switch(BASE, now)
        elif self.phase is not Phase.STEADY and now >= self._until:
            self._end_phase(now)
        busy = self.phase is not Phase.STEADY or self._search_again
        if busy or len(self._rates) < 2 or not self._active:
            self._marks = traffic
        elif sum(traffic) - sum(self._marks) >= FRAMES:
            self._weigh(traffic, now)

    def next_packet(self, tag: int, idle: bool, now: float) -> Rate | Probe | None:
        """Return what has to be sent now; `idle` means that no data is in flight."""
        if self.phase is Phase.PROPOSING and now >= self._proposal_time(idle):
            trial = round(self._trial * 1000)
            if self._active:
                self._due = now + RETRY + self._round_trip
                return Rate(tag, PROPOSE, self._target, trial)
            self.phase, self._until = Phase.SWITCHING, now + GUARD
            return Rate(tag, ACCEPT, self._target, trial)
        if self.phase is Phase.TRIAL and self._probes:
            number = self._probes.pop(0)
            if self._active and not self._probes:
                self._until = now + self._trial
            return Probe(tag, number, pattern(number))
        return None

    def next_time(self, idle: bool, last_received: float) -> float:
        """Return when `check` or `next_packet` has to be called."""
        silence = math.inf
        if self.rate != BASE:
            silence = max(last_received, self._changed_at) + FALLBACK_SILENCE
        if self.phase is Phase.STEADY:
            return silence
        if self.phase is Phase.TRIAL and self._probes:
            return -math.inf
        if self.phase is Phase.PROPOSING:
            return min(silence, self._until, self._proposal_time(idle))
        return min(silence, self._until)

    def _end_phase(self, now: float) -> None:
        """End a phase whose time is over."""
        match self.phase:
            case Phase.PROPOSING:
                self.phase = Phase.STEADY
            case Phase.SWITCHING:
                self._before = self.rate
                self._switch(self._target, now)
                self.phase = Phase.TRIAL
                self._replies = set()
                self._probes = list(range(PROBES)) if self._active else []
                self._until = now + self._trial
            case Phase.TRIAL:
                self._judge(now)
            case Phase.RETURNING:
                self._next_trial(now)

    def _weigh(self, traffic: Traffic, now: float) -> None:
        """Propose another rate if one is better by what was lost since the last time."""
        lost, arrived, bad, good = (
            count - mark for count, mark in zip(traffic, self._marks, strict=True)
        )
        self._marks = traffic
        if not arrived + good:
            return  # nothing crosses: FALLBACK_SILENCE ends that
        up, down = lost + arrived, bad + good
        share = max(lost / up if up else 0.0, bad / down if down else 0.0)
        first, self._bad_before = not self._bad_before, share > TOO_MANY
        if first and self._bad_before:
            return  # a cable that was out for a moment is no reason to change the rate
        self._losses[self.rate] = (share, now)
        best = self._best(now)
        if best != self.rate:
            self._low = self._high = self._rates.index(best)
            self._propose(best, now)

    def _best(self, now: float) -> int:
        """Return the rate with the most good bytes per second, as far as is known."""
        known = {
            rate: rate * (1 - share)
            for rate, (share, when) in self._losses.items()
            if now - when < FRESH and self._is_usable(rate)
        }
        above = [rate for rate in self._rates if rate > self.rate][:1]
        below = [rate for rate in self._rates if rate < self.rate and rate not in known][-1:]
        if self._losses[self.rate][0] <= TOO_MANY:
            below = []
        for rate in above + below:
            if self._is_usable(rate):
                known.setdefault(rate, float(rate))
        return max(known, key=lambda rate: known[rate], default=self.rate)

    def _is_usable(self, rate: int) -> bool:
        return self._failures.get(rate, 0) < MAX_FAILURES

    def _search(self, now: float) -> None:
        """Search for the fastest rate, starting at `BASE`, which works."""
        self._low, self._high = 0, len(self._rates)
        self._next_trial(now)

    def _next_trial(self, now: float) -> None:
        """Try the middle one of the rates between those that held and those that did not."""
        places = range(self._low + 1, self._high)
        usable = [place for place in places if self._is_usable(self._rates[place])]
        if usable:
            self._propose(self._rates[usable[len(usable) // 2]], now)
        else:
            self.phase = Phase.STEADY

    def _propose(self, target: int, now: float) -> None:
        self._target, self.phase = target, Phase.PROPOSING
        self._since = self._due = now
        self._until = now + DRAIN + 3 * (self._trial + RETRY + GUARD)

    def _proposal_time(self, idle: bool) -> float:
        """Return when the next PROPOSE or the ACCEPT is due."""
        patience = DRAIN if self._active else DRAIN / 2
        return self._due if idle else max(self._due, self._since + patience)

    def _receive_rate(self, packet: Rate, now: float) -> None:
        proposed = self.phase is Phase.PROPOSING and packet.rate == self._target
        if self._active and packet.step == ACCEPT and proposed:
            self.phase, self._until = Phase.SWITCHING, now + GUARD + GUARD / 2
        elif not self._active and packet.step == PROPOSE and packet.rate in self._own | {BASE}:
            self._trial = packet.trial / 1000
            if not proposed and self.phase is not Phase.SWITCHING:
                self._propose(packet.rate, now)

    def _receive_probe(self, packet: Probe, now: float) -> None:
        if self.phase is not Phase.TRIAL:
            return
        self._replies.add(packet.number)
        if self._active:
            if len(self._replies) == PROBES:
                self._judge(now)
        elif packet.number < PROBES:
            self._probes.append(packet.number)
            self._until = now + self._trial + 4 * GUARD  # the active end waits a trial to judge

    def _judge(self, now: float) -> None:
        """End a trial: the active end by the replies, the passive one by what did not arrive."""
        if self._active and len(self._replies) >= ENOUGH:
            self._low = max(self._low, self._rates.index(self.rate))
            self._losses.pop(self.rate, None)
            self.phase = Phase.STEADY
            self.announcements = ANNOUNCEMENTS
            self._next_trial(now)
            return
        tried = self.rate
        self._note_failure(now)
        self._switch(self._before, now)
        self.phase = Phase.STEADY
        if self._active:
            self._high = min(self._high, self._rates.index(tried))
            self.phase, self._until = Phase.RETURNING, now + GUARD + self._round_trip

    def _note_failure(self, now: float) -> None:
        """Note that the present rate has failed."""
        if self.rate != BASE:
            self._failures[self.rate] = self._failures.get(self.rate, 0) + 1
        self._losses[self.rate] = (1.0, now)

    def _switch(self, rate: int, now: float) -> None:
        self.rate, self._changed_at = rate, now
        self._probes = []
        self._bad_before = False  # what was in flight is found lost after the change


def pattern(number: int) -> bytes:
    """Return the bytes of a probe. 16 of them hold every value, zeros and 0x55 included."""
    return bytes((number * PATTERN + place) * 157 & 0xFF for place in range(PATTERN))


def offered_rates(rates: Sequence[int]) -> int:
    """Return the rates as OPEN names them; those without a bit there are left out."""
    return sum(1 << bit for bit, rate in enumerate(RATES) if rate in rates)
