"""Two links joined by a simulated line in virtual time: no clock, no threads, reproducible.

For tests and soak runs. Time jumps to the next event, so an hour of a slow line takes as long
as its frames take to compute.
"""

from collections.abc import Callable, Iterator

from glioslice.wire.link import Link
from glioslice.wire.simulator.line import Fault, Lane, LineQuality, unharmed
from glioslice.wire.transport import BAUD


class LinkEnd:
    """A link and the lane that carries its bytes away."""

    def __init__(self, link: Link, lane: Lane, fault: Fault) -> None:
        self.link = link
        self.rate: int | None = None
        self.received: list[bytes] = []
        self.paused = False
        self.peak = 0
        self.lane = lane
        self._fault = fault
        self._written = b""

    def transmit(self, now: float, peer: "LinkEnd", fastest: int) -> None:
        """Keep the line busy with what the link has to send; `fastest` is the rate that it carries.

        Another rate is set once the bytes before it have been sent.
        """
        room = self.lane.room(now)
        while room and not self._written:
            data = self.link.outgoing(now)
            if self.link.rate != self.rate:
                self.rate = self.link.rate
                self.lane.baud = min(self.rate or fastest, fastest)
                room = self.lane.room(now)
            if not data:
                break
            self._written = self._fault(data)
        if room:
            # An end whose rate is fixed has the one that all begin with.
            own, theirs = self.rate or BAUD, peer.rate or BAUD
            garbled = own != theirs or own > max(fastest, BAUD)
            self.lane.put(self._written[:room], now, garbled)
            self._written = self._written[room:]

    def accept(self, data: bytes, now: float) -> None:
        """Process bytes from the line, and read every message they complete unless paused."""
        if data:
            self.link.receive_bytes(data, now)
        self.peak = max(self.peak, self.link.buffered)
        while not self.paused and (message := self.link.receiver.next_message()) is not None:
            self.received.append(message)

    def next_time(self, now: float) -> float:
        """Return when this end has something to do."""
        if self.lane.room(now):
            return min(self.lane.next_time(now), self.link.next_time())
        return self.lane.next_time(now)


class VirtualLine:
    """A host's and a board's link with a line between; `now` is the time since the start.

    `bytewise` delivers one byte at a time. A fault sees each frame that leaves its end. Links whose
    settings name rates begin at 115200 baud, and the line carries up to that of `quality`.
    """

    def __init__(
        self,
        host: Link,
        board: Link,
        quality: LineQuality,
        *,
        host_fault: Fault = unharmed,
        board_fault: Fault = unharmed,
        bytewise: bool = False,
    ) -> None:
        self.now = 0.0
        self.host = LinkEnd(host, Lane(quality, "up"), host_fault)
        self.board = LinkEnd(board, Lane(quality, "down"), board_fault)
        self._bytewise = bytewise
        self.fastest = quality.baud

    def run(self, done: Callable[[], bool], limit: float) -> bool:
        """Let time pass until `done` or until `limit` seconds from now; return `done()`."""
        limit += self.now
        while True:
            self._step()
            if done():
                return True
            due = min(self.host.next_time(self.now), self.board.next_time(self.now))
            self.now = max(due, self.now)
            if self.now > limit:
                self.now = limit
                return False

    def _step(self) -> None:
        for end, other in ((self.host, self.board), (self.board, self.host)):
            end.transmit(self.now, other, self.fastest)
            arrived = end.lane.take(self.now)
            for piece in self._pieces(arrived):
                other.accept(piece, self.now)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        if not self._bytewise or not data:
            yield data
            return
        for position in range(len(data)):
            yield data[position : position + 1]
