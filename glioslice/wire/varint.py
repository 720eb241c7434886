"""Numbers of as many bytes as they need: in a stream, in messages and in payloads."""


def varint(value: int) -> bytes:
    """Return a number as 7 bits a byte, low bits first, the top bit set on all but the last."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
