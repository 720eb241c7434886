"""The receiving half of a link: pieces of a stream, in any order, to messages in order.

A message lies in the stream as its length (7 bits a byte, low bits first, the top bit set on all
but the last byte; 1 to 3 bytes) and then its bytes.
"""

from collections import deque

from glioslice.errors import GliosliceError
from glioslice.wire.packets import MAX_PAIRS

MAX_MESSAGE = 262_144
"""Bytes; a raw slice of four modalities has 122,884."""

HOLD = 131_072
"""Bytes of whole messages that may wait to be taken before the peer is told to pause."""


class StreamError(GliosliceError):
    """The peer's stream holds no message that this end would take."""


def read_length(stream: bytearray) -> tuple[int, int] | None:
    """Return the length at the head of `stream` and the bytes it takes; None if it is not whole.

    Raises StreamError if no message is that long: nobody waits for what noise or a stranger asks.
    """
    length = 0
    for position in range(min(3, len(stream))):
        length |= (stream[position] & 0x7F) << 7 * position
        if not stream[position] & 0x80:
            if not 0 < length <= MAX_MESSAGE:
                break
            return length, position + 1
    else:
        if len(stream) < 3:
            return None
    raise StreamError(
        f"the peer announces a message of {length} bytes; 1 to {MAX_MESSAGE} are taken; "
        "both ends need the same version of glioslice"
    )


class Receiver:
    """Puts pieces in order and cuts messages out. Offsets are unbounded integers here.

    It holds at most `window` bytes beyond those in order, one unfinished message, and whole
    messages up to `HOLD` bytes plus what was already allowed to come.
    """

    def __init__(self, window: int) -> None:
        self.expected = 0
        self.edge = window
        self.duplicates = 0
        self._window = window
        self._ahead = bytearray()
        self._runs: list[tuple[int, int]] = []
        self._stream = bytearray()
        self._messages: deque[bytes] = deque()
        self._held = 0

    @property
    def buffered(self) -> int:
        """Bytes held at this moment, in whatever state."""
        return len(self._ahead) + len(self._stream) + self._held

    @property
    def gap(self) -> bool:
        """Whether bytes are missing before some that have arrived."""
        return bool(self._runs)

    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Return what is missing and what arrived beyond it, as ACK lists them."""
        listed, at = [], self.expected
        for start, stop in self._runs[:MAX_PAIRS]:
            listed.append((start - at, stop - start))
            at = stop
        return tuple(listed)

    def add(self, offset: int, payload: bytes) -> bool:
        """Take a piece; return whether the peer should hear of it at once.

        That is so for a new gap, for one that has been filled, and for bytes that were known
        already, whose acknowledgement must have been lost. What lies beyond the edge is dropped.
        """
        stop = offset + len(payload)
        if stop <= self.expected:
            self.duplicates += 1
            return True
        if stop > self.edge:
            return False
        if offset < self.expected:
            payload, offset = payload[self.expected - offset :], self.expected
        if offset == self.expected and not self._runs:
            self._advance(payload)
            return False
        before = len(self._runs)
        self._place(offset, payload)
        if self._runs[0][0] == self.expected:
            self._advance_run()
            return True
        return len(self._runs) != before

    def next_message(self) -> bytes | None:
        """Return the next message, None if none is whole."""
        if not self._messages:
            return None
        message = self._messages.popleft()
        self._held -= len(message)
        self._allow()
        return message

    def _place(self, offset: int, payload: bytes) -> None:
        """Keep bytes that are ahead of those in order, and merge them into the runs."""
        start, stop = offset - self.expected, offset - self.expected + len(payload)
        if len(self._ahead) < stop:
            self._ahead.extend(bytes(stop - len(self._ahead)))
        self._ahead[start:stop] = payload
        low, high = offset, offset + len(payload)
        apart = []
        for run in self._runs:
            if run[1] < low or run[0] > high:
                apart.append(run)
            else:
                low, high = min(low, run[0]), max(high, run[1])
        if (low, high) in self._runs:
            self.duplicates += 1
        self._runs = sorted([*apart, (low, high)])

    def _advance_run(self) -> None:
        """Move the first run, which now begins where bytes are expected, into the stream."""
        size = self._runs.pop(0)[1] - self.expected
        self._advance(bytes(self._ahead[:size]))
        del self._ahead[:size]

    def _advance(self, data: bytes) -> None:
        self.expected += len(data)
        self._stream += data
        while (head := read_length(self._stream)) is not None:
            length, skip = head
            if len(self._stream) < skip + length:
                break
            self._messages.append(bytes(self._stream[skip : skip + length]))
            self._held += length
            del self._stream[: skip + length]
        self._allow()

    def _allow(self) -> None:
        """Let the peer send on, unless too much waits to be taken; an edge never moves back."""
        if self._held < HOLD:
            self.edge = max(self.edge, self.expected + self._window)
