"""The sending half of a link: a stream of messages cut into segments, and what is sent again.

A segment is lost when one that left after it has arrived: a line keeps its order. That covers a
segment lost a second time as well. When nothing is heard of the last ones at all, a time-out that
follows the measured round trip (RFC 6298, without its minimum of a second) sends the oldest again,
a second one all of them.
"""

import math
from collections import deque
from dataclasses import dataclass

from glioslice.wire.layout import varint
from glioslice.wire.packets import MIN_PAYLOAD, LinkError
from glioslice.wire.receiver import MAX_MESSAGE

FIRST_TIMEOUT = 0.5
MIN_TIMEOUT, MAX_BACKOFF = 0.1, 1.0
"""Seconds. Time-outs double up to `MAX_BACKOFF`, so that a line that comes back is used soon."""

MEMORY = 64
"""Frames over about which the share of lost ones is a mean."""

OVERHEAD = 18
"""Bytes on the line around a payload: header, CRC-32, delimiters and COBS."""


@dataclass(slots=True)
class Segment:
    """A piece of the stream; `order` counts departures over all segments."""

    start: int
    stop: int
    order: int = 0
    sent_at: float = 0.0
    tries: int = 0


@dataclass
class RoundTrip:
    """Smoothed round trip, its variation and the shortest one, in seconds."""

    smoothed: float = 0.0
    variation: float = 0.0
    shortest: float = math.inf

    def add(self, sample: float) -> None:
        """Take a measured round trip into account (RFC 6298, section 2)."""
        if self.shortest == math.inf:
            self.smoothed, self.variation = sample, sample / 2
        else:
            self.variation += (abs(sample - self.smoothed) - self.variation) / 4
            self.smoothed += (sample - self.smoothed) / 8
        self.shortest = min(self.shortest, sample)

    @property
    def timeout(self) -> float:
        """Seconds after which a segment without an answer is sent again."""
        if self.shortest == math.inf:
            return FIRST_TIMEOUT
        return max(MIN_TIMEOUT, self.smoothed + 4 * self.variation)


