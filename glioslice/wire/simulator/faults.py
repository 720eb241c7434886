"""Faults of a line: frames lost, duplicated, truncated, reordered, stalled or mixed with text.

For tests and soak runs over `virtual_link`. A `Fault` takes each write and returns the bytes that
enter the line instead. A `FaultFactory` makes a fault that draws from a given random generator.
"""

import random
from collections.abc import Callable, Sequence

Fault = Callable[[bytes], bytes]
FaultFactory = Callable[[random.Random], Fault]

CONSOLE = b"\r\n[  12.345678] usb 1-1: new device\r\nraspberrypi login: "
WARNING = b"Under-voltage detected!"
STALL = 12
"""Writes that wait while the line stalls."""


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
