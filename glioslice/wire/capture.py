"""A session in a file: what a port read and wrote, and when.

    keep = Recording(path)                      # hidden until it is closed
    keep.add(Kind.UP, frame)
    keep.close()                                # whole under its name, however the session ended
    for record in records(path): ...            # raises GliosliceError where the file is damaged

A file begins with 5 bytes, then come records until one of the kind END:

    0  4 x u8  "GLWR"
    4  u8      version 1

    0  u8      kind
    1  u48     microseconds since the recording began
    7  u16     n
    9          n bytes
    .  u32     CRC-32 of all bytes of this record before

Numbers are little-endian.

A port that keeps what it reads and writes in a recording.

    port = RecordedPort(open_port("/dev/ttyUSB0"), Recording(path))
    port = RecordedPort(open_port("/dev/ttyUSB0"), Recording(path), Blinder())  # without images

Closing the port closes the recording.
"""

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
from glioslice.files import whole
from glioslice.wire.messages import Volume
from glioslice.wire.redaction import Blinder
from glioslice.wire.transport import AdjustablePort, Port, PortError

MAGIC = b"GLWR"
VERSION = 1

HEAD = 9
CRC_SIZE = 4
MOST = 0xFFFF
"""Bytes of one record."""

MAX_SIZE = 1 << 28
"""Bytes of a file: an hour of a full line at 115200 baud both ways, or ten raw volumes."""

FLUSH = 1.0
"""Seconds after which what was recorded is handed to the disk: a host that is killed leaves it."""

UNPACKED = 4096
"""Bytes of a frame whose images were left out, far more than any has."""


class Kind(IntEnum):
    """What a record holds."""

    END = 0
    """Nothing: the recording is whole."""
    DOWN = 1
    """Bytes that were read from the port."""
    UP = 2
    """Bytes that were written to it."""
    DOWN_BLANK = 3
    """The same, as a zlib stream: what may have been of an image is zeros or FFs."""
    UP_BLANK = 4
    """The same of bytes written."""
    RATE = 5
    """u32, the baud rate that the port has from now on."""
    LINE = 6
    """u8: 0 the line was lost, 1 it is back."""
    VOLUME = 7
    """Where the masks of a served run belong, as a playing board's Start says it."""


@dataclass(frozen=True)
class Record:
    """One of a recording; `time` in seconds since it began."""

    kind: Kind
    time: float
    data: bytes


class Recording:
    """Writes a recording. Any thread may add to it; a disk that takes no more ends it early."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self.trouble = ""
        self._stack = ExitStack()
        self._file = self._stack.enter_context(whole(path)).open("wb")
        self._size = self._file.write(MAGIC + bytes([VERSION]))
        self._clock, self._began = clock, clock()
        self._flushed = self._began
        self._lock = threading.Lock()
        self._closed = False

    def add(self, kind: Kind, data: bytes = b"") -> None:
        """Add what happened now; never raises, for the session matters more."""
        with self._lock:
            if self._closed or self.trouble:
                return
            now = self._clock()
            with self._troubled():
                for place in range(0, max(len(data), 1), MOST):
                    self._write(kind, now, data[place : place + MOST])
                if now - self._flushed >= FLUSH:
                    self._flushed = now
                    self._file.flush()

    def close(self) -> None:
        """End the recording and let it appear under its name; twice does no harm."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with self._troubled(), self._file:
                self._write(Kind.END, self._clock(), b"")
            with self._troubled():  # what a full disk took of it is worth keeping
                self._stack.close()

    @contextmanager
    def _troubled(self) -> Iterator[None]:
        """Keep what the disk said; the session matters more."""
        try:
            yield
        except OSError as error:
            self.trouble = self.trouble or error.strerror or str(error)

    def _write(self, kind: Kind, now: float, data: bytes) -> None:
        record = packed(kind, now - self._began, data)
        if self._size + len(record) + HEAD + CRC_SIZE > MAX_SIZE and kind is not Kind.END:
            self.trouble = f"it has reached {MAX_SIZE:,} bytes"
            return
        self._size += len(record)
        self._file.write(record)


def packed(kind: Kind, seconds: float, data: bytes) -> bytes:
    """Return a record as it stands in the file."""
    head = bytes([kind]) + round(seconds * 1e6).to_bytes(6, "little")
    record = head + len(data).to_bytes(2, "little") + data
    return record + zlib.crc32(record).to_bytes(CRC_SIZE, "little")


