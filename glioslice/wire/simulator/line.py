"""One direction of a simulated line, and faults of its frames. No threads, no clock.

A `Lane` keeps a baud rate and damages bytes. Time is passed in, so that tests run it in virtual
time and `port` in real time. What is damaged depends only on the seed and on a byte's place in the
stream, not on how the bytes were cut.

Faults are for tests and soak runs over `virtual_link`: frames are lost, duplicated, truncated,
reordered, stalled or mixed with text. A `Fault` takes each write and returns the bytes that enter
the line instead. A `FaultFactory` makes a fault that draws from a given random generator.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

BITS_PER_BYTE = 10
"""8N1: a start bit, eight data bits, a stop bit."""

BLOCK = 64
"""Bytes that `loss` takes at once: a packet of a USB adapter, a fill of a UART's buffer."""

SLICE = 0.004
"""Seconds of line that are sent in one piece, unless a lane is given others."""

CATCH_UP = 0.35
"""Seconds that a busy lane may be late and still make up: a UART's 4 kB at 115200 baud, which are
sent without the processor. At higher rates what waits in the buffer limits it."""

Fault = Callable[[bytes], bytes]
FaultFactory = Callable[[random.Random], Fault]

CONSOLE = b"\r\n[  12.345678] usb 1-1: new device\r\nraspberrypi login: "
WARNING = b"Under-voltage detected!"
STALL = 12
"""Writes that wait while the line stalls."""


@dataclass(frozen=True)
class LineQuality:
    """What a line does to the bytes in each direction.

    `baud` is the fastest rate that it carries. `errors` is the probability that a bit is flipped,
    `loss` that a block of 64 bytes vanishes, `latency` the seconds that every byte is delayed, like
    an adapter's timer. For `unplug` seconds, once, `after` seconds from the first byte that came
    from the far end, the cable is out.
    """

    baud: int = 115200
    errors: float = 0.0
    loss: float = 0.0
    latency: float = 0.0
    seed: int = 0
    unplug: float = 0.0
    after: float = 2.0


class Damage:
    """Flips bits in one stream of bytes and drops blocks of it."""

    def __init__(self, quality: LineQuality, direction: str) -> None:
        self._errors, self._loss = quality.errors, quality.loss
        self._flips = random.Random(f"{quality.seed} flips {direction}")
        self._losses = random.Random(f"{quality.seed} losses {direction}")
        self._clean_bits = self._gap()
        self._left_in_block = 0
        self._losing = False

    def apply(self, data: bytes) -> bytes:
        """Return what the far end receives of `data`."""
        bits = 8 * len(data)
        if self._clean_bits < bits:
            damaged = bytearray(data)
            while self._clean_bits < bits:
                position = int(self._clean_bits)
                damaged[position // 8] ^= 1 << position % 8
                self._clean_bits += 1 + self._gap()
            data = bytes(damaged)
        self._clean_bits -= bits
        return self._drop(data) if self._loss else data

    def _gap(self) -> float:
        """Return the number of good bits before the next bad one (geometric distribution)."""
        if not self._errors:
            return math.inf
        return math.floor(math.log(1 - self._flips.random()) / math.log1p(-self._errors))

    def _drop(self, data: bytes) -> bytes:
        kept = bytearray()
        while data:
            if not self._left_in_block:
                self._left_in_block = BLOCK
                self._losing = self._losses.random() < self._loss
            piece, data = data[: self._left_in_block], data[self._left_in_block :]
            self._left_in_block -= len(piece)
            if not self._losing:
                kept += piece
        return bytes(kept)


class Lane:
    """Bytes in transit in one direction; `direction` gives each its own random numbers.

    `baud` is the rate of bytes that are put from now on. `in_transit` holds their arrival times.
    What takes longer than `piece` seconds is sent in several pieces.
    """

    def __init__(self, quality: LineQuality, direction: str = "up", piece: float = SLICE) -> None:
        self.baud = quality.baud
        self._piece = piece
        self.in_transit: deque[tuple[float, bytes]] = deque()
        self._latency = quality.latency
        self._damage = Damage(quality, direction)
        self._noise = random.Random(f"{quality.seed} noise {direction}")
        self._free_at = -math.inf
        self._idle = True

    def room(self, now: float) -> int:
        """Return how many bytes the line accepts at this moment; 0 while it is busy."""
        return max(1, int(self.baud / BITS_PER_BYTE * self._piece)) if now >= self._free_at else 0

    def put(self, data: bytes, now: float, garbled: bool = False) -> None:
        """Send `data`; b"" means that nothing was waiting for the line.

        `garbled` data arrives as noise: the two ends are not set to one rate, or the line cannot
        carry it.
        """
        if not data:
            self._idle = True
            return
        start = now if self._idle else max(self._free_at, now - CATCH_UP)
        self._idle = False
        self._free_at = start + len(data) / (self.baud / BITS_PER_BYTE)
        arriving = self._noise.randbytes(len(data)) if garbled else self._damage.apply(data)
        self.in_transit.append((self._free_at + self._latency, arriving))

    def take(self, now: float) -> bytes:
        """Return what has reached the far end by now."""
        arrived = bytearray()
        while self.in_transit and self.in_transit[0][0] <= now:
            arrived += self.in_transit.popleft()[1]
        return bytes(arrived)

    def next_time(self, now: float) -> float:
        """Return when bytes arrive or a busy line becomes free; infinity if nothing is to come."""
        due = self.in_transit[0][0] if self.in_transit else math.inf
        return min(due, self._free_at) if self._free_at > now else due


def unharmed(data: bytes) -> bytes:
    """Return `data`: no fault."""
    return data


def dropping(share: float) -> FaultFactory:
    """Lose this share of the frames."""
    return lambda chance: lambda frame: b"" if chance.random() < share else frame


def duplicating(chance: random.Random) -> Fault:
    """Send some frames two or three times."""
    return lambda frame: frame * chance.choice([1, 1, 2, 3])


def truncating(chance: random.Random) -> Fault:
    """Truncate one frame in ten."""
    return lambda frame: frame[: chance.randrange(len(frame))] if chance.random() < 0.1 else frame


def console_text(chance: random.Random) -> Fault:
    """Insert a console's text between frames, and into them."""

    def fault(frame: bytes) -> bytes:
        if chance.random() < 0.1:
            return CONSOLE + frame
        if chance.random() < 0.05:
            at = chance.randrange(len(frame))
            return frame[:at] + WARNING + frame[at:]
        return frame

    return fault


def reordering(chance: random.Random) -> Fault:
    """Swap one write in five with the next one."""
    waiting: list[bytes] = []

    def fault(frame: bytes) -> bytes:
        if waiting:
            return frame + waiting.pop()
        if chance.random() < 0.2:
            waiting.append(frame)
            return b""
        return frame

    return fault


def pausing(chance: random.Random) -> Fault:
    """Hold writes back now and then, and release them all at once."""
    waiting: list[bytes] = []

    def fault(frame: bytes) -> bytes:
        if waiting or chance.random() < 0.03:
            waiting.append(frame)
            if len(waiting) < STALL:
                return b""
            frame = b"".join(waiting)
            waiting.clear()
        return frame

    return fault


ALL: tuple[FaultFactory, ...] = (
    dropping(0.2),
    duplicating,
    truncating,
    console_text,
    reordering,
    pausing,
)


def combined(chance: random.Random, factories: Sequence[FaultFactory]) -> Fault:
    """Return all these faults, one after the other."""
    faults = [factory(chance) for factory in factories]

    def fault(frame: bytes) -> bytes:
        for one in faults:
            frame = one(frame) if frame else frame
        return frame

    return fault
