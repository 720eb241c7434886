"""The hexadecimal examples of docs/wire.md are what the code writes and reads."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from glioslice.preprocessing import quantize, slice_volume
from glioslice.wire import messages, packets
from glioslice.wire.baud_negotiation import pattern
from glioslice.wire.codecs import decode_mask, encode_mask
from glioslice.wire.framing import FrameReader, encode_frame
from glioslice.wire.messages import (
    BoardHello,
    Empty,
    End,
    Error,
    ErrorCode,
    HostHello,
    Mask,
    Mode,
    Start,
    Temperature,
)
from glioslice.wire.packets import ACCEPT, PROPOSE, Ack, Close, Data, Open, Packet, Probe, Rate
from glioslice.wire.receiver import Receiver

DOCUMENT = Path(__file__).parents[3] / "docs" / "wire.md"
EXAMPLE = re.compile(
    r"^    ([a-z][a-z -]*?) = ((?:[0-9a-f]{2} ?)+(?:\n {8,}(?:[0-9a-f]{2} ?)+)*)", re.M
)

HOST, BOARD = 0x11223344, 0x55667788
TAG = (HOST ^ BOARD) & 0xFFFF
START = Start(140, first=0, key=0x0123456789ABCDEF)
PACKETS: dict[str, tuple[Packet, bool]] = {
    "open": (Open(HOST, 0, 1024, 32768, 0x1FF), True),
    "open reply": (Open(BOARD, HOST, 1024, 32768, 0x1FF), False),
    "data": (Data(TAG, 0, 0, b"\x0e" + START.to_bytes()), True),
    "ack": (Ack(TAG, 512, 33280, ((512, 1024),)), False),
    "close": (Close(TAG), True),
    "propose": (Rate(TAG, PROPOSE, 921600, 310), True),
    "accept": (Rate(TAG, ACCEPT, 921600, 310), False),
    "probe": (Probe(TAG, 3, pattern(3)), True),
}
MESSAGES: dict[str, messages.Message] = {
    "board hello": BoardHello(
        modes=frozenset({Mode.SERVE}),
        window=(160, 192),
        scale=0.0390625,
        zero_point=0,
        clip=5.0,
        image_codecs=0b111,
        mask_codecs=0b1010,
        sha256="00112233445566778899aabbccddeeff" * 2,
        model="compact",
        boot=0x1122334455667788,
        kept=0x0123456789ABCDEF,
        answered=12,
        kernels="XNNPACK",
    ),
    "host hello": HostHello(Mode.SERVE, 2, 3),
    "start": START,
    "mask": Mask(7, 1, 1850, bytes.fromhex("04070100"), quality=212),
    "empty": Empty(11, (1850, 16456), (255, 200)),
    "end": End(139, 1, 257_000, "00112233445566778899aabbccddeeff" * 2),
    "temperature": Temperature(485),
    "error": Error(ErrorCode.SLICE, 12, "damaged payload"),
}


@pytest.fixture(scope="module")
def examples() -> dict[str, bytes]:
    found = EXAMPLE.findall(DOCUMENT.read_text(encoding="utf-8"))
    return {name: bytes.fromhex(text) for name, text in found}


def test_every_example_is_checked_here(examples: dict[str, bytes]) -> None:
    assert set(examples) == {"frame", "runs", *PACKETS, *MESSAGES}


def test_the_frame(examples: dict[str, bytes]) -> None:
    assert encode_frame(b"123456789") == examples["frame"]
    assert FrameReader().feed(examples["frame"]) == [b"123456789"]


@pytest.mark.parametrize("name", PACKETS)
def test_packets(examples: dict[str, bytes], name: str) -> None:
    packet, active = PACKETS[name]
    assert encode_frame(packets.to_bytes(packet, active)) == examples[name]
    (body,) = FrameReader().feed(examples[name])
    assert packets.from_bytes(body) == PACKETS[name]


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(examples: dict[str, bytes], name: str) -> None:
    assert MESSAGES[name].to_bytes() == examples[name]
    assert messages.parse(examples[name]) == MESSAGES[name]


def test_the_data_packet_holds_the_start_message(examples: dict[str, bytes]) -> None:
    (body,) = FrameReader().feed(examples["data"])
    packet, _ = packets.from_bytes(body)
    assert isinstance(packet, Data)
    receiver = Receiver(4096)
    receiver.add(packet.offset, packet.payload)
    assert receiver.next_message() == examples["start"]


def test_the_runs(examples: dict[str, bytes]) -> None:
    mask = np.array([[0, 0, 3], [3, 1, 0]], np.uint8)
    assert encode_mask(1, mask) == examples["runs"]
    assert decode_mask(1, examples["runs"], (2, 3)).tolist() == mask.tolist()


def slices_of_the_document(
    volumes: NDArray[np.float32],
    window: tuple[int, int],
    scale: float,
    zero_point: int,
    clip: float,
) -> list[NDArray[np.int8]]:
    """Follow the six steps of "Slices" voxel by voxel, with nothing of ours."""
    brain = [place for place in np.ndindex(volumes.shape[1:]) if any(v[place] for v in volumes)]
    first, last = np.min(brain, axis=0), np.max(brain, axis=0)
    start = [
        (int(f) + int(s) + 1 - w) // 2 for f, s, w in zip(first, last, (*window, 1), strict=True)
    ]
    made = np.full((last[2] + 1 - first[2], *window, len(volumes)), zero_point, np.int8)
    for channel, volume in enumerate(volumes):
        values = np.array([volume[place] for place in brain], np.float64)
        while True:
            mean, deviation = values.mean(), values.std()
            kept = values[abs(values - mean) <= 50 * deviation]
            if len(kept) == len(values):
                break
            values = kept
        for x, y, z in brain if deviation else ():
            score = np.float32(volume[x, y, z] - np.float32(mean)) / np.float32(deviation)
            score = min(max(score, np.float32(-clip)), np.float32(clip))
            value = float(np.rint(score / np.float32(scale))) + zero_point
            at = (z - first[2], x - start[0], y - start[1], channel)
            made[at] = min(max(value, -128), 127)
    return list(made)


@pytest.mark.parametrize("window", [(20, 24), (17, 19)])
def test_slices_are_made_as_the_document_says(window: tuple[int, int]) -> None:
    chance = np.random.default_rng(1)
    volumes = chance.normal(300, 80, (4, 18, 21, 30)).astype(np.float32)
    volumes[:, :3] = volumes[:, 16:] = volumes[:, :, :4] = volumes[:, :, 20:] = 0
    volumes[..., :5] = volumes[..., 28:] = 0
    volumes[3, 4:9] = 0  # dark, but brain in the other modalities
    volumes[1, 5, 8, 9] = 1e6  # 69 standard deviations, which is wild
    volumes[2] = np.where(volumes[2] != 0, 7, 0)  # constant
    cut, crop = slice_volume(volumes, window, 5.0)
    assert crop.z == (5, 28)
    for scale, zero_point in ((0.0390625, 0), (0.02, -7)):
        sent = quantize(cut, scale, zero_point)
        expected = slices_of_the_document(volumes, window, scale, zero_point, 5.0)
        np.testing.assert_array_equal(sent, expected)
        assert len(np.unique(sent)) > 100
