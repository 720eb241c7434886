"""Who reads what the fuzzer makes up: the first byte of an input says which of them.

Each raises nothing but GliosliceError, whatever comes, and holds what it promises.
"""

import contextlib
from collections.abc import Callable

import numpy as np

from glioslice.errors import GliosliceError
from glioslice.wire import messages, packets
from glioslice.wire.codecs import IMAGES, decode_image, decode_mask
from glioslice.wire.framing import MAX_BODY, MAX_ENCODED, FrameReader, encode
from glioslice.wire.link import Link
from glioslice.wire.packets import Open
from glioslice.wire.receiver import HOLD, MAX_MESSAGE

HOST, BOARD = 0x1001, 0x2002
TAG = (HOST ^ BOARD).to_bytes(2, "little")
MOST = MAX_ENCODED + HOLD + MAX_MESSAGE + 2 * 32768
"""Bytes that a link holds at most."""

BODIES = 12
"""That a link is sent at most: what can happen happens among a few, and ten million inputs wait."""

BEFORE = np.zeros((16, 20), np.uint8)
BEFORE[2:14, 3:17], BEFORE[4:11, 6:12], BEFORE[6:9, 8:15] = 2, 1, 3
"""A mask with all labels."""

IMAGE_SHAPE = (16, 24, 4)


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
    """Read a mask in the codec that the first byte names: alone, or after another if it is odd."""
    first = data[0] if data else 0
    before = BEFORE if first & 1 else None
    read = decode_mask((first >> 1) % 4, data[1:], (16, 20), before)
    assert read.shape == BEFORE.shape and read.max() <= 3


def image(data: bytes) -> None:
    """Read an image in the codec that the first byte names."""
    number = data[0] % len(IMAGES) if data else 0
    assert decode_image(number, data[1:], IMAGE_SHAPE).shape == IMAGE_SHAPE


def link(data: bytes) -> None:
    """Read what a hostile peer sends: bodies with the session's tag, without, and no frame."""
    one = Link(active=False, session=BOARD)
    one.receive_bytes(encode(packets.to_bytes(Open(HOST, BOARD, 1024, 32768, 1), True)), 0.0)
    one.sender.send(b"something in flight")
    for step in range(BODIES):
        form, size = divmod(int.from_bytes(data[:2], "little"), MAX_BODY)
        body, data = data[2 : 3 + size], data[3 + size :]
        if not body:
            break
        tagged = bytes([body[0] | packets.FROM_ACTIVE]) + TAG + body[3:]
        one.receive_bytes((encode(tagged), encode(body), body)[form % 3], 0.05 * step)
        one.outgoing(0.05 * step)
        one.flow.next_message(0.05 * step)
        assert one.buffered <= MOST


READERS: tuple[Callable[[bytes], None], ...] = (
    *(frames, packet, message, mask),
    *(frames, packet, message, link),
    image,
)
"""The link is the slowest by far, and made of the others."""


def read(data: bytes) -> None:
    """Give an input to its reader."""
    if data:
        with contextlib.suppress(GliosliceError):
            READERS[data[0] % len(READERS)](data[1:])
