"""What several layers share: errors, checks of received bytes, and numbers of variable length."""

import struct

from glioslice.errors import GliosliceError

MAX_SIDE = 1024
"""Voxels along an axis of a window or a volume: bounds what a reader allocates."""


class MessageError(GliosliceError):
    """Bytes that are not a message of this version."""


class VersionError(MessageError):
    """The peer uses another version of the messages."""


class CodecError(GliosliceError):
    """A payload that does not decode to what was expected, or an unknown codec."""


def refusal(what: str) -> MessageError:
    """Return the error for `what` was received."""
    return MessageError(f"the far end sent {what}; both ends need the same version of glioslice")


def require(condition: bool, what: str) -> None:
    """Raise MessageError, naming `what` was received, unless `condition` holds."""
    if not condition:
        raise refusal(what)


def unpack_fields(layout: struct.Struct, data: bytes, name: str) -> tuple[int, ...]:
    """Return the fields of a message of fixed length; raises MessageError for another length."""
    if len(data) != layout.size:
        raise refusal(f"a {name} of {len(data)} bytes, not {layout.size}")
    return layout.unpack(data)


def varint(value: int) -> bytes:
    """Return a number as 7 bits per byte, low bits first, the top bit set on all but the last."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


def read_varint(data: bytes | bytearray, start: int, max_bytes: int) -> tuple[int, int] | None:
    """Return the number at `start` of `data` and the position after it.

    None if no number of at most `max_bytes` bytes ends there.
    """
    value = 0
    for position in range(start, min(start + max_bytes, len(data))):
        value |= (data[position] & 0x7F) << 7 * (position - start)
        if not data[position] & 0x80:
            return value, position + 1
    return None
