"""The sending half of a link: messages cut into segments, and which of them are retransmitted.

A segment is lost when one that left after it has arrived, because a serial line keeps its order.
That covers a segment lost a second time as well. When the last ones are not acknowledged at all, a
time-out that follows the measured round-trip time (RFC 6298, without its minimum of a second)
retransmits the oldest, a second time-out all of them.
"""

import math
from collections import deque
from dataclasses import dataclass

from glioslice.wire.layout import varint
from glioslice.wire.packets import MIN_PAYLOAD, LinkError
from glioslice.wire.receiver import MAX_MESSAGE

FIRST_TIMEOUT = 0.5
MIN_TIMEOUT, MAX_BACKOFF = 0.1, 1.0
"""Seconds. Time-outs double up to `MAX_BACKOFF`, so that a line that recovers is used soon."""

MEMORY = 64
"""Frames over which the share of lost ones is averaged, exponentially weighted."""

SEGMENT_OVERHEAD = 18
"""Bytes around a payload: header, CRC-32, delimiters and COBS."""


@dataclass(slots=True)
class Segment:
    """A piece of the stream; `order` numbers transmissions over all segments."""

    start: int
    stop: int
    order: int = 0
    sent_at: float = 0.0
    tries: int = 0


@dataclass
class RoundTrip:
    """Smoothed round-trip time, its variation, the shortest one and the time-out, in seconds."""

    smoothed: float = 0.0
    variation: float = 0.0
    shortest: float = math.inf
    timeout: float = FIRST_TIMEOUT

    def add(self, sample: float) -> None:
        """Update the estimate with a measured round trip (RFC 6298, section 2)."""
        if self.shortest == math.inf:
            self.smoothed, self.variation = sample, sample / 2
        else:
            self.variation += (abs(sample - self.smoothed) - self.variation) / 4
            self.smoothed += (sample - self.smoothed) / 8
        self.shortest = min(self.shortest, sample)
        self.timeout = max(MIN_TIMEOUT, self.smoothed + 4 * self.variation)


