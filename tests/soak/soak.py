"""Send masks through every fault there is, in virtual time, until so many frames have left.

    python tests/soak/soak.py --frames 10000 --seed 1                     # CI: a hundredth
    python tests/soak/soak.py --frames 1000000 --seed 1 --log benchmarks/soak.log

A round is a run of 150 masks over a line of its own: its rate, bit errors, lost blocks and delay,
and writes that vanish, come twice, are cut, swapped, stalled or preceded by console text are drawn
from the seed and the round's number. Within a run ends restart and cables are pulled, and it goes
on by the rules of docs/wire.md: the host asks for the first mask that it lacks. Each must arrive
once, as it was sent.
"""

import argparse
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_bytes
from glioslice.wire.link import Link, Settings, State
from glioslice.wire.messages import Mask, MessageError, Start, parse
from glioslice.wire.simulator.faults import ALL, Fault, mixed
from glioslice.wire.simulator.line import Quality
from glioslice.wire.simulator.virtual_link import VirtualLine
from glioslice.wire.transport import RATES

MASKS = 150
LIMIT = 7200.0
"""Seconds of virtual time that a run may take; a mask that is lost would take for ever."""

STEP = 0.05


@dataclass
class Totals:
    """What the rounds have come to."""

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
    """One run: what is to arrive, what has, and the line that it crosses."""

    def __init__(self, seed: int, number: int, totals: Totals) -> None:
        chance = self._chance = random.Random(f"{seed} {number}")
        self._totals = totals
        self._sent = [chance.randbytes(chance.choice([0, 3, 40, 100, 400])) for _ in range(MASKS)]
        self._arrived: list[bytes] = []
        self._next = MASKS
        self._cut_until = 0.0
        self._settings = Settings(
            payload=chance.choice([64, 300, 512, 1024]), rates=chance.choice([RATES, ()])
        )
        quality = Quality(
            baud=chance.choice([115200, 460800, 921600, 3_000_000]),
            errors=chance.choice([0, 1e-5, 1e-4, 1e-3]),
            loss=chance.choice([0, 0, 0.01]),
            latency=chance.choice([0, 0, 0.016]),
            seed=chance.getrandbits(32),
        )
        fault = mixed(chance, chance.sample(ALL, chance.randint(0, 3)))
        self._line = VirtualLine(
            self._new(True),
            self._new(False),
            quality,
            host_fault=self._cable(fault),
            board_fault=self._cable(fault),
            bytewise=chance.random() < 0.05,
        )

    def run(self) -> None:
        """Let time pass until every mask is there; counts what went wrong."""
        line, totals = self._line, self._totals
        self._ask()
        while len(self._arrived) < MASKS and line.now < LIMIT:
            self._mishap()
            line.run(lambda: bool(line.host.received or line.board.received), STEP)
            self._host()
            self._board()
        totals.rounds += 1
        totals.lost += MASKS - len(self._arrived)
        totals.virtual_seconds += line.now
        for end in (line.host, line.board):
            self._count(end.link)

    def _cable(self, fault: Fault) -> Fault:
        """Return the fault, and nothing at all while the cable is out."""
        return lambda frame: b"" if self._line.now < self._cut_until else fault(frame)

    def _new(self, active: bool) -> Link:
        """Return a link as an end has it that has just started."""
        return Link(self._settings, active=active, session=self._chance.randrange(1, 1 << 32))

    def _restart(self, active: bool) -> None:
        """Let an end begin a new session, because it was restarted or its peer was."""
        end = self._line.host if active else self._line.board
        self._count(end.link)
        end.link = self._new(active)
        end.received.clear()
        if active:
            self._ask()
        else:
            self._next = MASKS  # a board that nobody has asked

    def _mishap(self) -> None:
        """Now and then restart an end, or pull the cable."""
        draw = self._chance.random()
        if draw < 0.002:
            self._totals.restarts += 1
            self._restart(draw < 0.001)
        elif draw < 0.004:
            self._totals.cuts += 1
            self._cut_until = self._line.now + self._chance.choice([0.3, 2.5, 20.0])

    def _ask(self) -> None:
        start = Start(MASKS, first=min(len(self._arrived), MASKS - 1))
        self._line.host.link.sender.send(start.to_bytes())

    def _host(self) -> None:
        host = self._line.host
        while host.received:
            message = self._read(host.received.pop(0))
            if not isinstance(message, Mask):
                continue
            self._totals.accepted += 1
            index = len(self._arrived)
            if message.index != index or message.payload != self._sent[index]:
                self._totals.wrong += 1
            self._arrived.append(message.payload)
        if host.link.state is not State.OPENING and host.link.state is not State.OPEN:
            self._restart(True)

    def _board(self) -> None:
        board = self._line.board
        while board.received:
            message = self._read(board.received.pop(0))
            if isinstance(message, Start):
                self._next = message.first
        if board.link.state is not State.OPENING and board.link.state is not State.OPEN:
            self._restart(False)
        while self._next < MASKS and board.link.sender.queued < 4000:
            board.link.sender.send(Mask(self._next, 1, 0, self._sent[self._next]).to_bytes())
            self._next += 1

    def _read(self, data: bytes) -> object:
        try:
            return parse(data)
        except MessageError:
            self._totals.wrong += 1
            return None

    def _count(self, link: Link) -> None:
        counts, totals = link.counts, self._totals
        totals.frames += counts.frames_sent
        totals.bytes += counts.bytes_sent
        totals.retransmits += counts.retransmits
        totals.damaged += counts.bad_frames
        totals.duplicates += counts.duplicates


def soak(frames: int, seed: int) -> Totals:
    """Return what rounds of `frames` frames come to."""
    totals = Totals()
    while totals.frames < frames:
        Round(seed, totals.rounds, totals).run()
        if totals.wrong or totals.lost:
            raise GliosliceError(
                f"round {totals.rounds - 1} of seed {seed}: {totals.wrong} wrong masks accepted, "
                f"{totals.lost} lost"
            )
    return totals


def work(arguments: argparse.Namespace) -> None:
    """Run, print and keep the totals."""
    began = time.monotonic()
    totals = soak(arguments.frames, arguments.seed)
    lines = [f"soak: at least {arguments.frames} frames, seed {arguments.seed}"]
    lines += [f"{name}: {value:.0f}" for name, value in asdict(totals).items()]
    print("\n".join([*lines, f"seconds: {time.monotonic() - began:.0f}"]))
    if arguments.log:
        write_bytes(arguments.log, ("\n".join(lines) + "\n").encode())


def main() -> None:
    """Do what the command line says."""
    parser = cli.parser("Soak the link in faults.", "python tests/soak/soak.py --frames 10000")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log", type=Path, metavar="FILE", help="keep the totals there")
    cli.run(work, parser.parse_args())


if __name__ == "__main__":
    main()
