"""A session in a file: what a port read and wrote, and when.

    port = RecordedPort(open_port("/dev/ttyUSB0"), Recording(path))
    port = RecordedPort(open_port("/dev/ttyUSB0"), Recording(path), Redactor())  # without images
    ...                                         # closing the port completes the recording
    for record in records(path): ...            # raises GliosliceError where the file is damaged

A file begins with 5 bytes. Then come records, the last one of the kind END:

    0  4 x u8  "GLWR"
    4  u8      version 1

    0  u8      kind
    1  u48     microseconds since the recording began
    7  u16     n
    9          n bytes
    .  u32     CRC-32 of all bytes of this record before

Numbers are little-endian. The file has a hidden name until it is complete.

A `Redactor` leaves out the images, so that a recording can be attached to a bug report. In every
frame that the host sends, the bytes that belong to the payload of a Slice become zeros. Bytes from
the board are kept if they form a good frame of the board. Anything else might be an echo of an
image, damaged, and only its length is kept.
"""

import logging
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from io import BufferedReader
from pathlib import Path

from glioslice.errors import GliosliceError
from glioslice.files import atomic_path
from glioslice.wire import packets
from glioslice.wire.framing import encode_frame
from glioslice.wire.messages import Slice, VolumeGeometry
from glioslice.wire.packets import DATA_HEADER, Data, Open, PacketError, expand
from glioslice.wire.receiver import StreamError, read_length
from glioslice.wire.sniffer import Splitter
from glioslice.wire.transport import AdjustablePort, Port, PortError

PLACEHOLDER = b"\xff"
"""Replaces each byte that belonged to no good frame: no frame consists of these alone."""

SLICE_HEADER = Slice.LAYOUT.size

logger = logging.getLogger(__name__)

MAGIC = b"GLWR"
VERSION = 1

HEAD = 9
CRC_SIZE = 4
MAX_CONTENT = 0xFFFF
"""Bytes of one record's content."""

MAX_SIZE = 1 << 28
"""Bytes of a file: an hour of a busy line at 115200 baud both ways, or ten raw volumes."""

FLUSH = 1.0
"""Seconds after which recorded bytes are flushed to the disk: a killed host leaves them there."""

MAX_UNPACKED = 4096
"""Bytes of a redacted record before compression, far more than any frame has."""

LOST, BACK = b"\0", b"\1"
"""Content of a LINE record."""


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
            self._ranges.append((self.end + SLICE_HEADER, self._message_end))
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


class Kind(IntEnum):
    """What a record holds."""

    END = 0
    """Nothing: the recording is complete."""
    DOWN = 1
    """Bytes that were read from the port."""
    UP = 2
    """Bytes that were written to it."""
    DOWN_REDACTED = 3
    """The same, as a zlib stream in which possible images are zeros or FFs."""
    UP_REDACTED = 4
    """The same of bytes written."""
    RATE = 5
    """u32, the baud rate of the port from now on."""
    LINE = 6
    """u8: 0 the line was lost, 1 it is back."""
    VOLUME = 7
    """Where the masks of a served run belong, as in a playing board's Start."""


@dataclass(frozen=True)
class Record:
    """One record; `time` in seconds since the recording began."""

    kind: Kind
    time: float
    data: bytes


class Recording:
    """Writes a recording. Any thread may add to it; a full disk ends it early, with a `problem`."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.problem = ""
        self._stack = ExitStack()
        self._file = self._stack.enter_context(atomic_path(path)).open("wb")
        self._size = self._file.write(MAGIC + bytes([VERSION]))
        self._clock, self._began = clock, clock()
        self._flushed = self._began
        self._lock = threading.Lock()
        self._closed = False

    def add(self, kind: Kind, data: bytes = b"") -> None:
        """Add a record; never raises, because the session matters more."""
        with self._lock:
            if self._closed or self.problem:
                return
            now = self._clock()
            with self._disk_errors():
                for place in range(0, max(len(data), 1), MAX_CONTENT):
                    self._write(kind, now, data[place : place + MAX_CONTENT])
                if now - self._flushed >= FLUSH:
                    self._flushed = now
                    self._file.flush()

    def close(self) -> None:
        """Complete the recording, which then appears under its name; twice is harmless."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with self._disk_errors(), self._file:
                self._write(Kind.END, self._clock(), b"")
            with self._disk_errors():  # the part that fitted on a full disk is worth keeping
                self._stack.close()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Keep an error of the disk instead of raising it."""
        try:
            yield
        except OSError as error:
            self.problem = self.problem or error.strerror or str(error)

    def _write(self, kind: Kind, now: float, data: bytes) -> None:
        record = pack_record(kind, now - self._began, data)
        if self._size + len(record) + HEAD + CRC_SIZE > MAX_SIZE and kind is not Kind.END:
            self.problem = f"it has reached {MAX_SIZE:,} bytes"
            return
        self._size += len(record)
        self._file.write(record)


def pack_record(kind: Kind, seconds: float, data: bytes) -> bytes:
    """Return a record as it is in the file."""
    head = bytes([kind]) + round(seconds * 1e6).to_bytes(6, "little")
    record = head + len(data).to_bytes(2, "little") + data
    return record + zlib.crc32(record).to_bytes(CRC_SIZE, "little")


def records(path: Path) -> Iterator[Record]:
    """Yield the records of a file, without its END; redacted ones as the bytes they stand for.

    Raises GliosliceError for a file that is not a recording, or of a newer version, and where it is
    damaged or cut short: the records before that position are good.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise GliosliceError(f"{path}: {error.strerror}") from None
    with file:
        check_head(path, file)
        before = 0
        while True:
            place = file.tell()
            head, rest = file.read(HEAD), b""
            if len(head) == HEAD:
                size = int.from_bytes(head[7:9], "little") + CRC_SIZE
                rest = file.read(size)
            if len(head) < HEAD or len(rest) < size:
                raise GliosliceError(
                    f"{path}: this recording is cut short at byte {place:,}; its host was killed, "
                    "or it was not copied whole"
                )
            data, crc = rest[:-CRC_SIZE], rest[-CRC_SIZE:]
            microseconds = int.from_bytes(head[1:7], "little")
            good = zlib.crc32(head + data) == int.from_bytes(crc, "little")
            if not good or head[0] not in list(Kind) or microseconds < before:
                raise damage_error(path, place)
            before = microseconds
            kind = Kind(head[0])
            if kind is Kind.END:
                if file.read(1) or data:
                    raise damage_error(path, place)
                return
            yield unpack_record(path, place, Record(kind, microseconds / 1e6, data))


