"""What can become of a frame that leaves: lost, doubled, cut, swapped, stalled, among other text.

For tests and soak runs over `virtual`. Each maker draws from the random numbers it is given and
returns a fault, which takes whole writes and returns the bytes that enter the line in their place.
"""

import random
from collections.abc import Callable, Sequence

Fault = Callable[[bytes], bytes]
Maker = Callable[[random.Random], Fault]

CONSOLE = b"\r\n[  12.345678] usb 1-1: new device\r\nraspberrypi login: "
WARNING = b"Under-voltage detected!"
STALL = 12
"""Writes that wait while a line stalls."""


def unharmed(data: bytes) -> bytes:
    """Return `data`: the fault that is none."""
    return data


def dropping(share: float) -> Maker:
    """Lose so many of the frames."""
    return lambda chance: lambda frame: b"" if chance.random() < share else frame


def doubling(chance: random.Random) -> Fault:
    """Let a frame come two or three times."""
    return lambda frame: frame * chance.choice([1, 1, 2, 3])


def truncating(chance: random.Random) -> Fault:
    """Cut one frame in ten short."""
    return lambda frame: frame[: chance.randrange(len(frame))] if chance.random() < 0.1 else frame


def shouting(chance: random.Random) -> Fault:
    """Spill a console's text between frames, and into them."""

    def fault(frame: bytes) -> bytes:
        if chance.random() < 0.1:
            return CONSOLE + frame
        if chance.random() < 0.05:
            at = chance.randrange(len(frame))
            return frame[:at] + WARNING + frame[at:]
        return frame

    return fault


def reordering(chance: random.Random) -> Fault:
    """Let one write in five come after the next one."""
    held: list[bytes] = []

    def fault(frame: bytes) -> bytes:
        if held:
            return frame + held.pop()
        if chance.random() < 0.2:
            held.append(frame)
            return b""
        return frame

    return fault


def pausing(chance: random.Random) -> Fault:
    """Hold writes back now and then, and let them go all at once."""
    held: list[bytes] = []

    def fault(frame: bytes) -> bytes:
        if held or chance.random() < 0.03:
            held.append(frame)
            if len(held) < STALL:
                return b""
            frame = b"".join(held)
            held.clear()
        return frame

    return fault


ALL: tuple[Maker, ...] = (
    dropping(0.2),
    doubling,
    truncating,
    shouting,
    reordering,
    pausing,
)


def mixed(chance: random.Random, makers: Sequence[Maker]) -> Fault:
    """Return the faults of all makers, one after the other."""
    faults = [make(chance) for make in makers]

    def fault(frame: bytes) -> bytes:
        for one in faults:
            frame = one(frame) if frame else frame
        return frame

    return fault
