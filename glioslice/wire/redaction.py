"""A session without its images: what may go with a bug report.

Of every frame that the host sends, the bytes that belong to the payload of a Slice become zeros.
What came from the board stays if it is a good frame of the board; anything else might be an echo
of an image, damaged, and only its length is kept.
"""

from collections.abc import Iterator

from glioslice.wire import packets
from glioslice.wire.framing import encode
from glioslice.wire.messages import Slice
from glioslice.wire.packets import DATA_HEADER, Data, Open, PacketError, expand
from glioslice.wire.receiver import StreamError, read_length
from glioslice.wire.sniffer import Splitter

UNKNOWN = b"\xff"
"""Stands for each byte that belonged to no good frame: no frame holds only these."""

HEADER = Slice.LAYOUT.size


class ImageMap:
    """Where in the host's stream the payloads of slices lie, as far as it has been written."""

    def __init__(self) -> None:
        self.end = 0
        self._ranges: list[tuple[int, int]] = []
        self._head = bytearray()
        self._message_end = 0
        self._lost = False

    def add(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        place = 0
        while place < len(data):
            if self.end < self._message_end:
                step = min(self._message_end - self.end, len(data) - place)
                if self.end + step == self._message_end:
                    self._head.clear()
            else:
                step = 1
                self._begin(data[place])
            place += step
            self.end += step

    def _begin(self, byte: int) -> None:
        """Take a byte of a message's length or, behind it, its type."""
        if self._lost:
            return
        self._head.append(byte)
        try:
            found = read_length(self._head)
        except StreamError:  # no message of ours: nothing can be told apart from here on
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

    def blank(self, start: int, data: bytes) -> bytes:
        """Return `data`, which lies at `start` of the stream, without images."""
        blanked = bytearray(data)
        if start + len(data) > self.end:
            return bytes(len(data))  # never seen before it: it may be anything
        for low, high in reversed(self._ranges):
            if high <= start:
                break
            low, high = max(low - start, 0), min(high - start, len(data))
            if low < high:
                blanked[low:high] = bytes(high - low)
        return bytes(blanked)


class Blinder:
    """Both directions of a line, told at the host, without images."""

    def __init__(self) -> None:
        self._up, self._down = Splitter(), Splitter()
        self._maps: dict[int, ImageMap] = {}

    def up(self, data: bytes) -> Iterator[bytes]:
        """Yield what may be kept of bytes that the host writes, a frame at a time."""
        for piece in self._up.feed(data, 0.0):
            if piece.body is None:
                yield UNKNOWN * (piece.size - 1) + b"\0"
            else:
                yield encode(self._blanked(piece.body))

    def down(self, data: bytes) -> Iterator[bytes]:
        """Yield what may be kept of bytes that the host reads."""
        for piece in self._down.feed(data, 0.0):
            try:
                _, active = packets.from_bytes(piece.body or b"")
            except PacketError:
                active = True
            if active or piece.body is None:
                yield UNKNOWN * (piece.size - 1) + b"\0"
            else:
                yield encode(piece.body)

    def rest(self) -> bytes:
        """Return what stands for bytes read of a frame that never ended."""
        return UNKNOWN * self._down.unfinished

    def _blanked(self, body: bytes) -> bytes:
        try:
            packet, _ = packets.from_bytes(body)
        except PacketError:
            return bytes(len(body))
        if isinstance(packet, Open):
            if not packet.peer:  # a session begins; one that goes on names its peer
                self._maps.clear()
            return body
        if not isinstance(packet, Data):
            return body
        known = self._maps.setdefault(packet.tag, ImageMap())
        start = expand(packet.offset, known.end)
        if start == known.end:
            known.add(packet.payload)
        return body[:DATA_HEADER] + known.blank(start, packet.payload)