class Sender:
    """The unacknowledged part of a stream. Offsets are unbounded integers here.

    `edge` is the first byte that the peer does not accept yet, `unacknowledged` the stream from
    `base` on, `deferred` a message that is not part of it yet.
    """

    def __init__(self, payload: int) -> None:
        self.largest = payload
        self.edge = 0
        self.base = 0
        self.unacknowledged = bytearray()
        self.deferred: bytes | None = None
        self.retransmits = 0
        self.repeated_bytes = 0
        self.lost = 0
        self.arrived = 0
        self.round_trip = RoundTrip()
        self._next = 0
        self._flying: dict[int, Segment] = {}
        self._lost: deque[Segment] = deque()
        self._order = 0
        self._backoff = 1
        self._stalled = False
        self._progress_at = -math.inf
        self._loss = 0.0
        self._resize(payload)

    def limit(self, payload: int) -> None:
        """Send no frame of more than `payload` bytes."""
        self.largest = min(self.largest, payload)
        self._resize(self.largest)

    def send(self, message: bytes) -> None:
        """Append a message of 1 to `MAX_MESSAGE` bytes to the stream, after a deferred one.

        Raises LinkError for another length.
        """
        if not 1 <= len(message) <= MAX_MESSAGE:
            raise wrong_length(message)
        if self.deferred is not None:
            self.release_deferred()
        self.unacknowledged += varint(len(message)) + message

    def send_deferred(self, message: bytes) -> None:
        """Send a message once everything before it is acknowledged, or before the next message.

        Until then `withdraw` returns it. Raises LinkError like `send`.
        """
        if not 1 <= len(message) <= MAX_MESSAGE:
            raise wrong_length(message)
        self.release_deferred()
        self.deferred = message
        if not self.unacknowledged:
            self.release_deferred()

    def withdraw(self) -> bytes | None:
        """Return the deferred message, which is then not sent; None if there is none."""
        deferred, self.deferred = self.deferred, None
        return deferred

    def release_deferred(self) -> bool:
        """Send the deferred message now; return whether there was one."""
        if self.deferred is None:
            return False
        self.unacknowledged += varint(len(self.deferred)) + self.deferred
        self.deferred = None
        return True

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._flying and not self._lost

    def sendable(self, new: bool = True) -> int:
        """Return how many bytes `next_segment` would send; without `new`, lost ones alone.

        New bytes are sent as whole segments, or as the rest of what there is.
        """
        if self._lost:
            return min(self._lost[0].stop - self._lost[0].start, self.payload)
        if not new:
            return 0
        waiting = self.base + len(self.unacknowledged) - self._next
        allowed = self.edge - self._next
        if allowed < min(waiting, self.payload) and self._flying:
            return 0  # the edge will move: a sliver now would cost one more frame
        return max(0, min(waiting, allowed, self.payload))

    def next_segment(self, now: float) -> tuple[int, bytes] | None:
        """Return the offset and bytes of what to send now: lost segments first, then new ones."""
        size = self.sendable()
        if not size:
            return None
        if self._lost:
            segment = self._lost.popleft()
            if segment.stop - segment.start > size:  # frames have become shorter since
                middle = segment.start + size
                self._lost.appendleft(Segment(middle, segment.stop, tries=segment.tries))
                segment = Segment(segment.start, middle, tries=segment.tries)
            self.retransmits += 1
            self.repeated_bytes += size
        else:
            segment = Segment(self._next, self._next + size)
            self._next += size
        segment.order = self._order = self._order + 1
        segment.sent_at = now
        segment.tries += 1
        self._flying[segment.start] = segment
        start = segment.start - self.base
        return segment.start, bytes(self.unacknowledged[start : start + size])

    def acknowledge(
        self, upto: int, runs: list[tuple[int, int]], complete: bool, now: float
    ) -> None:
        """Note that all bytes before `upto` and those of `runs` have arrived.

        With `complete` no others have; otherwise nothing is known of what lies beyond. Impossible
        offsets are ignored.
        """
        if not self.base <= upto <= self._next:
            return
        arrived = [
            segment
            for segment in (*self._flying.values(), *self._lost)
            if segment.stop <= upto
            or any(start <= segment.start and segment.stop <= stop for start, stop in runs)
        ]
        if arrived or upto > self.base:
            self._stalled = False
            self._progress_at = now
        if any(segment.tries == 1 for segment in arrived):
            self._backoff = 1  # a measured round trip: the estimate is right again
        latest = max([0, *(self._remove_arrived(segment, now) for segment in arrived)])
        del self.unacknowledged[: upto - self.base]
        self.base = upto
        if not self.unacknowledged and self.deferred is not None:
            self.release_deferred()
        known = runs[-1][1] if runs else upto
        horizon = math.inf if complete else known
        lost = [s for s in self._flying.values() if s.order < latest and s.stop <= horizon]
        if lost:
            self._mark_lost(lost)

    def time_out(self) -> None:
        """Retransmit the oldest segment, or all of them; call when `next_time` has come.

        After the first time-out the oldest is enough: what its acknowledgement does not name is
        known to be lost. The longer time-out stays until a segment that was sent once has arrived.
        Otherwise a peer that has become slower would cause a retransmission of every segment, and
        no round trip could be measured.
        """
        if self._flying and not self._lost:
            oldest = min(self._flying.values(), key=lambda s: s.order)
            self._mark_lost([*self._flying.values()] if self._stalled else [oldest])
            self._stalled = True
            self._backoff = min(2 * self._backoff, 1 << 16)

    def next_time(self) -> float:
        """Return when the next time-out is due; infinity if nothing is in flight."""
        if not self._flying:
            return math.inf
        timeout = self.round_trip.timeout
        patience = min(timeout * self._backoff, max(timeout, MAX_BACKOFF))
        return max(self._progress_at, *(s.sent_at for s in self._flying.values())) + patience

    def _remove_arrived(self, segment: Segment, now: float) -> int:
        """Remove a segment that has arrived; return its order: segments sent before it are lost.

        Returns 0 if the acknowledgement may be for an earlier transmission of the segment, because
        it came sooner than any round trip. Then nothing is known of other segments.
        """
        if self._flying.get(segment.start) is not segment:
            self._lost.remove(segment)
            return 0
        del self._flying[segment.start]
        self._adapt(lost=0)
        age = now - segment.sent_at
        if segment.tries == 1:
            self.round_trip.add(age)
        elif age < self.round_trip.shortest:
            return 0
        return segment.order

    def _mark_lost(self, segments: list[Segment]) -> None:
        for segment in sorted(segments, key=lambda s: s.start):
            del self._flying[segment.start]
            self._lost.append(segment)
            self._adapt(lost=1)

    def _adapt(self, lost: int) -> None:
        """Count one more frame, lost (1) or not (0), and adapt the size of the next ones."""
        self.lost += lost
        self.arrived += 1 - lost
        self._loss += (lost - self._loss) / MEMORY
        if self._loss > self._too_many and self.payload > MIN_PAYLOAD:
            self._resize(max(self.payload // 2, MIN_PAYLOAD))
        elif self._loss < self._few and self.payload < self.largest:
            self._resize(min(self.payload * 2, self.largest))
        else:
            return
        self._loss = (self._too_many + self._few) / 2

    def _resize(self, payload: int) -> None:
        """Use frames of this size, and work out which share of losses calls for another one.

        Where single bits flip, a frame of half the bytes arrives with the square root of the
        probability. The lower limit is halved, so that the size does not oscillate.
        """
        self.payload = payload
        self._too_many = 1 - ((payload + SEGMENT_OVERHEAD) / (payload + 2 * SEGMENT_OVERHEAD)) ** 2
        self._few = SEGMENT_OVERHEAD / (payload + SEGMENT_OVERHEAD) / 4


def wrong_length(message: bytes) -> LinkError:
    """Return the error for a message of a length that no peer accepts."""
    return LinkError(f"a message has 1 to {MAX_MESSAGE} bytes, not {len(message)}")
