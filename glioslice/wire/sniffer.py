"""What a third party sees of a serial link: frame by frame, and the messages that they complete.

    sniffer = Sniffer()
    for record in records(path):
        for frame in sniffer.feed(record.kind is Kind.UP, record.data, record.time): ...

Nothing here sends: a sniffer reads a recording, or listens on a line that others use.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from glioslice.wire import packets
from glioslice.wire.framing import DELIMITER, FrameReader
from glioslice.wire.packets import Data, Open, Packet, PacketError, expand
from glioslice.wire.receiver import Receiver, StreamError


@dataclass(frozen=True)
class Piece:
    """A frame's body, or None and the last of some skipped bytes; `size` in bytes on the line."""

    body: bytes | None
    size: int
    began: float
    text: bytes = b""


class Splitter:
    """One direction of a line, cut at its delimiters; nothing between two is ignored."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._size = 0
        self._began = 0.0

    @property
    def unfinished(self) -> int:
        """Bytes that no delimiter has ended yet."""
        return self._reader.buffered

    def feed(self, data: bytes, time: float) -> Iterator[Piece]:
        """Yield what `data`, which came at `time`, completes."""
        reader = self._reader
        *ended, rest = data.split(DELIMITER)
        for part in (*(part + DELIMITER for part in ended), rest):
            if not self._size:
                self._began = time
            self._size += len(part)
            before = reader.counts.skipped
            for body in reader.feed(part):
                yield self._piece(body)
            if skipped := reader.counts.skipped - before:
                yield self._piece(None, reader.sample[-skipped:])

    def _piece(self, body: bytes | None, text: bytes = b"") -> Piece:
        size, self._size = self._size, 0
        return Piece(body, size, self._began, text)


@dataclass(frozen=True)
class SniffedFrame:
    """A frame, or skipped bytes; times in seconds, `began` that of its first byte.

    `up` is from host to board. `repeated` are bytes of the stream that had crossed before, `late`
    means that bytes which left later have crossed already. `packet` is None for bytes that are not
    a packet, `echo` marks one that came back to its sender; `text` are the last skipped bytes.
    """

    up: bool
    began: float
    time: float
    size: int
    packet: Packet | None = None
    text: bytes = b""
    session: int = 0
    repeated: int = 0
    late: bool = False
    echo: bool = False
    messages: tuple[bytes, ...] = ()


class SniffedStream:
    """One direction of a session, as far as it has crossed."""

    def __init__(self) -> None:
        self._receiver = Receiver(packets.MAX_WINDOW)
        self._highest = 0
        self._broken = False

    def add(self, packet: Data) -> tuple[int, bool, tuple[bytes, ...]]:
        """Return how many bytes were known, whether they are late, and the completed messages."""
        receiver = self._receiver
        start = expand(packet.offset, receiver.expected)
        stop = start + len(packet.payload)
        known, duplicates = max(0, receiver.expected - start), receiver.duplicates
        late, self._highest = start < self._highest, max(self._highest, stop)
        if self._broken:
            return 0, False, ()
        try:
            receiver.add(start, packet.payload)
        except StreamError:
            self._broken = True
            return 0, False, ()
        if receiver.duplicates > duplicates:
            known = len(packet.payload)
        messages = []
        while (message := receiver.next_message()) is not None:
            messages.append(message)
        return known, late and not known, tuple(messages)


@dataclass
class Totals:
    """What crossed in one direction: `payload` are bytes of the stream that crossed first."""

    frames: int = 0
    bytes: int = 0
    payload: int = 0
    repeated: int = 0
    skipped: int = 0

    def add(self, frame: SniffedFrame) -> None:
        """Count a frame; an echo counts as skipped."""
        self.bytes += frame.size
        if frame.packet is None or frame.echo:
            self.skipped += frame.size
            return
        self.frames += 1
        if isinstance(frame.packet, Data):
            self.repeated += frame.repeated
            self.payload += len(frame.packet.payload) - frame.repeated


@dataclass
class Sniffer:
    """Follows the sessions on a line; `session` counts those in which both ends sent something."""

    session: int = 0
    _ends: dict[bool, int] = field(default_factory=dict)
    _streams: dict[bool, SniffedStream] = field(default_factory=dict)
    _splitters: dict[bool | None, Splitter] = field(default_factory=dict)

    def feed(self, up: bool | None, data: bytes, time: float) -> Iterator[SniffedFrame]:
        """Yield what `data` completes; `up` is None on a line that carries both directions.

        A frame whose direction is known but which the other end sent is an echo.
        """
        for piece in self._splitters.setdefault(up, Splitter()).feed(data, time):
            try:
                packet, active = packets.from_bytes(piece.body or b"")
            except PacketError:
                text = piece.text or (piece.body or b"")
                yield SniffedFrame(bool(up), piece.began, time, piece.size, text=text)
                continue
            if up is not None and active is not up:
                yield SniffedFrame(up, piece.began, time, piece.size, packet, echo=True)
            else:
                yield self._follow(active, piece, time, packet)

    @property
    def unfinished(self) -> int:
        """Bytes that no delimiter has ended yet."""
        return sum(splitter.unfinished for splitter in self._splitters.values())

    def _follow(self, up: bool, piece: Piece, time: float, packet: Packet) -> SniffedFrame:
        """Follow the session with a packet, and return its frame."""
        repeated, late = 0, False
        messages: tuple[bytes, ...] = ()
        if isinstance(packet, Open):
            if packet.session != self._ends.get(up):
                self._ends[up] = packet.session
                self._streams = {}
        elif len(self._ends) == 2 and packet.tag == (self._ends[True] ^ self._ends[False]) & 0xFFFF:
            if not self._streams:
                self.session += 1
                self._streams = {True: SniffedStream(), False: SniffedStream()}
            if isinstance(packet, Data):
                repeated, late, messages = self._streams[up].add(packet)
        return SniffedFrame(
            up,
            piece.began,
            time,
            piece.size,
            packet,
            session=self.session,
            repeated=repeated,
            late=late,
            messages=messages,
        )