def check_head(path: Path, file: BufferedReader) -> None:
    """Raise GliosliceError unless `file` begins like a recording and is not too large."""
    head = file.read(len(MAGIC) + 1)
    if head[:-1] != MAGIC:
        raise GliosliceError(
            f"{path}: this is not a recording; `glioslice stream --record` makes one"
        )
    if head[-1] != VERSION:
        raise GliosliceError(
            f"{path}: a recording of version {head[-1]}, this side reads {VERSION}; install the "
            "newer glioslice"
        )
    if os.fstat(file.fileno()).st_size > MAX_SIZE:
        raise GliosliceError(f"{path}: a recording has at most {MAX_SIZE:,} bytes")


def unpack_record(path: Path, place: int, record: Record) -> Record:
    """Return a record with redacted content unpacked; raises GliosliceError for a wrong length."""
    sizes = {Kind.RATE: 4, Kind.LINE: 1}
    if record.kind in sizes and len(record.data) != sizes[record.kind]:
        raise damage_error(path, place)
    redacted = {Kind.DOWN_REDACTED: Kind.DOWN, Kind.UP_REDACTED: Kind.UP}
    if record.kind not in redacted:
        return record
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(record.data, MAX_UNPACKED)
    except zlib.error:
        raise damage_error(path, place) from None
    if not stream.eof or stream.unused_data:
        raise damage_error(path, place)
    return Record(redacted[record.kind], record.time, data)


def damage_error(path: Path, place: int) -> GliosliceError:
    """Return the error for a record that has changed since it was written."""
    return GliosliceError(f"{path}: this recording is damaged at byte {place:,}; copy it again")


class RecordedPort:
    """Another port, and a recording of it: without images if there is a `redactor`."""

    def __init__(self, port: Port, recording: Recording, redactor: Redactor | None = None) -> None:
        self.name = port.name
        self.port, self._recording, self._redactor = port, recording, redactor
        self._adjustable = port if isinstance(port, AdjustablePort) else None
        self._lost = False

    @property
    def rates(self) -> tuple[int, ...]:
        """The baud rates that the port can change to."""
        return self._adjustable.rates if self._adjustable else ()

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, and record it."""
        try:
            data = self.port.read(timeout)
        except PortError:
            self._note_lost()
            raise
        if not data:
            return data
        if self._redactor is None:
            self._recording.add(Kind.DOWN, data)
        else:
            for piece in self._redactor.down(data):
                self._add_redacted(Kind.DOWN_REDACTED, piece)
        return data

    def write(self, data: bytes) -> None:
        """Write `data`, and record it with the time at which that began."""
        if self._redactor is None:
            self._recording.add(Kind.UP, data)
        else:
            for piece in self._redactor.up(data):
                self._add_redacted(Kind.UP_REDACTED, piece)
        try:
            self.port.write(data)
        except PortError:
            self._note_lost()
            raise

    def set_rate(self, baud: int) -> None:
        """Change the baud rate."""
        if self._adjustable:
            self._adjustable.set_rate(baud)
            self._recording.add(Kind.RATE, baud.to_bytes(4, "little"))

    def reopen(self) -> None:
        """Open the same port again; raises PortError while it is missing, or if it cannot be."""
        if self._adjustable is None:
            raise PortError(f"{self.name}: this port cannot be reopened", "ended")
        self._adjustable.reopen()
        self._lost = False
        self._recording.add(Kind.LINE, BACK)

    def record_volume(self, volume: VolumeGeometry) -> None:
        """Record where the masks of this run belong, which no message of a served run contains."""
        self._recording.add(Kind.VOLUME, volume.to_bytes())

    def close(self) -> None:
        """Release the port and complete the recording; twice is harmless."""
        self.port.close()
        if self._redactor:
            self._add_redacted(Kind.DOWN_REDACTED, self._redactor.rest())
        self._recording.close()
        if self._recording.problem:
            logger.warning(
                "%s: the recording is incomplete: %s", self._recording.path, self._recording.problem
            )

    def _note_lost(self) -> None:
        if not self._lost:
            self._lost = True
            self._recording.add(Kind.LINE, LOST)

    def _add_redacted(self, kind: Kind, data: bytes) -> None:
        for place in range(0, len(data), MAX_UNPACKED):
            self._recording.add(kind, zlib.compress(data[place : place + MAX_UNPACKED]))
