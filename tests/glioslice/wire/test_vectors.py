"""docs/wire-vectors.json is what the code writes, reads and refuses."""

import json
from typing import Any

import numpy as np
import pytest

from device.confidence import mask_confidence
from glioslice.labels import to_labels
from glioslice.wire import messages, packets
from glioslice.wire.codecs import CodecError
from glioslice.wire.framing import FrameReader, encode_frame
from glioslice.wire.image_codecs import decode_lossy
from glioslice.wire.layout import varint
from glioslice.wire.messages import MessageError
from glioslice.wire.packets import PacketError
from glioslice.wire.receiver import read_length
from tools.wire_vectors import WIRE_FILE, fields, vectors

VECTORS: dict[str, Any] = json.loads(WIRE_FILE.read_text(encoding="utf-8"))


def test_the_file_is_what_the_code_writes() -> None:
    assert vectors() == VECTORS


@pytest.mark.parametrize("vector", VECTORS["frames"])
def test_frames(vector: dict[str, str]) -> None:
    body, frame = bytes.fromhex(vector["body"]), bytes.fromhex(vector["frame"])
    assert encode_frame(body) == frame
    assert FrameReader().feed(frame) == [body]


@pytest.mark.parametrize("vector", VECTORS["packets"])
def test_packets(vector: dict[str, Any]) -> None:
    (body,) = FrameReader().feed(bytes.fromhex(vector["frame"]))
    assert body.hex() == vector["body"]
    packet, active = packets.from_bytes(body)
    assert type(packet).__name__ == vector["kind"]
    assert active == (vector["from"] == "active")
    assert fields(packet) == vector["fields"]
    assert packets.to_bytes(packet, active) == body


@pytest.mark.parametrize("vector", VECTORS["messages"])
def test_messages(vector: dict[str, Any]) -> None:
    message = messages.parse(bytes.fromhex(vector["bytes"]))
    assert type(message).__name__ == vector["type"]
    assert fields(message) == vector["fields"]
    assert message.to_bytes().hex() == vector["bytes"]


@pytest.mark.parametrize("vector", VECTORS["lengths"])
def test_lengths(vector: dict[str, Any]) -> None:
    prefix = bytes.fromhex(vector["prefix"])
    assert varint(vector["length"]) == prefix
    assert read_length(bytearray(prefix)) == (vector["length"], len(prefix))


@pytest.mark.parametrize("body", VECTORS["refused"]["packets"])
def test_packets_that_are_refused(body: str) -> None:
    with pytest.raises(PacketError):
        packets.from_bytes(bytes.fromhex(body))


@pytest.mark.parametrize("data", VECTORS["refused"]["messages"])
def test_messages_that_are_refused(data: str) -> None:
    with pytest.raises(MessageError):
        messages.parse(bytes.fromhex(data))


@pytest.mark.parametrize("vector", VECTORS["labels"])
def test_labels_and_quality(vector: dict[str, Any]) -> None:
    x, y = vector["shape"]
    logits = np.frombuffer(bytes.fromhex(vector["logits"]), np.int8).reshape(x, y, 3)
    labels = to_labels(np.moveaxis(logits > vector["zero_point"], -1, 0))
    assert np.ascontiguousarray(labels).tobytes().hex() == vector["labels"]
    quality = mask_confidence(logits, vector["scale"], vector["zero_point"])
    assert quality == vector["quality"]


@pytest.mark.parametrize("vector", VECTORS["lossy"])
def test_lossy_images(vector: dict[str, Any]) -> None:
    image = decode_lossy(bytes.fromhex(vector["payload"]), tuple(vector["shape"]))
    assert np.ascontiguousarray(image).tobytes().hex() == vector["image"]


@pytest.mark.parametrize("vector", VECTORS["refused"]["lossy"], ids=lambda one: one["why"])
def test_lossy_images_that_are_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(CodecError):
        decode_lossy(bytes.fromhex(vector["payload"]), tuple(vector["shape"]))


def test_the_vectors_tell_readers_apart() -> None:
    """Every label occurs, and a region is wider than its strip."""
    labels = {label for one in VECTORS["labels"] for label in bytes.fromhex(one["labels"])}
    assert labels == {0, 1, 2, 3}
    assert len({one["quality"] for one in VECTORS["labels"]}) == len(VECTORS["labels"])
