"""Rounds of a soak run: masks cross a virtual link with every fault there is, in virtual time.

A round sends 150 masks over a link of its own. Its rate, bit errors, lost blocks and latency are
drawn from the seed and the round's number. So are writes that vanish, are doubled, cut, swapped,
stalled or preceded by console text. During a round ends restart and cables are unplugged, and it
resumes by the rules of docs/wire.md: the host asks for the first mask that it lacks. Each mask must
arrive once, unchanged.
"""

import random
from dataclasses import dataclass

from glioslice.wire.link import Link, Settings, State
from glioslice.wire.messages import Mask, MessageError, Start, parse
from glioslice.wire.simulator.line import ALL, Fault, LineQuality, combined
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.transport import RATES

MASKS = 150
TIME_LIMIT = 7200.0
"""Virtual seconds that a round may take: with a lost mask it would never end."""

STEP = 0.05


@dataclass
class SoakTotals:
    """Counts over all rounds."""

    rounds: int = 0
    frames: int = 0
    bytes: int = 0
    retransmits: int = 0
    damaged: int = 0
    duplicates: int = 0
    restarts: int = 0
    cuts: int = 0
    accepted: int = 0
    wrong: int = 0
    lost: int = 0
    virtual_seconds: float = 0.0


class Round:
    """One round: the masks to send, those that have arrived, and the link that they cross."""

    def __init__(self, seed: int, number: int, totals: SoakTotals) -> None:
        rng = self._rng = random.Random(f"{seed} {number}")
        self._totals = totals
        self._sent = [rng.randbytes(rng.choice([0, 3, 40, 100, 400])) for _ in range(MASKS)]
        self._arrived: list[bytes] = []
        self._next_mask = MASKS
        self._unplugged_until = 0.0
        self._settings = Settings(
            payload=rng.choice([64, 300, 512, 1024]), rates=rng.choice([RATES, ()])
        )
        quality = LineQuality(
            baud=rng.choice([115200, 460800, 921600, 3_000_000]),
            errors=rng.choice([0, 1e-5, 1e-4, 1e-3]),
            loss=rng.choice([0, 0, 0.01]),
            latency=rng.choice([0, 0, 0.016]),
            seed=rng.getrandbits(32),
        )
        fault = combined(rng, rng.sample(ALL, rng.randint(0, 3)))
        self._link = VirtualLine(
            self._new_link(True),
            self._new_link(False),
            quality,
            host_fault=self._unplugged(fault),
            board_fault=self._unplugged(fault),
            bytewise=rng.random() < 0.05,
        )

    def run(self) -> None:
        """Let virtual time pass until every mask has arrived; counts what went wrong."""
        link, totals = self._link, self._totals
        self._send_start()
        while len(self._arrived) < MASKS and link.now < TIME_LIMIT:
            self._disturb()
            link.run(lambda: bool(link.host.received or link.board.received), STEP)
            self._run_host()
            self._run_board()
        totals.rounds += 1
        totals.lost += MASKS - len(self._arrived)
        totals.virtual_seconds += link.now
        for end in (link.host, link.board):
            self._add_counts(end.link)

    def _unplugged(self, fault: Fault) -> Fault:
        """Return the fault; while the cable is unplugged every write is lost."""
        return lambda frame: b"" if self._link.now < self._unplugged_until else fault(frame)

    def _new_link(self, active: bool) -> Link:
        """Return the link of an end that has just started."""
        return Link(self._settings, active=active, session=self._rng.randrange(1, 1 << 32))

    def _restart(self, active: bool) -> None:
        """Start a new session at one end, because it or its peer was restarted."""
        end = self._link.host if active else self._link.board
        self._add_counts(end.link)
        end.link = self._new_link(active)
        end.received.clear()
        if active:
            self._send_start()
        else:
            self._next_mask = MASKS  # a board sends nothing before it gets a Start

    def _disturb(self) -> None:
        """Now and then restart an end, or unplug the cable."""
        draw = self._rng.random()
        if draw < 0.002:
            self._totals.restarts += 1
            self._restart(draw < 0.001)
        elif draw < 0.004:
            self._totals.cuts += 1
            self._unplugged_until = self._link.now + self._rng.choice([0.3, 2.5, 20.0])

    def _send_start(self) -> None:
        start = Start(MASKS, first=min(len(self._arrived), MASKS - 1))
        self._link.host.link.sender.send(start.to_bytes())

    def _run_host(self) -> None:
        host = self._link.host
        while host.received:
            message = self._parse(host.received.pop(0))
            if not isinstance(message, Mask):
                continue
            self._totals.accepted += 1
            index = len(self._arrived)
            if message.index != index or message.payload != self._sent[index]:
                self._totals.wrong += 1
            self._arrived.append(message.payload)
        if host.link.state is not State.OPENING and host.link.state is not State.OPEN:
            self._restart(True)

    def _run_board(self) -> None:
        board = self._link.board
        while board.received:
            message = self._parse(board.received.pop(0))
            if isinstance(message, Start):
                self._next_mask = message.first
        if board.link.state is not State.OPENING and board.link.state is not State.OPEN:
            self._restart(False)
        while self._next_mask < MASKS and len(board.link.sender.unacknowledged) < 4000:
            board.link.sender.send(
                Mask(self._next_mask, 1, 0, self._sent[self._next_mask]).to_bytes()
            )
            self._next_mask += 1

    def _parse(self, data: bytes) -> object:
        try:
            return parse(data)
        except MessageError:
            self._totals.wrong += 1
            return None

    def _add_counts(self, link: Link) -> None:
        counts, totals = link.counts, self._totals
        totals.frames += counts.frames_sent
        totals.bytes += counts.bytes_sent
        totals.retransmits += counts.retransmits
        totals.damaged += counts.bad_frames
        totals.duplicates += counts.duplicates


def soak(frames: int, seed: int) -> SoakTotals:
    """Run rounds until `frames` frames have been sent, and return the totals.

    Raises AssertionError with the round's number if a mask was lost or arrived wrong.
    """
    totals = SoakTotals()
    while totals.frames < frames:
        Round(seed, totals.rounds, totals).run()
        assert not totals.wrong and not totals.lost, (
            f"round {totals.rounds - 1} of seed {seed}: {totals.wrong} wrong masks accepted, "
            f"{totals.lost} lost"
        )
    return totals
