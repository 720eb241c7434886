"""What all messages share: their error, and the check of what a peer has sent.

Numbers of as many bytes as they need: in a stream, in messages and in payloads.
"""

import struct

from glioslice.errors import GliosliceError

MAX_SIDE = 1024
"""Voxels along an axis of a window or a volume: bounds what a reader allocates."""


class MessageError(GliosliceError):
    """Bytes that are no message of this version."""


class VersionError(MessageError):
    """The peer speaks another version of the messages."""


def check(condition: bool, what: str) -> None:
    """Raise MessageError with `what` unless `condition` holds."""
    if not condition:
        raise MessageError(f"the far end sent {what}; both ends need the same version of glioslice")


def unpack(layout: struct.Struct, data: bytes, name: str) -> tuple[int, ...]:
    """Return the fields of a message of fixed length."""
    check(len(data) == layout.size, f"a {name} of {len(data)} bytes, not {layout.size}")
    return layout.unpack(data)


def read_varint(data: bytes, at: int, most: int, name: str) -> tuple[int, int]:
    """Return the number at a place of `data`, and the place behind it.

    Raises MessageError, with the message's `name`, if it is cut or more than `most`.
    """
    value = shift = 0
    while True:
        check(at < len(data), f"{name} that ends within a number")
        check(shift < most.bit_length(), f"{name} with a number of more than {shift // 7} bytes")
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            check(value <= most, f"{name} with the number {value}")
            return value, at


def varint(value: int) -> bytes:
    """Return a number as 7 bits a byte, low bits first, the top bit set on all but the last."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
