"""Bytes to frames: COBS between delimiters, a bounded length, CRC-32. Garbage never raises.

    00 | COBS( body, 1 to 1088 bytes | CRC-32 of the body, u32 little-endian ) | 00

COBS leaves no zero byte inside, so a zero always ends whatever came before. With a delimiter before
and after, a frame that arrives intact is accepted after any noise. The CRC is that of zlib and
Ethernet (polynomial 0x04C11DB7, reflected).
"""

import zlib
from dataclasses import dataclass

from cobs import cobs

DELIMITER = b"\0"
CRC_SIZE = 4
MAX_BODY = 1088
"""Bytes of a body: the largest payload of the link, 1024, and room for its header."""

MAX_ENCODED = MAX_BODY + CRC_SIZE + -(-(MAX_BODY + CRC_SIZE) // 254)
"""COBS adds a byte for every 254 that begin."""

SAMPLE = 256


@dataclass
class FrameCounts:
    """What a reader has received so far. `skipped` bytes belonged to no good frame."""

    frames: int = 0
    bytes: int = 0
    skipped: int = 0
    malformed: int = 0
    bad_crc: int = 0
    too_long: int = 0


def encode_frame(body: bytes) -> bytes:
    """Return `body` as one frame with both delimiters; ValueError if it is empty or too long."""
    if not 1 <= len(body) <= MAX_BODY:
        raise ValueError(f"a frame's body is 1 to {MAX_BODY} bytes, not {len(body)}")
    crc = zlib.crc32(body).to_bytes(CRC_SIZE, "little")
    return DELIMITER + bytes(cobs.encode(body + crc)) + DELIMITER


class FrameReader:
    """Takes bytes in pieces of any size and returns the bodies of the frames they complete.

    It keeps at most `MAX_ENCODED` bytes of an unfinished frame, and as a sample the last `SAMPLE`
    bytes that belonged to no frame: a login prompt, a boot loader, a wrong baud rate.
    """

    def __init__(self) -> None:
        self.counts = FrameCounts()
        self._unfinished = bytearray()
        self._overrun = 0
        self._sample = b""

    @property
    def buffered(self) -> int:
        """Bytes of the unfinished frame."""
        return len(self._unfinished)

    @property
    def sample(self) -> bytes:
        """The last bytes that belonged to no frame, including those of an unfinished one."""
        return (self._sample + bytes(self._unfinished))[-SAMPLE:]

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies of all frames that `data` completes, in order."""
        self.counts.bytes += len(data)
        bodies = []
        parts = data.split(DELIMITER)
        for number, part in enumerate(parts, 1):
            if self._overrun or len(self._unfinished) + len(part) > MAX_ENCODED:
                self._drop(part)
            else:
                self._unfinished += part
            if number < len(parts) and (body := self._end_frame()) is not None:
                bodies.append(body)
        return bodies

    def _drop(self, part: bytes) -> None:
        """Drop a frame that is longer than any frame, until a delimiter ends it."""
        self._overrun += len(self._unfinished) + len(part)
        self._sample = (self._sample + bytes(self._unfinished) + part[-SAMPLE:])[-SAMPLE:]
        self._unfinished.clear()

    def _end_frame(self) -> bytes | None:
        """Return the body of the frame that a delimiter has just ended, None if it is not good."""
        coded, overrun, counts = bytes(self._unfinished), self._overrun, self.counts
        self._unfinished.clear()
        self._overrun = 0
        if not coded and not overrun:
            return None
        try:
            decoded = bytes(cobs.decode(coded))
        except cobs.DecodeError:
            decoded = b""
        body, crc = decoded[:-CRC_SIZE], decoded[-CRC_SIZE:]
        if overrun:
            counts.too_long += 1
        elif not 1 <= len(body) <= MAX_BODY:
            counts.malformed += 1
        elif zlib.crc32(body) != int.from_bytes(crc, "little"):
            counts.bad_crc += 1
        else:
            counts.frames += 1
            return body
        counts.skipped += overrun or len(coded)
        self._sample = (self._sample + coded)[-SAMPLE:]
        return None
