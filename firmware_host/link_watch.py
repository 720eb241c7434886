"""Tells a link that alters bytes from one that is only bad: short frames pass, data never does.

Software flow control, a telnet server, a port with 7 bits or one that marks parity errors eats or
doubles certain bytes. A long frame contains every value, so it fails each time that it is sent; the
frames that keep the link alive are short and mostly pass.
"""

import time

from glioslice.errors import GliosliceError
from glioslice.wire.connection import Connection

STUCK = 8.0
"""Seconds without progress after which the counts are looked at; a trial of a baud rate takes 1."""

ENOUGH = 4
"""Retransmissions of data, or damaged frames from the far end, in that time."""

ADVICE = (
    "the link alters some bytes, as software flow control (XON/XOFF), a telnet server, 7 data "
    "bits or marked parity errors do; make it transparent (raw, 8 bits, no parity, no flow "
    "control); see `glioslice doctor --port PORT`"
)


class LinkAltersBytes(GliosliceError):
    """Frames with all values never arrive, although short ones do."""


class LinkWatch:
    """Watches one connection; call `check` whenever nothing has arrived for a moment."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._mark()

    def _mark(self) -> None:
        self._since = time.monotonic()
        self._progress = self._connection.progress
        self._counts = self._connection.counts

    def check(self) -> None:
        """Raise LinkAltersBytes if data has failed often, and only data, since the last progress.

        A bad line lets a frame through now and then, and an unplugged one lets nothing through.
        """
        if self._connection.progress != self._progress:
            self._mark()
            return
        seconds = time.monotonic() - self._since
        if seconds < STUCK:
            return
        now, then = self._connection.counts, self._counts
        alive = now.frames_received - then.frames_received > 1
        failed = max(now.retransmits - then.retransmits, now.bad_frames - then.bad_frames)
        if alive and failed >= ENOUGH:
            raise LinkAltersBytes(
                f"{self._connection.name}: short frames arrive, but in {seconds:.0f} s no frame "
                f"with data did, in {failed} attempts: {ADVICE}"
            )
        self._mark()
