"""Who reads what the fuzzer makes up: the first byte of an input says which of them.

Each raises nothing but GliosliceError, whatever comes, and holds what it promises.
"""

import contextlib
from collections.abc import Callable

from glioslice.errors import GliosliceError
from glioslice.wire import messages, packets
from glioslice.wire.codecs import decode_mask
from glioslice.wire.frames import MAX_BODY, MAX_ENCODED, FrameReader, encode
from glioslice.wire.link import Link
from glioslice.wire.packets import Open
from glioslice.wire.receiver import HOLD, MAX_MESSAGE

HOST, BOARD = 0x1001, 0x2002
TAG = (HOST ^ BOARD).to_bytes(2, "little")
MOST = MAX_ENCODED + HOLD + MAX_MESSAGE + 2 * 32768
"""Bytes that a link holds at most."""


def frames(data: bytes) -> None:
    """Read bytes from a line; what came before keeps no intact frame from being heard."""
    reader = FrameReader()
    for body in reader.feed(data):
        assert 1 <= len(body) <= MAX_BODY
    assert reader.buffered <= MAX_ENCODED
    assert reader.feed(encode(b"intact"))[-1:] == [b"intact"]


def packet(data: bytes) -> None:
    """Read a packet; what is taken is written alike."""
    read, active = packets.from_bytes(data)
    if not isinstance(read, Open) or read.version == packets.VERSION:
        assert packets.to_bytes(read, active) == data


def message(data: bytes) -> None:
    """Read a message; what is taken comes back."""
    read = messages.parse(data)
    assert messages.parse(read.to_bytes()) == read


def mask(data: bytes) -> None:
    """Read a mask in the codec that every board has."""
    decode_mask(1, data, (32, 40))


def link(data: bytes) -> None:
    """Read a hostile peer's bodies, with the session's tag and without, and bare bytes."""
    one = Link(active=False, session=BOARD)
    one.receive_bytes(encode(packets.to_bytes(Open(HOST, BOARD, 1024, 32768, 1), True)), 0.0)
    one.send(b"something in flight")
    now = 0.0
    while data:
        size, data = 1 + int.from_bytes(data[:2], "little") % MAX_BODY, data[2:]
        body, data = data[:size], data[size:]
        if body:
            tagged = bytes([body[0] | packets.FROM_ACTIVE]) + TAG + body[3:]
            for piece in (encode(tagged), encode(body), body):
                one.receive_bytes(piece, now)
        one.outgoing(now)
        one.take(now)
        now += 0.05
        assert one.buffered <= MOST


READERS: tuple[Callable[[bytes], None], ...] = (
    *(frames, packet, message, mask),
    *(frames, packet, message, link),
)
"""The link is the slowest by far, and made of the others."""


def read(data: bytes) -> None:
    """Give an input to its reader."""
    if data:
        with contextlib.suppress(GliosliceError):
            READERS[data[0] % len(READERS)](data[1:])
