"""A state machine: whatever happens to two links, nothing is lost, duplicated or wrong."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from glioslice.wire.framing import MAX_ENCODED
from glioslice.wire.link import MAX_MESSAGE, Link, Settings, State
from glioslice.wire.receiver import HOLD
from glioslice.wire.simulator.line import (
    Fault,
    LineQuality,
    console_text,
    dropping,
    duplicating,
    pausing,
    reordering,
    truncating,
    unharmed,
)
from glioslice.wire.simulator.virtual_link import LinkEnd, VirtualLine
from glioslice.wire.transport import RATES

FAULTS = {
    "none": lambda chance: unharmed,
    "loss": dropping(0.3),
    "duplicating": duplicating,
    "truncation": truncating,
    "console": console_text,
    "swapped": reordering,
    "pauses": pausing,
    "cut": dropping(1.1),
}


class LinkMachine(RuleBasedStateMachine):
    """Two ends that send, read, pause, restart and close over a line that changes."""

    @initialize(
        payload=st.sampled_from([64, 512, 1024]),
        window=st.sampled_from([1024, 4096, 32768]),
        rates=st.sampled_from([(), RATES]),
        latency=st.sampled_from([0.0, 0.016]),
        errors=st.sampled_from([0.0, 1e-4]),
        seed=st.integers(0, 2**32),
    )
    def begin(
        self,
        payload: int,
        window: int,
        rates: tuple[int, ...],
        latency: float,
        errors: float,
        seed: int,
    ) -> None:
        self.settings = Settings(payload, window, rates)
        self.chance = random.Random(seed)
        self.fault: Fault = unharmed
        self.sessions = 0
        quality = LineQuality(921600, errors=errors, latency=latency, seed=seed)
        self.line = VirtualLine(
            self.link(True),
            self.link(False),
            quality,
            host_fault=lambda frame: self.fault(frame),
            board_fault=lambda frame: self.fault(frame),
        )
        # Of each end: what it sends in its session, and the session that the other end is in.
        self.sent: dict[bool, list[bytes]] = {True: [], False: []}

    def link(self, active: bool) -> Link:
        self.sessions += 1
        return Link(self.settings, active=active, session=self.sessions)

    def end(self, active: bool) -> LinkEnd:
        return self.line.host if active else self.line.board

    @rule(active=st.booleans(), sizes=st.lists(st.integers(1, 3000), min_size=1, max_size=8))
    def send(self, active: bool, sizes: list[int]) -> None:
        for size in sizes:
            message = self.chance.randbytes(size)
            self.end(active).link.sender.send(message)
            self.sent[active].append(message)

    @rule(name=st.sampled_from(sorted(FAULTS)))
    def change_the_line(self, name: str) -> None:
        self.fault = FAULTS[name](self.chance)

    @rule(seconds=st.sampled_from([0.01, 0.2, 1.0, 3.0, 20.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.line.run(lambda: False, seconds)
        for active in (True, False):
            if self.end(active).link.state is not State.OPEN:
                self.follow_a_restart(active)

    @rule(active=st.booleans())
    def pause_or_read(self, active: bool) -> None:
        self.end(active).paused ^= True

    @rule(active=st.booleans())
    def restart(self, active: bool) -> None:
        end = self.end(active)
        end.link = self.link(active)
        self.forget(active)

    @rule(active=st.booleans())
    def close(self, active: bool) -> None:
        self.end(active).link.close()
        self.line.run(lambda: False, 0.1)
        self.restart(active)

    def follow_a_restart(self, active: bool) -> None:
        """Begin a new session, as a connection does whose peer has restarted or closed."""
        end = self.end(active)
        if end.link.state in (State.RESTARTED, State.CLOSED):
            end.link = self.link(active)
            self.forget(active)

    def forget(self, active: bool) -> None:
        """A new session of one end: neither knows anything of what was sent before."""
        self.sent[active] = []
        self.end(active).received = []

    @invariant()
    @precondition(lambda self: hasattr(self, "line"))
    def what_arrived_is_what_was_sent(self) -> None:
        for active in (True, False):
            end, peer = self.end(active), self.end(not active)
            assert end.link.state is not State.REFUSED
            assert end.peak <= HOLD + MAX_MESSAGE + 2 * 32768 + MAX_ENCODED
            if end.link._peer == peer.link.session and peer.link._peer == end.link.session:
                assert end.received == self.sent[not active][: len(end.received)]

    def teardown(self) -> None:
        """On a good line everything arrives that was sent since the last restart."""
        if not hasattr(self, "line"):
            return
        self.fault = unharmed
        for active in (True, False):
            self.end(active).paused = False
        for _ in range(40):
            self.let_time_pass(1.0)
        for active in (True, False):
            assert self.end(active).link.state is State.OPEN
            assert self.end(active).received == self.sent[not active]
        host, board = self.line.host, self.line.board  # they may be in the middle of a trial
        assert self.line.run(lambda: host.link.rate == board.link.rate, 5.0)


TestMachine = LinkMachine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
