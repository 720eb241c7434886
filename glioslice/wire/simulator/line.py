"""One direction of a simulated line: it keeps a baud rate and damages bytes. No threads, no clock.

Time is passed in, so that a test runs it in virtual time and `sim` in real time. What is damaged
depends on the seed and on a byte's place in the stream alone, not on how the bytes were cut.

The far end's terminal and the cable to it, as a simulated line sees them.
"""

import math
import random
from collections import deque
from dataclasses import dataclass

from glioslice.wire.transport import BAUD, RATES

BITS_PER_BYTE = 10
"""8N1: a start bit, eight data bits, a stop bit."""

BLOCK = 64
"""Bytes that `loss` takes at once: a packet of a USB adapter, a fill of a UART's buffer."""

SLICE = 0.004
"""Seconds of line that go on their way in one piece."""

CATCH_UP = 0.05
"""Seconds that a busy lane may be late and still make up, as a buffered line would have."""


@dataclass(frozen=True)
class Quality:
    """What a line does to the bytes in each direction.

    `baud` is the fastest rate that it carries. `errors` is the chance that a bit is flipped, `loss`
    that a block of 64 bytes vanishes, `latency` the seconds that every byte is held back, like an
    adapter's timer. For `unplug` seconds, once, `after` so many from the first byte that came from
    the far end, the cable is out.
    """

    baud: int = 115200
    errors: float = 0.0
    loss: float = 0.0
    latency: float = 0.0
    seed: int = 0
    unplug: float = 0.0
    after: float = 2.0


class Damage:
    """Flips bits and takes blocks out of one stream of bytes."""

    def __init__(self, quality: Quality, direction: str) -> None:
        self._errors, self._loss = quality.errors, quality.loss
        self._flips = random.Random(f"{quality.seed} flips {direction}")
        self._losses = random.Random(f"{quality.seed} losses {direction}")
        self._clean_bits = self._gap()
        self._left_in_block = 0
        self._losing = False

    def __call__(self, data: bytes) -> bytes:
        """Return what the far end sees of `data`."""
        return self._drop(self._flip(data)) if self._loss else self._flip(data)

    def _gap(self) -> float:
        """Return the number of good bits before the next bad one (geometric distribution)."""
        if not self._errors:
            return math.inf
        return math.floor(math.log(1 - self._flips.random()) / math.log1p(-self._errors))

    def _flip(self, data: bytes) -> bytes:
        bits = 8 * len(data)
        if self._clean_bits >= bits:
            self._clean_bits -= bits
            return data
        damaged = bytearray(data)
        while self._clean_bits < bits:
            position = int(self._clean_bits)
            damaged[position // 8] ^= 1 << position % 8
            self._clean_bits += 1 + self._gap()
        self._clean_bits -= bits
        return bytes(damaged)

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
    """Bytes on their way in one direction; `direction` gives each its own random numbers."""

    def __init__(self, quality: Quality, direction: str = "up") -> None:
        self._rate = quality.baud / BITS_PER_BYTE
        self._latency = quality.latency
        self._damage = Damage(quality, direction)
        self._noise = random.Random(f"{quality.seed} noise {direction}")
        self._flying: deque[tuple[float, bytes]] = deque()
        self._free_at = -math.inf
        self._idle = True

    def set_rate(self, baud: int) -> None:
        """Let bytes that are put from now on take the time of `baud`."""
        self._rate = baud / BITS_PER_BYTE

    def room(self, now: float) -> int:
        """Return how many bytes the line takes at this moment; 0 while it is busy."""
        return max(1, int(self._rate * SLICE)) if now >= self._free_at else 0

    def put(self, data: bytes, now: float, garbled: bool = False) -> None:
        """Start `data` on its way; b"" says that nothing was waiting for the line.

        What is `garbled` arrives as noise: its two ends are not set to one rate, or the line cannot
        carry it.
        """
        if not data:
            self._idle = True
            return
        start = now if self._idle else max(self._free_at, now - CATCH_UP)
        self._idle = False
        self._free_at = start + len(data) / self._rate
        arriving = self._noise.randbytes(len(data)) if garbled else self._damage(data)
        self._flying.append((self._free_at + self._latency, arriving))

    def clear(self) -> None:
        """Lose everything that is on its way, as when a cable is pulled out."""
        self._flying.clear()

    def take(self, now: float) -> bytes:
        """Return what has reached the far end by now."""
        arrived = bytearray()
        while self._flying and self._flying[0][0] <= now:
            arrived += self._flying.popleft()[1]
        return bytes(arrived)

    def empty(self) -> bool:
        """Tell whether nothing is on its way."""
        return not self._flying

    def next_time(self, now: float) -> float:
        """Return when bytes arrive or a busy line becomes free; infinity if nothing is to come."""
        due = self._flying[0][0] if self._flying else math.inf
        return min(due, self._free_at) if self._free_at > now else due


OTHER_RATES = (9600, 19200, 38400, 57600, 500000, 576000, 1152000, 2500000, 3500000)
"""Further rates that a process may set its end to; one that is none of ours counts as 115200."""


class Cable:
    """Whether the line is plugged in: once, for a while, it is not."""

    def __init__(self, quality: Quality) -> None:
        self.held = True
        self._quality = quality
        self._out_at = self._in_at = math.inf if quality.unplug else -math.inf

    def begin(self, now: float) -> None:
        """Note that bytes flow."""
        if self._out_at == math.inf:
            self._out_at = now + self._quality.after
            self._in_at = self._out_at + self._quality.unplug

    def whole(self, now: float) -> bool:
        """Tell whether bytes cross: the cable is in, and the host has taken hold of it again."""
        if self._out_at <= now < self._in_at:
            self.held = False
        return self.held

    def plug(self, now: float) -> bool:
        """Take hold of the line again; return whether its cable is in."""
        self.held = self.held or now >= self._in_at
        return self.held


def set_rate_of(descriptor: int, rate: int) -> None:
    """Set a terminal to a baud rate, as a program would that opens it."""
    import termios

    attributes = termios.tcgetattr(descriptor)
    attributes[4] = attributes[5] = getattr(termios, f"B{rate}", termios.B115200)
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def rate_of(descriptor: int) -> int:
    """Return the baud rate that a terminal is set to."""
    import termios

    try:
        speed = termios.tcgetattr(descriptor)[5]
    except termios.error:
        return BAUD
    for rate in (*RATES, *OTHER_RATES):
        if getattr(termios, f"B{rate}", None) == speed:
            return rate
    return BAUD