def records(path: Path) -> Iterator[Record]:
    """Yield the records of a file, without its END; blanks are yielded as the bytes they stand for.

    Raises GliosliceError for a file that is no recording, or of a newer version, and where it is
    damaged or cut short: the records before that place are good.
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
                raise damaged(path, place)
            before = microseconds
            kind = Kind(head[0])
            if kind is Kind.END:
                if file.read(1) or data:
                    raise damaged(path, place)
                return
            yield unpacked(path, place, Record(kind, microseconds / 1e6, data))


def check_head(path: Path, file: BufferedReader) -> None:
    """Raise GliosliceError unless `file` begins as a recording and is of a size that one has."""
    head = file.read(len(MAGIC) + 1)
    if head[:-1] != MAGIC:
        raise GliosliceError(f"{path}: this is no recording; stream.py --record makes one")
    if head[-1] != VERSION:
        raise GliosliceError(
            f"{path}: a recording of version {head[-1]}, this side reads {VERSION}; install the "
            "newer glioslice"
        )
    if os.fstat(file.fileno()).st_size > MAX_SIZE:
        raise GliosliceError(f"{path}: a recording has at most {MAX_SIZE:,} bytes")


def unpacked(path: Path, place: int, record: Record) -> Record:
    """Return a record with what it stands for: blanks as bytes. Lengths are checked."""
    sizes = {Kind.RATE: 4, Kind.LINE: 1}
    if record.kind in sizes and len(record.data) != sizes[record.kind]:
        raise damaged(path, place)
    blanks = {Kind.DOWN_BLANK: Kind.DOWN, Kind.UP_BLANK: Kind.UP}
    if record.kind not in blanks:
        return record
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(record.data, UNPACKED)
    except zlib.error:
        raise damaged(path, place) from None
    if not stream.eof or stream.unused_data:
        raise damaged(path, place)
    return Record(blanks[record.kind], record.time, data)


def damaged(path: Path, place: int) -> GliosliceError:
    """Return the error for a record that is not as it was written."""
    return GliosliceError(f"{path}: this recording is damaged at byte {place:,}; copy it again")


LOST, BACK = b"\0", b"\1"


class RecordedPort:
    """Another port, and a recording of it: without images if there is a `blinder`.

    `say` takes a line for people if the recording had to end before the session.
    """

    def __init__(
        self,
        port: Port,
        recording: Recording,
        blinder: Blinder | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.name = port.name
        self.port, self._recording, self._blinder, self._say = port, recording, blinder, say
        self._adjustable = port if isinstance(port, AdjustablePort) else None
        self._lost = False

    @property
    def rates(self) -> tuple[int, ...]:
        """The baud rates that the port can take."""
        return self._adjustable.rates if self._adjustable else ()

    def read(self, timeout: float) -> bytes:
        """Return what has arrived, and keep it."""
        try:
            data = self.port.read(timeout)
        except PortError:
            self._note_lost()
            raise
        if not data:
            return data
        if self._blinder is None:
            self._recording.add(Kind.DOWN, data)
        else:
            for piece in self._blinder.down(data):
                self._add_blank(Kind.DOWN_BLANK, piece)
        return data

    def write(self, data: bytes) -> None:
        """Hand `data` to the line, and keep it, with the time at which that began."""
        if self._blinder is None:
            self._recording.add(Kind.UP, data)
        else:
            for piece in self._blinder.up(data):
                self._add_blank(Kind.UP_BLANK, piece)
        try:
            self.port.write(data)
        except PortError:
            self._note_lost()
            raise

    def set_rate(self, baud: int) -> None:
        """Use another rate from now on."""
        if self._adjustable:
            self._adjustable.set_rate(baud)
            self._recording.add(Kind.RATE, baud.to_bytes(4, "little"))

    def reopen(self) -> None:
        """Open the same line again; raises PortError while it is not there, or cannot be."""
        if self._adjustable is None:
            raise PortError(f"{self.name}: this port cannot be opened again", "ended")
        self._adjustable.reopen()
        self._lost = False
        self._recording.add(Kind.LINE, BACK)

    def note(self, volume: Volume) -> None:
        """Keep where the masks of this run belong, which a served run does not say."""
        self._recording.add(Kind.VOLUME, volume.to_bytes())

    def close(self) -> None:
        """Give the port back and end the recording; twice does no harm."""
        self.port.close()
        if self._blinder:
            self._add_blank(Kind.DOWN_BLANK, self._blinder.rest())
        self._recording.close()
        if self._recording.trouble:
            self._say(f"{self._recording.path}: not all was recorded: {self._recording.trouble}")

    def _note_lost(self) -> None:
        if not self._lost:
            self._lost = True
            self._recording.add(Kind.LINE, LOST)

    def _add_blank(self, kind: Kind, data: bytes) -> None:
        for place in range(0, len(data), UNPACKED):
            self._recording.add(kind, zlib.compress(data[place : place + UNPACKED]))
