"""Decisions to bytes and back, each in as many bits as its chance says: a range coder.

After G. N. N. Martin, "Range encoding" (1979), in 32-bit unsigned arithmetic. The state is an
interval, `low` and `range`. A decision cuts it in two in the ratio of the chances, a number out of
n cuts it into n equal parts, and the part that came true becomes the interval. When the range falls
below 2^24, the top byte of `low` leaves. At the end the number of the interval with the most zero
bytes behind leaves without them: a decoder reads zeros beyond the end.
"""

from collections.abc import Iterable

from glioslice.wire.image_codecs import CodecError

CHANCE_BITS = 15
"""A chance is that of a one, in 32768ths, 1 to 32767."""

WHOLE = 0xFFFFFFFF
LEAST = 1 << 24
HEAD = 4
"""Bytes of the state, which a decoder is ahead of the encoder."""


class RangeEncoder:
    """Takes decisions and numbers; `finish` returns the bytes."""

    def __init__(self) -> None:
        self._low = 0
        self._range = WHOLE
        self._out = bytearray()

    def bits(self, bits: Iterable[int], chances: Iterable[int]) -> None:
        """Take decisions, 0 or 1, and their chances."""
        low, width = self._low, self._range
        for bit, chance in zip(bits, chances, strict=True):
            bound = (width >> CHANCE_BITS) * chance
            if bit:
                width = bound
            else:
                low += bound
                width -= bound
            if width < LEAST:
                low, width = self._shift(low, width)
        self._low, self._range = low, width

    def number(self, value: int, count: int) -> None:
        """Take a number from 0 to count - 1, each as likely; `count` is at most 2^24."""
        part = self._range // count
        self._low, self._range = self._shift(self._low + part * value, part)

    def finish(self) -> bytes:
        """Return all bytes. The last is not 0, so there may be none."""
        last = self._low + self._range - 1
        for bits in range(8 * HEAD, -1, -8):
            value = last >> bits << bits
            if value >= self._low:
                break
        low = value
        for _ in range(HEAD):
            low, _ = self._shift(low, LEAST - 1)
        return bytes(self._out).rstrip(b"\0")

    def _shift(self, low: int, width: int) -> tuple[int, int]:
        """Return the state after the bytes that are settled have left."""
        out = self._out
        if low > WHOLE:
            at = len(out) - 1
            while out[at] == 0xFF:
                out[at] = 0
                at -= 1
            out[at] += 1
            low &= WHOLE
        while width < LEAST:
            out.append(low >> 24)
            low = low << 8 & WHOLE
            width <<= 8
        return low, width


class RangeDecoder:
    """Gives back what a RangeEncoder took, if asked in the same order with the same chances."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._code = int.from_bytes(content[:HEAD].ljust(HEAD, b"\0"), "big")
        self._range = WHOLE
        self._read = HEAD

    def bit(self, chance: int) -> int:
        """Return a decision of this chance."""
        bound = (self._range >> CHANCE_BITS) * chance
        if self._code < bound:
            self._range = bound
            bit = 1
        else:
            self._code -= bound
            self._range -= bound
            bit = 0
        if self._range < LEAST:
            self._shift()
        return bit

    def number(self, count: int) -> int:
        """Return a number from 0 to count - 1; raises CodecError if there is another."""
        self._range //= count
        value, self._code = divmod(self._code, self._range)
        if value >= count:
            raise CodecError(f"a number {value} where there are only {count}")
        self._shift()
        return value

    def finish(self) -> None:
        """Raise CodecError if there are more bytes than an encoder would have written.

        A range of 2^24 or more holds a number with three zero bytes behind: one byte says it.
        """
        written = self._read - HEAD + 1
        if len(self._content) > written:
            raise CodecError(f"{len(self._content) - written} bytes follow the last decision")

    def _shift(self) -> None:
        """Read on until the range is wide enough."""
        while self._range < LEAST:
            self._range <<= 8
            following = self._content[self._read : self._read + 1]
            self._code = self._code << 8 | (following[0] if following else 0)
            self._read += 1