class Sender:
    """Holds what is not yet acknowledged. Offsets are unbounded integers here."""

    def __init__(self, payload: int) -> None:
        self.largest = self.payload = payload
        self.edge = 0
        self.base = 0
        self.retransmits = 0
        self.repeated_bytes = 0
        self.lost = 0
        self.arrived = 0
        self.round_trip = RoundTrip()
        self._stream = bytearray()
        self._deferred: bytes | None = None
        self._next = 0
        self._flying: dict[int, Segment] = {}
        self._lost: deque[Segment] = deque()
        self._order = 0
        self._backoff = 1
        self._progress_at = -math.inf
        self._loss = 0.0

    def limit(self, payload: int) -> None:
        """Send no frame of more than `payload` bytes."""
        self.largest = self.payload = min(self.largest, payload)

    @property
    def queued(self) -> int:
        """Bytes of sent messages that the peer has not yet acknowledged."""
        return len(self._stream)

    def send(self, message: bytes) -> None:
        """Append a message of 1 to `MAX_MESSAGE` bytes to the stream, after a deferred one.

        Raises LinkError for another length.
        """
        check_length(message)
        self.release_deferred()
        self._stream += varint(len(message)) + message

    def send_deferred(self, message: bytes) -> None:
        """Send a message once everything before it is acknowledged, or before the next message.

        Until then `withdraw` returns it. Raises LinkError like `send`.
        """
        check_length(message)
        self.release_deferred()
        self._deferred = message
        if not self._stream:
            self.release_deferred()

    def withdraw(self) -> bytes | None:
        """Return the deferred message, which is then not sent; None if there is none."""
        deferred, self._deferred = self._deferred, None
        return deferred

    def release_deferred(self) -> bool:
        """Send the deferred message now; return whether there was one."""
        deferred = self.withdraw()
        if deferred is None:
            return False
        self._stream += varint(len(deferred)) + deferred
        return True

    def next_segment(self, now: float) -> tuple[int, bytes] | None:
        """Return the offset and bytes of what to send now: lost segments first, then new ones."""
        segment = self._lost.popleft() if self._lost else self._new_segment()
        if segment is None:
            return None
        if segment.tries:
            segment = self._again(segment)
        segment.order = self._order = self._order + 1
        segment.sent_at = now
        segment.tries += 1
        self._flying[segment.start] = segment
        return segment.start, bytes(
            self._stream[segment.start - self.base : segment.stop - self.base]
        )

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return not self._flying and not self._lost

    def ready(self, holding: bool = False) -> bool:
        """Tell whether `next_segment` has something to send; `holding`: new bytes have to wait."""
        return bool(self._lost) or (not holding and self._size_of_new() > 0)

    def acknowledge(
        self, upto: int, runs: list[tuple[int, int]], complete: bool, now: float
    ) -> None:
        """Note that all bytes before `upto` and those of `runs` have arrived.

        With `complete` no others have; otherwise nothing is known of what lies beyond. Offsets
        that cannot be are ignored.
        """
        if not self.base <= upto <= self._next:
            return
        arrived = [s for s in self._segments() if covered(s, upto, runs)]
        if arrived or upto > self.base:
            self._backoff = 1
            self._progress_at = now
        latest = 0
        for segment in arrived:
            latest = max(latest, self._arrived(segment, now))
        del self._stream[: upto - self.base]
        self.base = upto
        if not self._stream:
            self.release_deferred()
        known = runs[-1][1] if runs else upto
        horizon = math.inf if complete else known
        self._note_lost(
            [s for s in self._flying.values() if s.order < latest and s.stop <= horizon]
        )

    def check_time(self, now: float) -> None:
        """Send the oldest segment again if nothing has been heard for too long, then all.

        After the first time-out one suffices: what its answer does not name is known to be lost.
        """
        if self._flying and not self._lost and now >= self.next_time():
            oldest = min(self._flying.values(), key=lambda s: s.order)
            self._note_lost([*self._flying.values()] if self._backoff > 1 else [oldest])
            self._backoff = min(2 * self._backoff, 1 << 16)

    def next_time(self) -> float:
        """Return when `check_time` has to be called; infinity if nothing is in flight."""
        if not self._flying:
            return math.inf
        timeout = self.round_trip.timeout
        patience = min(timeout * self._backoff, max(timeout, MAX_BACKOFF))
        return max(self._progress_at, *(s.sent_at for s in self._flying.values())) + patience

    def _segments(self) -> list[Segment]:
        return [*self._flying.values(), *self._lost]

    def _size_of_new(self) -> int:
        """Return how many new bytes to send now: whole segments, or the rest of what there is."""
        waiting = self.base + len(self._stream) - self._next
        allowed = self.edge - self._next
        if allowed < min(waiting, self.payload) and self._flying:
            return 0  # the edge will move: a sliver now would cost a frame more
        return max(0, min(waiting, allowed, self.payload))

    def _new_segment(self) -> Segment | None:
        size = self._size_of_new()
        if not size:
            return None
        segment = Segment(self._next, self._next + size)
        self._next += size
        return segment

    def _again(self, segment: Segment) -> Segment:
        """Return what to send of a lost segment: frames may have become shorter since."""
        if segment.stop - segment.start > self.payload:
            middle = segment.start + self.payload
            self._lost.appendleft(Segment(middle, segment.stop, tries=segment.tries))
            segment = Segment(segment.start, middle, tries=segment.tries)
        self.retransmits += 1
        self.repeated_bytes += segment.stop - segment.start
        return segment

    def _arrived(self, segment: Segment, now: float) -> int:
        """Forget a segment that has arrived; return its order as proof that later ones left after.

        The answer to an earlier try says nothing of the last one: 0 if it came too soon for that.
        """
        if self._flying.get(segment.start) is not segment:
            self._lost.remove(segment)
            return 0
        del self._flying[segment.start]
        self._adapt(0.0)
        age = now - segment.sent_at
        if segment.tries == 1:
            self.round_trip.add(age)
        elif age < self.round_trip.shortest:
            return 0
        return segment.order

    def _note_lost(self, segments: list[Segment]) -> None:
        for segment in sorted(segments, key=lambda s: s.start):
            del self._flying[segment.start]
            self._lost.append(segment)
            self._adapt(1.0)

    def _adapt(self, lost: float) -> None:
        """Let one more frame, lost (1) or not (0), decide on the size of the next ones."""
        self.lost += lost > 0
        self.arrived += lost == 0
        self._loss += (lost - self._loss) / MEMORY
        if self._loss > too_many(self.payload) and self.payload > MIN_PAYLOAD:
            self.payload = max(self.payload // 2, MIN_PAYLOAD)
        elif self._loss < few(self.payload) and self.payload < self.largest:
            self.payload = min(self.payload * 2, self.largest)
        else:
            return
        self._loss = (too_many(self.payload) + few(self.payload)) / 2


def check_length(message: bytes) -> None:
    """Raise LinkError for a message of a length that no peer takes."""
    if not 1 <= len(message) <= MAX_MESSAGE:
        raise LinkError(f"a message has 1 to {MAX_MESSAGE} bytes, not {len(message)}")


def too_many(payload: int) -> float:
    """Return the share of frames lost above which frames of half the size carry more.

    A line that flips bits spares a frame of half the bytes with the root of the chance.
    """
    return 1 - ((payload + OVERHEAD) / (payload + 2 * OVERHEAD)) ** 2


def few(payload: int) -> float:
    """Return the share of frames lost below which frames of twice the size carry more.

    Halved, so that a size is not left and taken again all the time.
    """
    return OVERHEAD / (payload + OVERHEAD) / 4


def covered(segment: Segment, upto: int, runs: list[tuple[int, int]]) -> bool:
    """Tell whether all bytes of `segment` have arrived."""
    if segment.stop <= upto:
        return True
    return any(start <= segment.start and segment.stop <= stop for start, stop in runs)
