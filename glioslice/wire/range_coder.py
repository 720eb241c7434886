"""A binary range coder: decisions of known probability to bytes and back.

After G. N. N. Martin, "Range encoding" (1979), in 32-bit unsigned arithmetic. The state is an
interval, `low` and `range`. A binary decision splits it in the ratio of the probabilities, a number
out of n splits it into n equal parts, and the part that came true becomes the interval. When the
range falls below 2^24, the top byte of `low` is written. At the end the number in the interval that
has the most zero bytes at its end is written without them: a decoder reads zeros beyond the end.
"""

from collections.abc import Iterable

from glioslice.wire.layout import CodecError

PROBABILITY_BITS = 15
"""A probability is that of a one, in 32768ths, 1 to 32767."""

WHOLE = 0xFFFFFFFF
LEAST = 1 << 24
HEAD = 4
"""Bytes of the state, by which a decoder is ahead of the encoder."""


class RangeEncoder:
    """Encodes decisions and numbers; `finish` returns the bytes."""

    def __init__(self) -> None:
        self._low = 0
        self._range = WHOLE
        self._out = bytearray()

    def bits(self, bits: Iterable[int], probabilities: Iterable[int]) -> None:
        """Encode decisions, 0 or 1, of these probabilities."""
        low, width = self._low, self._range
        for bit, probability in zip(bits, probabilities, strict=True):
            bound = (width >> PROBABILITY_BITS) * probability
            if bit:
                width = bound
            else:
                low += bound
                width -= bound
            if width < LEAST:
                low, width = self._shift(low, width)
        self._low, self._range = low, width

    def number(self, value: int, count: int) -> None:
        """Encode a number from 0 to count - 1, all equally likely; `count` is at most 2^24."""
        part = self._range // count
        self._low, self._range = self._shift(self._low + part * value, part)

    def finish(self) -> bytes:
        """Return all bytes. The last one is not 0, so there may be none."""
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
        """Return the state after the bytes that are settled have been written."""
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
    """Decodes what a RangeEncoder wrote, given the same probabilities in the same order."""

    def __init__(self, content: bytes) -> None:
        self._size = len(content)
        self._content = iter(content[HEAD:])
        self._code = int.from_bytes(content[:HEAD].ljust(HEAD, b"\0"), "big")
        self._range = WHOLE
        self._read = HEAD

    def bit(self, probability: int) -> int:
        """Return the next decision, which has this probability."""
        bound = (self._range >> PROBABILITY_BITS) * probability
        if self._code < bound:
            self._range = bound
            bit = 1
        else:
            self._code -= bound
            self._range -= bound
            bit = 0
        while self._range < LEAST:
            self._range <<= 8
            self._code = self._code << 8 | next(self._content, 0)
            self._read += 1
        return bit

    def number(self, count: int) -> int:
        """Return a number from 0 to count - 1; raises CodecError for a larger one."""
        self._range //= count
        value, self._code = divmod(self._code, self._range)
        if value >= count:
            raise CodecError(f"a number {value} where there are only {count}")
        while self._range < LEAST:
            self._range <<= 8
            self._code = self._code << 8 | next(self._content, 0)
            self._read += 1
        return value

    def finish(self) -> None:
        """Raise CodecError if there are more bytes than an encoder would have written.

        A range of 2^24 or more holds a number that ends in three zero bytes, so one byte is enough.
        """
        written = self._read - HEAD + 1
        if self._size > written:
            raise CodecError(f"{self._size - written} bytes follow the last decision")
