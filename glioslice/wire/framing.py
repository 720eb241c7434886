"""Bytes to frames: COBS between delimiters, a bounded length, CRC-32. Garbage is never an error.

    00 | COBS( body, 1 to 1088 bytes | CRC-32 of the body, u32 little-endian ) | 00

COBS leaves no zero byte inside, so a zero always ends whatever came before. With a delimiter before
and after, a frame that arrives whole between its two zeros is accepted after any noise. The CRC is
that of zlib and Ethernet (polynomial 0x04C11DB7, reflected).
"""

import zlib
from dataclasses import dataclass

from cobs import cobs

DELIMITER = b"\0"
CRC_SIZE = 4
MAX_BODY = 1088
"""Bytes of body: the largest payload of the link, 1024, and room for its header."""

MAX_ENCODED = MAX_BODY + CRC_SIZE + -(-(MAX_BODY + CRC_SIZE) // 254)
"""COBS adds a byte for every 254 that begin."""

OVERHEAD = CRC_SIZE + 3
"""Bytes on the line around a body of up to 250 bytes; one more for every further 254."""

SAMPLE = 256


@dataclass
class FrameCounts:
    """What a reader has seen so far. `skipped` bytes belonged to no good frame."""

    frames: int = 0
    bytes: int = 0
    skipped: int = 0
    malformed: int = 0
    bad_crc: int = 0
    too_long: int = 0

    @property
    def bad(self) -> int:
        """Frames that were none, for whatever reason."""
        return self.malformed + self.bad_crc + self.too_long


def encode(body: bytes) -> bytes:
    """Return `body` as one frame with both delimiters; ValueError if it is empty or too long."""
    if not 1 <= len(body) <= MAX_BODY:
        raise ValueError(f"a frame's body is 1 to {MAX_BODY} bytes, not {len(body)}")
    crc = zlib.crc32(body).to_bytes(CRC_SIZE, "little")
    return DELIMITER + bytes(cobs.encode(body + crc)) + DELIMITER


class FrameReader:
    """Takes bytes as they come and returns the bodies of the frames they complete.

    It keeps at most `MAX_ENCODED` bytes of an unfinished frame and the last `SAMPLE` bytes that
    belonged to none, for a person to look at: a login prompt, a boot loader, a wrong baud rate.
    """

    def __init__(self) -> None:
        self.counts = FrameCounts()
        self._unfinished = bytearray()
        self._overrun = 0
        self._sample = b""

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished frame held at this moment."""
        return len(self._unfinished)

    @property
    def sample(self) -> bytes:
        """The last bytes that belonged to no frame, those of an unfinished one included."""
        return (self._sample + bytes(self._unfinished))[-SAMPLE:]

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies of all frames that `data` completes, in order."""
        self.counts.bytes += len(data)
        *ended, rest = data.split(DELIMITER)
        bodies = []
        for part in ended:
            self._append(part)
            body = self._finish()
            if body is not None:
                bodies.append(body)
        self._append(rest)
        return bodies

    def _append(self, part: bytes) -> None:
        """Add to the unfinished frame; one longer than any frame is dropped until it ends."""
        if not self._overrun and len(self._unfinished) + len(part) <= MAX_ENCODED:
            self._unfinished += part
            return
        self._overrun += len(self._unfinished) + len(part)
        self._sample = (self._sample + bytes(self._unfinished) + part[-SAMPLE:])[-SAMPLE:]
        self._unfinished.clear()

    def _finish(self) -> bytes | None:
        """Return the body of the frame that a delimiter has just ended, if it is a good one."""
        coded, overrun = bytes(self._unfinished), self._overrun
        self._unfinished.clear()
        self._overrun = 0
        if overrun:
            self.counts.too_long += 1
            self.counts.skipped += overrun
            return None
        if not coded:
            return None
        body = self._decode(coded)
        if body is None:
            self.counts.skipped += len(coded)
            self._sample = (self._sample + coded)[-SAMPLE:]
        else:
            self.counts.frames += 1
        return body

    def _decode(self, coded: bytes) -> bytes | None:
        try:
            decoded = bytes(cobs.decode(coded))
        except cobs.DecodeError:
            self.counts.malformed += 1
            return None
        body, crc = decoded[:-CRC_SIZE], decoded[-CRC_SIZE:]
        if not 1 <= len(body) <= MAX_BODY:
            self.counts.malformed += 1
            return None
        if zlib.crc32(body) != int.from_bytes(crc, "little"):
            self.counts.bad_crc += 1
            return None
        return body
