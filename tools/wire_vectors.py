"""Write docs/wire-vectors.json: test vectors for other implementations of the protocol.

    python tools/wire_vectors.py            # docs/wire-vectors.json
    python tools/wire_vectors.py --check    # exit code 2 if the file is not what the code writes

Bytes are hexadecimal. `refused` are bodies and messages that a reader has to reject.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import Any

from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import write_json
from glioslice.wire import packets
from glioslice.wire.baud_negotiation import pattern
from glioslice.wire.framing import MAX_BODY, encode_frame
from glioslice.wire.layout import varint
from glioslice.wire.messages import (
    BoardHello,
    Empty,
    End,
    Error,
    ErrorCode,
    HostHello,
    Mask,
    Message,
    Mode,
    Slice,
    Start,
    Volume,
)
from glioslice.wire.packets import ACCEPT, PROPOSE, Ack, Close, Data, Open, Packet, Probe, Rate

FILE = Path(__file__).parents[1] / "docs" / "wire-vectors.json"
TAG = 0x44CC
DIGITS = "00112233445566778899aabbccddeeff" * 2

BODIES = (
    b"123456789",
    b"\0",
    b"\0\0\0",
    bytes(range(1, 255)),
    bytes(range(256)),
    b"x" * 300,
    bytes(MAX_BODY),
    bytes(value % 255 + 1 for value in range(MAX_BODY)),
)
PACKETS: tuple[tuple[Packet, bool], ...] = (
    (Open(0x11223344, 0, 1024, 32768, 0x1FF), True),
    (Open(0x55667788, 0x11223344, 64, 64, 0), False),
    (Data(TAG, 0, 0, b"\x0e" + bytes(14)), True),
    (Data(TAG, 0xFFFFFF, 0x010203, b"x"), False),
    (Data(TAG, 5, 6, bytes(1024)), True),
    (Ack(TAG, 512, 33280), False),
    (Ack(TAG, 512, 33280, ((512, 1024), (1, 0xFFFF))), True),
    (Ack(TAG, 0, 0, tuple((n + 1, 64) for n in range(32))), False),
    (Close(TAG), True),
    (Rate(TAG, PROPOSE, 3000000, 310), True),
    (Rate(TAG, ACCEPT, 115200, 310), False),
    (Probe(TAG, 15, pattern(15)), True),
)
VOLUME = Volume(
    shape=(240, 240, 155),
    origin=(-4, 21),
    z=(10, 150),
    spacing=(1.0, 0.9375, 1.0),
    affine=(-1.0, 0.0, 0.0, 0.125, 0.0, -0.9375, 0.0, 239.0, 0.0, 0.0, 1.0, -1e-3),
    scheme=1,
    forms=(2, 1),
)
HELLO = BoardHello(
    modes=frozenset({Mode.SERVE, Mode.PLAY}),
    window=(160, 192),
    scale=0.0390625,
    zero_point=-3,
    clip=5.0,
    image_codecs=0b111,
    mask_codecs=0b1011,
    sha256=DIGITS,
    model="compact",
    boot=0x1122334455667788,
    kept=0x0123456789ABCDEF,
    answered=12,
    mirroring=True,
    kernels="reference",
    largest_payload=8192,
)
MESSAGES: tuple[Message, ...] = (
    HELLO,
    HostHello(Mode.PLAY, 0, 3),
    Start(140, key=0x0123456789ABCDEF),
    Start(140, first=12),
    Start(140, VOLUME),
    Start(140, key=0x0123456789ABCDEF, absent=0b1011),
    Start(140, VOLUME, absent=0b0101),
    Slice(139, 1, bytes.fromhex("78da6364000000030002")),
    Mask(7, 1, 1850, bytes.fromhex("04070100"), quality=212),
    Mask(1023, 2, 0xFFFFFFFF, b""),
    Mask(0, 3, 0, b"\xff", quality=0),
    Empty(0, (1850,), (255,)),
    Empty(1021, (127, 128, 0xFFFFFFFF), (254, 255, 0)),
    End(139, 1, 257_000, DIGITS),
    Error(ErrorCode.SLICE, 12, "damaged payload"),
    Error(ErrorCode.STOPPED, -1, ""),
)


def with_byte(message: Message, place: int, value: int) -> str:
    """Return a message with another byte at `place`."""
    data = bytearray(message.to_bytes())
    data[place] = value
    return data.hex()


LENGTHS = (1, 127, 128, 16383, 16384, 262144)
REFUSED_PACKETS = ("", "00", "0700", "8102443322110000000000040080ff0100", "82cc44000000000000")
REFUSED_MESSAGES = (
    *("", "00", "09", "0203010000", "0204030000", "0205010000", "0300", "06" + "00" * 45),
    *(with_byte(HELLO, 92, 2), with_byte(HELLO, 93, 3), "03028c" + "00" * 11, "03f08c" + "00" * 11),
    *("0501070003", "0501070003ff", "0501070003ffffffff1f"),
    *("080000", "08000001", "08ff0301010101", "080000ff8080808080"),
)


def plain(value: Any) -> Any:
    """Return a field as JSON can hold it."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, IntEnum):
        return int(value)
    if isinstance(value, frozenset):
        return sorted(int(one) for one in value)
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return value


def fields(one: Packet | Message) -> dict[str, Any]:
    """Return the fields of a packet or a message by their names in the code."""
    return {name: plain(value) for name, value in asdict(one).items()}


def packet_vector(packet: Packet, active: bool) -> dict[str, Any]:
    """Return a packet with its body and its frame."""
    body = packets.to_bytes(packet, active)
    origin = "active" if active else "passive"
    head = {"kind": type(packet).__name__, "from": origin, "fields": fields(packet)}
    return {**head, "body": body.hex(), "frame": encode_frame(body).hex()}


def vectors() -> dict[str, Any]:
    """Return the whole file."""
    return {
        "frames": [{"body": body.hex(), "frame": encode_frame(body).hex()} for body in BODIES],
        "packets": [packet_vector(packet, active) for packet, active in PACKETS],
        "lengths": [{"length": n, "prefix": varint(n).hex()} for n in LENGTHS],
        "messages": [
            {"type": type(one).__name__, "fields": fields(one), "bytes": one.to_bytes().hex()}
            for one in MESSAGES
        ],
        "refused": {"packets": list(REFUSED_PACKETS), "messages": list(REFUSED_MESSAGES)},
    }


def write_vectors(arguments: argparse.Namespace) -> None:
    """Write the file, or compare it."""
    made = vectors()
    if not arguments.check:
        write_json(arguments.out, made)
    elif json.loads(arguments.out.read_text(encoding="utf-8")) != made:
        raise GliosliceError(
            f"{arguments.out}: differs from what the code writes; run this command without --check"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = cli.parser(
        "Write the test vectors of the serial protocol.", "python tools/wire_vectors.py"
    )
    parser.add_argument("--out", type=Path, default=FILE, metavar="JSON")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    cli.run(write_vectors, parser.parse_args(argv))


if __name__ == "__main__":
    main()
