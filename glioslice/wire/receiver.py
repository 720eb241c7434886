"""The receiving half of a link: pieces of a stream, in any order, to messages in order.

A message lies in the stream as its length (7 bits per byte, low bits first, the top bit set on all
but the last byte; 1 to 3 bytes) and then its bytes.
"""

from collections import deque

from glioslice.errors import GliosliceError
from glioslice.wire.layout import read_varint
from glioslice.wire.packets import MAX_PAIRS

MAX_MESSAGE = 262_144
"""Bytes; a raw slice of four modalities has 122,884."""

LENGTH_BYTES = 3

HOLD = 131_072
"""Bytes of whole messages that may wait for the reader before the peer has to pause."""


class StreamError(GliosliceError):
    """The peer's stream holds a message that this end does not accept."""


def read_length(stream: bytearray) -> tuple[int, int] | None:
    """Return the length at the head of `stream` and the bytes it takes; None if it is incomplete.

    Raises StreamError if no message is that long, so that nobody waits for what noise announces.
    """
    found = read_varint(stream, 0, LENGTH_BYTES)
    if found is None and len(stream) < LENGTH_BYTES:
        return None
    if found is None or not 0 < found[0] <= MAX_MESSAGE:
        length = f"{found[0]} bytes" if found else f"a length of over {LENGTH_BYTES} bytes"
        raise StreamError(
            f"the peer announces a message of {length}; 1 to {MAX_MESSAGE} bytes are accepted; "
            "both ends need the same version of glioslice"
        )
    return found


class Receiver:
    """Puts pieces in order and cuts messages out. Offsets are unbounded integers here.

    It holds at most `window` bytes beyond those in order, one unfinished message, and whole
    messages up to `HOLD` bytes plus what the peer was already allowed to send. `runs` are the
    stretches that have arrived beyond a gap.
    """

    def __init__(self, window: int) -> None:
        self.expected = 0
        self.edge = window
        self.duplicates = 0
        self.runs: list[tuple[int, int]] = []
        self._window = window
        self._ahead = bytearray()
        self._stream = bytearray()
        self._messages: deque[bytes] = deque()
        self._held = 0

    @property
    def buffered(self) -> int:
        """Bytes held, in whatever state."""
        return len(self._ahead) + len(self._stream) + self._held

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Return what is missing and what arrived beyond it, as ACK lists them."""
        listed, at = [], self.expected
        for start, stop in self.runs[:MAX_PAIRS]:
            listed.append((start - at, stop - start))
            at = stop
        return tuple(listed)

    def add(self, offset: int, payload: bytes) -> bool:
        """Add a piece; return whether it calls for an acknowledgement at once.

        It does for a new gap, for a filled gap, and for known bytes, whose acknowledgement must
        have been lost. Bytes beyond the edge are dropped.
        """
        stop = offset + len(payload)
        if stop <= self.expected:
            self.duplicates += 1
            return True
        if stop > self.edge:
            return False
        if offset < self.expected:
            payload, offset = payload[self.expected - offset :], self.expected
        if offset == self.expected and not self.runs:
            self._append(payload)
            return False
        before = len(self.runs)
        self._place(offset, payload)
        if self.runs[0][0] > self.expected:
            return len(self.runs) != before
        size = self.runs.pop(0)[1] - self.expected
        filled = bytes(self._ahead[:size])
        del self._ahead[:size]
        self._append(filled)
        return True

    def next_message(self) -> bytes | None:
        """Return the next message, None if none is complete."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._held -= len(message)
        if self._held < HOLD:
            self.edge = max(self.edge, self.expected + self._window)
        return message

    def _place(self, offset: int, payload: bytes) -> None:
        """Keep bytes that are ahead of those in order, and merge them into the runs."""
        start, stop = offset - self.expected, offset - self.expected + len(payload)
        if len(self._ahead) < stop:
            self._ahead.extend(bytes(stop - len(self._ahead)))
        self._ahead[start:stop] = payload
        low, high = offset, offset + len(payload)
        apart = []
        for run in self.runs:
            if run[1] < low or run[0] > high:
                apart.append(run)
            else:
                low, high = min(low, run[0]), max(high, run[1])
        if (low, high) in self.runs:
            self.duplicates += 1
        self.runs = sorted([*apart, (low, high)])

    def _append(self, data: bytes) -> None:
        """Append bytes to the stream and cut out the messages that they complete.

        The edge moves on unless too much waits for the reader; it never moves back.
        """
        self.expected += len(data)
        self._stream += data
        while (head := read_length(self._stream)) is not None:
            length, start = head
            if len(self._stream) < start + length:
                break
            self._messages.append(bytes(self._stream[start : start + length]))
            self._held += length
            del self._stream[: start + length]
        if self._held < HOLD:
            self.edge = max(self.edge, self.expected + self._window)
