"""A session without its images: what may be attached to a bug report.

In every frame that the host sends, the bytes that belong to the payload of a Slice become zeros.
Bytes from the board are kept if they form a good frame of the board. Anything else might be an
echo of an image, damaged, and only its length is kept.
"""

from collections.abc import Iterator

from glioslice.wire import packets
from glioslice.wire.framing import encode_frame
from glioslice.wire.messages import Slice
from glioslice.wire.packets import DATA_HEADER, Data, Open, PacketError, expand
from glioslice.wire.receiver import StreamError, read_length
from glioslice.wire.sniffer import Splitter

PLACEHOLDER = b"\xff"
"""Replaces each byte that belonged to no good frame: no frame consists of these alone."""

HEADER = Slice.LAYOUT.size


class ImageMap:
    """Where the payloads of slices lie in the host's stream, as far as it has been written."""

    def __init__(self) -> None:
        self.end = 0
        self._ranges: list[tuple[int, int]] = []
        self._head = bytearray()
        self._message_end = 0
        self._lost = False

    def add(self, data: bytes) -> None:
        """Add the next bytes of the stream."""
        place = 0
        while place < len(data):
            if self.end < self._message_end:
                step = min(self._message_end - self.end, len(data) - place)
                if self.end + step == self._message_end:
                    self._head.clear()
            else:
                step = 1
                self._add_to_head(data[place])
            place += step
            self.end += step

    def _add_to_head(self, byte: int) -> None:
        """Add a byte of a message's length or, after it, its type."""
        if self._lost:
            return
        self._head.append(byte)
        try:
            found = read_length(self._head)
        except StreamError:  # not a message of ours: nothing can be distinguished from here on
            self._lost = True
            self._ranges.append((self.end, 1 << 62))
            return
        if found is None or len(self._head) == found[1]:
            return
        self._message_end = self.end + found[0]
        if byte == Slice.TYPE:
            self._ranges.append((self.end + HEADER, self._message_end))
        if found[0] == 1:
            self._head.clear()

    def redact(self, start: int, data: bytes) -> bytes:
        """Return `data`, which lies at `start` of the stream, without images."""
        redacted = bytearray(data)
        if start + len(data) > self.end:
            return bytes(len(data))  # what came before it is unknown: it may be anything
        for low, high in reversed(self._ranges):
            if high <= start:
                break
            low, high = max(low - start, 0), min(high - start, len(data))
            if low < high:
                redacted[low:high] = bytes(high - low)
        return bytes(redacted)


class Redactor:
    """Both directions of a serial link, seen at the host, without images."""

    def __init__(self) -> None:
        self._up, self._down = Splitter(), Splitter()
        self._maps: dict[int, ImageMap] = {}

    def up(self, data: bytes) -> Iterator[bytes]:
        """Yield what may be kept of bytes that the host writes, a frame at a time."""
        for piece in self._up.feed(data, 0.0):
            if piece.body is None:
                yield PLACEHOLDER * (piece.size - 1) + b"\0"
            else:
                yield encode_frame(self._redact_body(piece.body))

    def down(self, data: bytes) -> Iterator[bytes]:
        """Yield what may be kept of bytes that the host reads."""
        for piece in self._down.feed(data, 0.0):
            try:
                _, active = packets.from_bytes(piece.body or b"")
            except PacketError:
                active = True
            if active or piece.body is None:
                yield PLACEHOLDER * (piece.size - 1) + b"\0"
            else:
                yield encode_frame(piece.body)

    def rest(self) -> bytes:
        """Return the placeholders for bytes read of a frame that never ended."""
        return PLACEHOLDER * self._down.unfinished

    def _redact_body(self, body: bytes) -> bytes:
        try:
            packet, _ = packets.from_bytes(body)
        except PacketError:
            return bytes(len(body))
        if isinstance(packet, Open):
            if not packet.peer:  # a session begins; one that continues names its peer
                self._maps.clear()
            return body
        if not isinstance(packet, Data):
            return body
        known = self._maps.setdefault(packet.tag, ImageMap())
        start = expand(packet.offset, known.end)
        if start == known.end:
            known.add(packet.payload)
        return body[:DATA_HEADER] + known.redact(start, packet.payload)
