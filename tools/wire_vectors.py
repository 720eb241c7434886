"""Write the test vectors for other implementations of the protocol and of its mask codec.

    python tools/wire_vectors.py            # docs/wire-vectors.json and docs/mask-vectors.json
    python tools/wire_vectors.py --check    # exit code 2 if a file is not what the code writes

Bytes are hexadecimal. `refused` are bodies, messages and images that a reader has to reject.
Images are int8, channels fastest; the payloads of lossy ones are kept here, because another
libwebp would make others. Masks are runs of equal labels (codec 1 of docs/wire.md), those of a
phantom and synthetic ones, not of patients.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import ROOT
from device.confidence import mask_confidence
from glioslice import cli
from glioslice.errors import GliosliceError
from glioslice.files import sha256, write_json
from glioslice.labels import to_labels
from glioslice.phantom.head import make_phantom
from glioslice.preprocessing import brain_mask, extract_slices, find_crop
from glioslice.wire import packets
from glioslice.wire.baud_negotiation import pattern
from glioslice.wire.codecs import RUNS, encode_mask
from glioslice.wire.context_model import PATH, MaskArray
from glioslice.wire.framing import MAX_BODY, encode_frame
from glioslice.wire.image_codecs import decode_lossy
from glioslice.wire.layout import varint
from glioslice.wire.mask_codecs import encode_change
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
    Temperature,
    VolumeGeometry,
)
from glioslice.wire.packets import ACCEPT, PROPOSE, Ack, Close, Data, Open, Packet, Probe, Rate
from glioslice.wire.range_coder import RangeEncoder

WIRE_FILE = ROOT / "docs" / "wire-vectors.json"
MASK_FILE = ROOT / "docs" / "mask-vectors.json"
PHANTOM_SLICES = 5
FIRST_SLICES = 2

MaskVector = tuple[str, MaskArray, MaskArray | None]
"""Name, mask (X, Y) and the mask before it."""

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
VOLUME = VolumeGeometry(
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
    Temperature(485),
    Temperature(-1000),
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
    *("080000", "08000001", "08ff0301010101", "080000ff8080808080", "09d107", "0917fc"),
    "030005000500" + "00" * 8,  # a run that begins behind its last slice
)


LOSSY = (
    (
        (16, 24, 1),
        "b002009d012a180010003ffdfeff7fbfbbbbb61803f03f896900007f1e0000febf82f7c645c098000000",
    ),
    (
        (16, 24, 1),
        "5003009d012a180010003eed42b756a9a2a6a41801301d8969000062fe79485de4a78000fef10dc104a265dc"
        "2951a1806d7231800000",
    ),
    (
        (17, 21, 1),
        "1005009d012a150011002e25188c4611111101001225a4041807f39fc0013a03f003f59b98034ff11b0ce117"
        "c3eaa5160000feefa7fffd875ffe3c7ffcd80bffd7c2ffde1599cbed6aedd2654d9ff22dc5b209b9b0205f74"
        "0b4c61fd27bfff6e4afff6543ff6c67556cc40000000",
    ),
    (
        (8, 24, 2),
        "5003009d012a180010003eed42b756a9a2a6a41801301d8969000062fe79485de4a78000fef10dc104a265dc"
        "2951a1806d7231800000",
    ),
)
"""Shapes (X, Y, channels) and payloads that libwebp made: grey ramps at two qualities, blocks."""


def refused_images() -> list[dict[str, Any]]:
    """Return a lossy image that is cut, of another size, of another kind, or not to be shown."""
    shape, text = LOSSY[1]
    bad = {"cut": text[:60], "header": text[:18], "start": text[:6] + "00" + text[8:]}
    bad |= {"kind": "51" + text[2:], "hidden": "40" + text[2:], "partition": "f0ff" + text[4:]}
    made = [{"why": why, "shape": list(shape), "payload": bad[why]} for why in sorted(bad)]
    return [*made, {"why": "size", "shape": [24, 16, 1], "payload": text}]


def logits() -> list[tuple[float, int, NDArray[np.int8]]]:
    """Return scales, zero points and logits (X, Y, 3): without a region, all labels, a strip."""
    none = np.array([[[-9, -7, -30], [-6, -128, -20], [-5, -90, -80]]] * 2, np.int8)
    small = np.array(
        [[(8 * x - 9, 6 * y - 12, 5 * x + y - 20) for y in range(6)] for x in range(5)]
    )
    x, y = np.indices((20, 19))
    far = np.maximum(abs(x - 9), abs(y - 8))
    large = np.stack([120 - 11 * far, 60 - 9 * far + x, 100 - 31 * far - y], axis=-1)
    wide = np.full((18, 18, 3), -128)
    wide[..., 0] = 127
    return [
        (0.0625, -5, none),
        (0.0625, 0, np.clip(small, -128, 127).astype(np.int8)),
        (0.01953125, 13, np.clip(large, -128, 127).astype(np.int8)),
        (0.1, -128, wide.astype(np.int8)),
    ]


def label_vector(scale: float, zero_point: int, values: NDArray[np.int8]) -> dict[str, Any]:
    """Return logits with their labels and their quality."""
    labels = to_labels(np.moveaxis(values > zero_point, -1, 0))
    return {
        "scale": scale,
        "zero_point": zero_point,
        "shape": list(values.shape[:2]),
        "logits": values.tobytes().hex(),
        "labels": np.ascontiguousarray(labels).tobytes().hex(),
        "quality": mask_confidence(values, scale, zero_point),
    }


def lossy_vector(shape: tuple[int, int, int], payload: str) -> dict[str, Any]:
    """Return a lossy payload with its image."""
    image = np.ascontiguousarray(decode_lossy(bytes.fromhex(payload), shape))
    return {"shape": list(shape), "payload": payload, "image": image.tobytes().hex()}


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
    """Return the content of wire-vectors.json."""
    return {
        "frames": [{"body": body.hex(), "frame": encode_frame(body).hex()} for body in BODIES],
        "packets": [packet_vector(packet, active) for packet, active in PACKETS],
        "lengths": [{"length": n, "prefix": varint(n).hex()} for n in LENGTHS],
        "messages": [
            {"type": type(one).__name__, "fields": fields(one), "bytes": one.to_bytes().hex()}
            for one in MESSAGES
        ],
        "labels": [label_vector(*one) for one in logits()],
        "lossy": [lossy_vector(*one) for one in LOSSY],
        "refused": {
            "packets": list(REFUSED_PACKETS),
            "messages": list(REFUSED_MESSAGES),
            "lossy": refused_images(),
        },
    }


def mask_vectors() -> dict[str, Any]:
    """Return the content of mask-vectors.json, for the present tables of the codec."""
    return {
        "tables": sha256(PATH),
        "range_coder": range_coder(),
        "masks": [
            {
                "name": name,
                "shape": list(mask.shape),
                "previous": None if previous is None else encode_mask(RUNS, previous).hex(),
                "mask": encode_mask(RUNS, mask).hex(),
                "content": encode_change(mask, previous).hex(),
            }
            for name, mask, previous in (*synthetic_masks(), *phantom_masks())
        ],
    }


def range_coder() -> list[dict[str, Any]]:
    """Return lists of decisions, [bit, probability], and numbers, [value, count], with their bytes.

    Halves fill whole bytes; the rare decision makes the interval end on both sides of a carry.
    """
    halves = [(int(bit), 1 << 14) for bit in "0111000011111111000000011"]
    rare = [(0, 32767)] * 3 + [(1, 1), (0, 1), (1, 32767), (0, 16384)] * 3
    numbers = [(6, 7), (0, 1), (30719, 30720), (0, 30720), (1 << 23, 1 << 24)]
    carry = [(0, 16384)] * 30 + [(0, 1)] + [(1, 3)] * 2 + [(0, 12345)] * 9
    lists: list[tuple[str, list[tuple[int, int]]]] = [
        ("decisions", halves),
        ("decisions", rare),
        ("decisions", carry),
        ("numbers", numbers),
        ("decisions", []),
    ]
    made = []
    for kind, items in lists:
        coder = RangeEncoder()
        for first, second in items:
            if kind == "decisions":
                coder.bits([first], [second])
            else:
                coder.number(first, second)
        made.append({kind: [list(item) for item in items], "bytes": coder.finish().hex()})
    return made


def synthetic_masks() -> Iterator[MaskVector]:
    """Yield small masks that exercise every part of the codec."""
    empty = np.zeros((12, 20), np.uint8)
    yield "empty", empty, None
    yield "empty after empty", empty, empty
    pixel = empty.copy()
    pixel[11, 19] = 3
    yield "one pixel, alone", pixel, None
    yield "one pixel after an empty slice", pixel, empty
    yield "the same again", pixel, pixel
    box = empty.copy()
    box[2:10, 3:15], box[4:8, 5:12], box[5:7, 6:9] = 2, 1, 3
    yield "a box, alone", box, None
    yield "a box moved", np.roll(box, (1, -2), (0, 1)), box
    yield "a box vanishes but for a pixel", pixel, box
    holes = box.copy()
    holes[5, 13], holes[9, 4] = 0, 0
    holes[0, 0], holes[0, 17] = 1, 2
    yield "holes and specks", holes, box
    yield "full, alone", np.full((12, 20), 3, np.uint8), None
    chequered = np.indices((12, 20)).sum(axis=0).astype(np.uint8) % 2 * 3
    yield "two bits a pixel", chequered, box
    yield "two bits a pixel, odd size", chequered[:5, :7].copy(), None


def phantom_masks() -> Iterator[MaskVector]:
    """Yield slices of a phantom's tumour: its first ones, and some around its middle."""
    head = make_phantom(0)
    masks = extract_slices(head.labels, find_crop(brain_mask(head.images)))
    labelled = np.flatnonzero(masks.any(axis=(1, 2)))
    middle = int(labelled[len(labelled) // 2])
    chosen = [
        *range(labelled[0], labelled[0] + FIRST_SLICES),
        *range(middle, middle + PHANTOM_SLICES),
    ]
    for place, index in enumerate(chosen):
        alone = place in (0, FIRST_SLICES)
        name = f"phantom, slice {index}" + (", alone" if alone else "")
        yield name, masks[index], None if alone else masks[index - 1]


def write_vectors(arguments: argparse.Namespace) -> None:
    """Write the files, or compare them."""
    for path, made in ((WIRE_FILE, vectors()), (MASK_FILE, mask_vectors())):
        if not arguments.check:
            write_json(path, made)
        elif json.loads(path.read_text(encoding="utf-8")) != made:
            raise GliosliceError(
                f"{path}: differs from what the code writes; run this command without --check"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Write the vectors of the protocol and of masks, or compare them with the files."""
    parser = cli.parser(
        "Write the test vectors of the serial protocol and of its mask codec.",
        "python tools/wire_vectors.py",
    )
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    cli.run(write_vectors, parser.parse_args(argv))


if __name__ == "__main__":
    main()
