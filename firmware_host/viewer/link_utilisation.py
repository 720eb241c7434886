"""How much of the line is in use, from the bytes that have crossed it."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from glioslice.wire.link import Counts

SPAN = 2.0
"""Seconds over which bytes are averaged."""

BITS = 10
"""Bits that a byte takes on a serial line, with its start and stop bit."""


class LineUse:
    """Averages what `counts` says has crossed; `clock` is time.monotonic."""

    def __init__(
        self, counts: Callable[[], Counts], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._counts, self._clock = counts, clock
        self._seen: deque[tuple[float, int, int]] = deque()

    def look(self, baud: int | None) -> dict[str, Any]:
        """Return bytes a second both ways, and the fuller one as a share of `baud` if known."""
        counts, now = self._counts(), self._clock()
        self._seen.append((now, counts.bytes_sent, counts.bytes_received))
        while len(self._seen) > 2 and now - self._seen[1][0] >= SPAN:
            self._seen.popleft()
        began, sent, received = self._seen[0]
        seconds = max(now - began, 1e-3)
        up, down = (
            (counts.bytes_sent - sent) / seconds,
            (counts.bytes_received - received) / seconds,
        )
        use = min(1.0, max(up, down) * BITS / baud) if baud else None
        return {"baud": baud, "up": round(up), "down": round(down), "use": use}


def baud_of(url: str, given: int | None, agreed: int | None) -> int | None:
    """Return the line's rate: what both ends agreed on, was given, or `sim://` keeps; else None."""
    if url.lower().startswith("sim:"):
        named = parse_qs(urlsplit(url).query).get("baud")
        limits = [rate for rate in (int(named[0]) if named else None, agreed or given) if rate]
        return min(limits, default=None)
    return agreed or given
