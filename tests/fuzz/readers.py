"""The readers that the fuzzer feeds: the first byte of an input selects one of them.

Each reader raises nothing but GliosliceError, whatever it gets, and keeps its own promises.
"""

import contextlib
from collections.abc import Callable

import numpy as np

from glioslice.errors import GliosliceError
from glioslice.wire import messages, packets
from glioslice.wire.codecs import IMAGES, decode_image, decode_mask
from glioslice.wire.framing import MAX_BODY, MAX_ENCODED, FrameReader, encode_frame
from glioslice.wire.link import Link
from glioslice.wire.packets import Open
from glioslice.wire.receiver import HOLD, MAX_MESSAGE

HOST, BOARD = 0x1001, 0x2002
TAG = (HOST ^ BOARD).to_bytes(2, "little")
LINK_MEMORY = MAX_ENCODED + HOLD + MAX_MESSAGE + 2 * 32768
"""Bytes that a link buffers at most."""

MAX_BODIES = 12
"""Frame bodies that a link gets from one input: whatever can happen takes only a few of them."""

PREVIOUS = np.zeros((16, 20), np.uint8)
PREVIOUS[2:14, 3:17], PREVIOUS[4:11, 6:12], PREVIOUS[6:9, 8:15] = 2, 1, 3
"""The mask before the one that is decoded; it holds all labels."""

IMAGE_SHAPE = (16, 24, 4)


def read_frames(data: bytes) -> None:
    """Read bytes as frames; whatever came before, the next intact frame is found."""
    reader = FrameReader()
    for body in reader.feed(data):
        assert 1 <= len(body) <= MAX_BODY
    assert reader.buffered <= MAX_ENCODED
    assert reader.feed(encode_frame(b"intact"))[-1:] == [b"intact"]


def read_packet(data: bytes) -> None:
    """Read a packet; one that is accepted is written as the same bytes."""
    packet, active = packets.from_bytes(data)
    if not isinstance(packet, Open) or packet.version == packets.VERSION:
        assert packets.to_bytes(packet, active) == data


def read_message(data: bytes) -> None:
    """Read a message; one that is accepted survives writing and reading."""
    message = messages.parse(data)
    assert messages.parse(message.to_bytes()) == message


def read_mask(data: bytes) -> None:
    """Decode a mask; the first byte selects the codec, and, if odd, the mask before as context."""
    first = data[0] if data else 0
    previous = PREVIOUS if first & 1 else None
    mask = decode_mask((first >> 1) % 4, data[1:], (16, 20), previous)
    assert mask.shape == PREVIOUS.shape and mask.max() <= 3


def read_image(data: bytes) -> None:
    """Decode an image; the first byte selects the codec."""
    codec = data[0] % len(IMAGES) if data else 0
    assert decode_image(codec, data[1:], IMAGE_SHAPE).shape == IMAGE_SHAPE


def read_session(data: bytes) -> None:
    """Give a link what a hostile peer sends: bodies with the session's tag, without, unframed."""
    link = Link(active=False, session=BOARD)
    link.receive_bytes(encode_frame(packets.to_bytes(Open(HOST, BOARD, 1024, 32768, 1), True)), 0.0)
    link.sender.send(b"something in flight")
    for step in range(MAX_BODIES):
        wrapping, size = divmod(int.from_bytes(data[:2], "little"), MAX_BODY)
        body, data = data[2 : 3 + size], data[3 + size :]
        if not body:
            break
        tagged = bytes([body[0] | packets.FROM_ACTIVE]) + TAG + body[3:]
        link.receive_bytes(
            (encode_frame(tagged), encode_frame(body), body)[wrapping % 3], 0.05 * step
        )
        link.outgoing(0.05 * step)
        link.receiver.next_message()
        assert link.buffered <= LINK_MEMORY


READERS: tuple[Callable[[bytes], None], ...] = (
    *(read_frames, read_packet, read_message, read_mask),
    *(read_frames, read_packet, read_message, read_session),
    read_image,
)
"""A session is by far the slowest and is made of the others, so these get twice as many inputs."""


def read_input(data: bytes) -> None:
    """Give an input to its reader."""
    if data:
        with contextlib.suppress(GliosliceError):
            READERS[data[0] % len(READERS)](data[1:])
