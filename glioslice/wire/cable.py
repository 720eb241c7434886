"""The far end's terminal and the cable to it, as a simulated line sees them."""

import math

from glioslice.wire.lane import Quality
from glioslice.wire.transport import BAUD, RATES

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
